//! What the owner asks of a running provider ([`infernet_node::owner`]).

use std::path::Path;

pub use infernet_node::owner::Error;
use infernet_node::owner::{self, Asked, Socket};
use infernet_node::shutdown::Shutdown;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::floor::Question;
use crate::home::ROLE;
use crate::status::Status;

/// What an owner may say, one JSON object a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
enum Ask {
    /// How do you stand?
    Status,
    /// Stop: after what runs, or now. The connection ends when it is done.
    Stop {
        /// Fail what runs.
        now: bool,
    },
}

/// Where a running provider answers its owner.
#[derive(Debug)]
pub(crate) struct Desk(Socket);

impl Desk {
    /// Opens the socket at `path`.
    ///
    /// # Errors
    /// A path that is too long, or a folder that cannot be written.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Socket::open(ROLE, path).map(Self)
    }

    /// Answers until the task is dropped.
    pub async fn serve(self, questions: mpsc::Sender<Question>, shutdown: Shutdown) {
        loop {
            let asked = self.0.next().await;
            tokio::spawn(answer(asked, questions.clone(), shutdown.clone()));
        }
    }
}

async fn answer(mut asked: Asked, questions: mpsc::Sender<Question>, shutdown: Shutdown) {
    while let Some(ask) = asked.question().await {
        let told = match ask {
            Ask::Status => match status(&questions).await {
                Some(status) => asked.answer(&status).await,
                None => return,
            },
            Ask::Stop { now } => return stop(asked, &questions, &shutdown, now).await,
        };
        if told.is_err() {
            return;
        }
    }
}

async fn status(questions: &mpsc::Sender<Question>) -> Option<Status> {
    let (asked, answered) = oneshot::channel();
    questions.send(Question::Status(asked)).await.ok()?;
    answered.await.ok()
}

/// Begins the stop, and holds the connection open until it is done.
async fn stop(
    mut asked: Asked,
    questions: &mpsc::Sender<Question>,
    shutdown: &Shutdown,
    now: bool,
) {
    match now {
        true => shutdown.stop_now(),
        false => shutdown.stop_soon(),
    }
    // Whoever asked may have gone.
    let _ = asked.answer(&json!({ "stopping": true })).await;
    questions.closed().await;
}

/// A connection to a running provider.
#[derive(Debug)]
pub struct Visitor(owner::Visitor);

impl Visitor {
    /// Connects to the provider whose socket this is.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if there is none.
    pub async fn connect(path: &Path) -> Result<Self, Error> {
        owner::Visitor::connect(ROLE, path).await.map(Self)
    }

    /// Asks how it stands.
    ///
    /// # Errors
    /// A provider that does not answer.
    pub async fn status(&mut self) -> Result<Status, Error> {
        self.0.ask(&Ask::Status).await
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// A provider that does not answer.
    pub async fn stop(mut self, now: bool) -> Result<(), Error> {
        self.0.ask::<Value>(&Ask::Stop { now }).await?;
        self.0.ended().await;
        Ok(())
    }
}
