//! The link to the market: one process's connections to several Nostr relays, as if they were one.
//!
//! # How it works
//! One task for each relay keeps its websocket: it connects, asks again for every subscription that is open, reads
//! and writes until the connection breaks, and tries again after a pause. What is written goes through a bounded
//! queue of that connection and is gone with it, so nothing stale is sent after a reconnect. What is read is checked
//! once, by `inbox`, and lands in the queue of the subscription that asked for it.
//!
//! # What holds
//! - An event that comes out of a [`Subscription`] or of [`Link::fetch`] was asked for, carries a valid id and
//!   signature (verified here, whatever the relay says), has not expired, is at most [`MAX_EVENT_BYTES`] long, and
//!   comes once however many relays send it. Whether it means anything is for `infernet-protocol` to say.
//! - Our own events come back like anybody else's if a filter matches them.
//! - Nothing depends on a live event alone: where events may have been lost (a relay was away, the reader was too
//!   slow), [`Delivery::Gap`] says so, and the reader asks again.
//! - A relay that asks who we are (NIP-42) or for proof of work (NIP-13) is shown it, on our answer to its challenge;
//!   what it refused until then is sent again, in order. One that asks us to slow down is tried again when it says.
//! - No call polls: a delivery wakes its reader, and small messages do not wait for Nagle's algorithm.
//!
//! The websocket is our own rather than nostr-sdk's pool, whose cache skips verification, whose only channel drops
//! what a slow reader has not read, whose subscriptions can be lost in a reconnect within the same second, and whose
//! sockets leave Nagle's algorithm on (which alone may hold a token back for 40 ms).

mod connection;
mod demand;
mod desk;
mod error;
mod inbox;
mod message;
mod outstanding;
mod publish;
mod reader;
mod socket;
mod standing;
mod subscription;
mod work;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nostr::{Keys, RelayUrl};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::demand::{Demand, MAX_WORK};
use self::desk::Desk;
pub use self::error::{Error, Trouble};
pub use self::publish::Published;
pub use self::subscription::{Delivery, Subscription};
pub use self::work::Question;

/// The longest event, serialized, that is sent or let in. Most relays refuse longer ones, and the protocol's own
/// bound on a payload (40,960 bytes, 54,704 characters once encrypted) stays below.
pub const MAX_EVENT_BYTES: usize = 65_536;

/// How many relays one link talks to; every event is sent to and checked from each of them.
pub const MAX_RELAYS: usize = 16;

/// How long the other relays are waited for once one is connected.
const SETTLING: Duration = Duration::from_millis(500);

/// How long the goodbye to the relays may take: what is still queued is written, and the socket closed properly.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where to connect, who we are there, and how patient to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The relays; the same one twice counts once.
    pub relays: Vec<RelayUrl>,
    /// The key pair that answers a relay that asks who we are (NIP-42). Events are signed by their authors before.
    pub keys: Keys,
    /// How long [`Link::connect`] waits for a first relay.
    pub connect_timeout: Duration,
    /// How long [`Link::publish`] waits for relays to answer, and how long one that wants to know more of us may take
    /// to ask for it and to judge the answer.
    pub answer_timeout: Duration,
    /// The pause before the first attempt to reconnect; it doubles with each failure.
    pub retry_first: Duration,
    /// The longest pause between two attempts to reconnect.
    pub retry_most: Duration,
}

impl Options {
    /// Options with patience for relays anywhere in the world.
    pub fn new(relays: impl IntoIterator<Item = RelayUrl>, keys: Keys) -> Self {
        Self {
            relays: relays.into_iter().collect(),
            keys,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(10),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_secs(30),
        }
    }
}

/// How the connection to one relay stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayStatus {
    /// The relay.
    pub url: RelayUrl,
    /// Whether it is connected now.
    pub connected: bool,
    /// How often it has been connected so far: a reader of [`Link::changes`] who sees it grow has to tell that
    /// relay again what it should know, even if the moment without a connection went by unseen.
    pub sessions: u64,
    /// Why it is not connected, or why the last connection ended; of a relay that is connected, what it wants of us
    /// that it has not got.
    pub trouble: Option<String>,
}

/// The connections to the relays. Clones are cheap and share them; with the last clone and the last subscription
/// they end.
#[derive(Clone)]
pub struct Link {
    desk: Arc<Desk>,
    _stops_when_dropped: Arc<DropGuard>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.relays()).finish()
    }
}

impl Link {
    /// Starts to connect in the background, and answers at once.
    ///
    /// # Errors
    /// No relay, or more than [`MAX_RELAYS`].
    pub fn open(options: Options) -> Result<Self, Error> {
        let stop = CancellationToken::new();
        let desk = Arc::new(Desk::new(options, stop.clone())?);
        for relay in 0..desk.relays() {
            desk.tasks.spawn(connection::keep(desk.clone(), relay));
        }
        Ok(Self {
            desk,
            _stops_when_dropped: Arc::new(stop.drop_guard()),
        })
    }

    /// Connects: answers once one relay is connected and the others have had a moment (500 ms) to connect or fail,
    /// so that what is said first reaches them too. Those that are away are tried on in the background.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Unreachable`] if no relay is connected within `connect_timeout`. A
    /// process that would rather wait for its relays uses `open` and [`connected`](Self::connected).
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let patience = options.connect_timeout;
        let link = Self::open(options)?;
        match timeout(patience, link.connected()).await {
            Ok(connected) => connected?,
            Err(_) => return Err(link.desk.unreachable()),
        }
        let mut changes = link.changes();
        let tried = |relay: &RelayStatus| relay.connected || relay.trouble.is_some();
        let all = changes.wait_for(|relays| relays.iter().all(tried));
        // A relay that takes longer is not waited for.
        let _ = timeout(SETTLING, all).await;
        Ok(link)
    }

    /// Waits until a relay is connected.
    ///
    /// # Errors
    /// The link is shut down before that.
    pub async fn connected(&self) -> Result<(), Error> {
        let mut changes = self.changes();
        let any = |relays: &Vec<RelayStatus>| relays.iter().any(|relay| relay.connected);
        tokio::select! {
            connected = changes.wait_for(any) => connected.map(drop).map_err(|_| Error::Stopped),
            () = self.desk.stop.cancelled() => Err(Error::Stopped),
        }
    }

    /// How the connection to each relay stands.
    pub fn relays(&self) -> Vec<RelayStatus> {
        self.desk.statuses.borrow().clone()
    }

    /// Follows how the connections stand.
    pub fn changes(&self) -> watch::Receiver<Vec<RelayStatus>> {
        self.desk.statuses.subscribe()
    }

    /// Ends all connections, after writing what is queued. Subscriptions end too.
    pub async fn shutdown(self) {
        self.desk.stop.cancel();
        self.desk.tasks.close();
        if timeout(2 * FAREWELL, self.desk.tasks.wait()).await.is_err() {
            tracing::debug!("a relay's connection did not end in time");
        }
    }
}
