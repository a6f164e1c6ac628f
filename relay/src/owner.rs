//! How its owner talks to a running relay: over a socket in its folder, which the owner alone can open.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use infernet_node::clock;
use infernet_node::complaint;
pub use infernet_node::owner::Error;
use infernet_node::owner::{self, Asked, Failed, Visitor};
use nostr::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::decisions::{self, Change, Done};
use crate::lock;
use crate::options::Peer;
use crate::session::Shared;
use crate::status::Status;
use crate::sync::{self, Ours, Progress, Task, Unwanted};

/// What it is.
const ROLE: &str = "relay";

/// How often the owner hears how far a reconciliation has come.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// How long a relay may have its folder and not talk, and how often it is tried.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What its owner may ask.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// Make this relay and another equal. It is answered again and again, with a [`Progress`], until that is complete,
    /// and ends when whoever asked goes away.
    Sync(Box<Task>),
    /// Ban somebody, and so on.
    Decide(Change),
    /// How the relay is.
    Status,
}

/// How the relay in `folder` is.
///
/// # Errors
/// [`Error::NotRunning`] if there is none.
pub async fn status(folder: &Path) -> Result<Status, Error> {
    visit(folder).await?.ask(&Question::Status).await
}

/// Connects to the relay that runs in `folder`. One that has its folder and does not talk is starting, or ending, and
/// is waited for.
///
/// # Errors
/// [`Error::NotRunning`] if there is none.
pub async fn visit(folder: &Path) -> Result<Visitor, Error> {
    let began = Instant::now();
    loop {
        match Visitor::connect(ROLE, &path(folder)).await {
            Err(Error::NotRunning { .. })
                if lock::is_taken(folder) && began.elapsed() < SETTLED_WITHIN =>
            {
                sleep(ASK_AGAIN).await;
            }
            done => return done,
        }
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("relay.sock")
}

/// A running relay, as its owner has it.
#[derive(Debug, Clone)]
pub struct House {
    /// What another relay is made equal to.
    pub ours: Ours,
    /// Where it lies.
    pub folder: PathBuf,
    /// The relays that it is kept equal with.
    pub peers: Vec<Peer>,
    /// Where it listens.
    pub address: SocketAddr,
    /// When it started.
    pub started_at: Timestamp,
    /// What its sessions share.
    pub shared: Shared,
}

/// Answers the owner, for ever; never where there is no place for a socket.
pub async fn serve(house: &House) {
    let socket = match owner::Socket::open(ROLE, &path(&house.folder)) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "the relay cannot be talked to by its owner");
            return std::future::pending().await;
        }
    };
    // What runs ends with this.
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            asked = socket.next() => {
                running.spawn(answer(house.clone(), asked));
            }
            Some(_) = running.join_next() => {}
        }
    }
}

async fn answer(house: House, mut asked: Asked) {
    while let Some(question) = asked.question().await {
        match question {
            Question::Sync(task) => sync(&house, &mut asked, &task).await,
            Question::Decide(change) => decide(&house.shared, &mut asked, change).await,
            Question::Status => {
                let status = Status::of(&house.shared, house.address, house.started_at);
                // Whoever asked may have gone.
                let _ = asked.answer(&status).await;
            }
        }
    }
}

async fn decide(shared: &Shared, asked: &mut Asked, change: Change) {
    match decisions::decide(&shared.lists, &shared.store, change).await {
        Ok(()) => drop(asked.answer(&Done {}).await),
        Err(error) => failed(asked, complaint::told(&error)).await,
    }
}

async fn sync(house: &House, asked: &mut Asked, task: &Task) {
    let keys = match sync::key(&house.folder) {
        Ok(keys) => keys,
        Err(error) => return failed(asked, complaint::told(&error)).await,
    };
    let progress = watch::Sender::new(Progress::default());
    let mut unwanted = Unwanted::default();
    let now = clock::now();
    let work = sync::equalise(&house.ours, task, &keys, now, &mut unwanted, &progress);
    let mut work = std::pin::pin!(work);
    let mut ticks = interval(REPORT_EVERY);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticks.tick() => {
                let so_far = progress.borrow().clone();
                if asked.answer(&so_far).await.is_err() {
                    return;
                }
            }
        }
    };
    let so_far = progress.borrow().clone();
    // Whoever asked may have gone.
    let _ = asked.answer(&so_far).await;
    if let Err(error) = done {
        failed(asked, complaint::told(&error)).await;
    }
}

async fn failed(asked: &mut Asked, error: String) {
    // Whoever asked may have gone.
    let _ = asked.answer(&Failed { error }).await;
}
