//! What the owner asks of a running aggregator ([`infernet_node::owner`]).

use std::path::Path;
use std::sync::Arc;

pub use infernet_node::owner::Error;
use infernet_node::owner::{self, Asked};
use nostr::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::home::ROLE;
use crate::house::House;
use crate::status::{Order, Provider, Status};

/// What an owner may say, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Ask {
    /// How do you stand?
    Status,
    /// The newest orders.
    Jobs,
    /// Who is dealt with.
    Providers,
    /// Buy nothing more of a provider.
    Ban {
        /// Who.
        provider: PublicKey,
        /// Why.
        reason: String,
    },
    /// Buy of a provider again.
    Unban {
        /// Who.
        provider: PublicKey,
    },
    /// Stop. The connection ends when that is done.
    Stop {
        /// Wait for nothing.
        now: bool,
    },
}

/// Where a running aggregator answers its owner.
#[derive(Debug)]
pub(crate) struct Socket(owner::Socket);

impl Socket {
    /// Opens the socket at `path`.
    ///
    /// # Errors
    /// A path that is too long, or a folder that cannot be written.
    pub fn open(path: &Path) -> Result<Self, Error> {
        owner::Socket::open(ROLE, path).map(Self)
    }

    /// Answers until the task is dropped.
    pub async fn serve(&self, house: &Arc<House>) {
        loop {
            tokio::spawn(answer(self.0.next().await, house.clone()));
        }
    }
}

async fn answer(mut asked: Asked, house: Arc<House>) {
    while let Some(ask) = asked.question().await {
        let told = match ask {
            Ask::Stop { now } => return stop(asked, &house, now).await,
            ask => asked.answer(&crate::owner::answer(&house, ask).await).await,
        };
        if told.is_err() {
            return;
        }
    }
}

/// Begins the stop, and holds the connection open until it is done.
async fn stop(mut asked: Asked, house: &House, now: bool) {
    match now {
        true => house.shutdown.stop_now(),
        false => house.shutdown.stop_soon(),
    }
    // Whoever asked may have gone.
    let _ = asked.answer(&json!({ "stopping": true })).await;
    house.ended.cancelled().await;
}

/// A connection to a running aggregator.
#[derive(Debug)]
pub struct Visitor(owner::Visitor);

impl Visitor {
    /// Connects to the aggregator whose socket this is.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if there is none.
    pub async fn connect(path: &Path) -> Result<Self, Error> {
        owner::Visitor::connect(ROLE, path).await.map(Self)
    }

    /// Asks how it stands.
    ///
    /// # Errors
    /// An aggregator that does not answer.
    pub async fn status(&mut self) -> Result<Status, Error> {
        self.0.ask(&Ask::Status).await
    }

    /// Asks for the newest orders.
    ///
    /// # Errors
    /// An aggregator that does not answer.
    pub async fn jobs(&mut self) -> Result<Vec<Order>, Error> {
        self.0.ask(&Ask::Jobs).await
    }

    /// Asks who is dealt with.
    ///
    /// # Errors
    /// An aggregator that does not answer.
    pub async fn providers(&mut self) -> Result<Vec<Provider>, Error> {
        self.0.ask(&Ask::Providers).await
    }

    /// Has it buy nothing more of a provider.
    ///
    /// # Errors
    /// An aggregator that does not answer, or cannot write that down.
    pub async fn ban(&mut self, provider: PublicKey, reason: String) -> Result<(), Error> {
        let ask = Ask::Ban { provider, reason };
        self.0.ask::<Value>(&ask).await.map(drop)
    }

    /// Has it buy of a provider again; false if it was not banned.
    ///
    /// # Errors
    /// An aggregator that does not answer, or cannot write that down.
    pub async fn unban(&mut self, provider: PublicKey) -> Result<bool, Error> {
        self.0.ask(&Ask::Unban { provider }).await
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// An aggregator that does not answer.
    pub async fn stop(mut self, now: bool) -> Result<(), Error> {
        self.0.ask::<Value>(&Ask::Stop { now }).await?;
        self.0.ended().await;
        Ok(())
    }
}
