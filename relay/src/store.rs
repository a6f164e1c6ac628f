//! The store: what was acknowledged is on the disk, and filters find it.
//!
//! An event is written to a log and synced before anybody is told that it is saved (`store/writer.rs`); a second thread
//! brings the index up to the log in batches behind it (`store/indexer.rs`). A read waits until the index has what was
//! acknowledged before, which takes some milliseconds, so that it sees all of that. When the process is killed, the
//! log is read again at the next start.
//!
//! What an event would do to stored ones (a newer version, a deletion) is decided by the log's writer alone, one
//! after the other, so that nothing slips in between: evidence is never deleted.

mod batch;
mod database;
mod error;
mod frame;
mod import;
mod index;
mod indexer;
mod key;
mod life;
mod log;
mod pending;
mod query;
mod reader;
mod record;
mod sieve;
mod steps;
mod tables;
mod verdict;
mod writer;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use ::bytes::Bytes;
use nostr::{Event, EventId, Filter, JsonUtil, Kind, PublicKey, Timestamp};
use tokio::sync::{Semaphore, oneshot};

pub use self::error::Error;
use self::frame::Operation;
pub use self::frame::weight;
use self::index::Index;
use self::indexer::{Progress, Task};
use self::life::{Life, Shared};
use self::log::Log;
use self::pending::Pending;
pub use self::reader::{Reader, Seen};
use self::steps::Steps;
use self::verdict::Known;
use self::writer::{Order, Queued};
use crate::admission::Refusal;
use crate::lock;

/// The folder of the index, in that of the store.
const INDEX: &str = "index";

/// The folder of the log, in that of the store.
const LOG: &str = "log";

/// Reads at a time. Each takes a thread for as long as it lasts.
const READS: usize = 8;

/// How many combinations of author, kind and tag value one filter may ask for. The store looks each of them up, some
/// microseconds each. A feed of a thousand authors fits well.
const MAX_COMBINATIONS: usize = 20_000;

/// What became of an event that was to be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// It is on the disk.
    New,
    /// It was there before.
    Duplicate,
    /// A newer version is stored: this one.
    Superseded(EventId),
    /// Its author deleted it, or its address up to a later moment.
    Deleted,
    /// It is a deletion that may not be carried out.
    Refused(Refusal),
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: EventId,
    /// Its author.
    pub pubkey: PublicKey,
    /// Its kind.
    pub kind: Kind,
    /// When it was made, by its author's clock.
    pub created_at: Timestamp,
    /// All of it, as clients get it.
    pub json: Bytes,
}

impl Stored {
    /// The event, read from its JSON. Its signature was checked before it was stored.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is none.
    pub fn event(&self) -> Result<Event, Error> {
        Event::from_json(&self.json).map_err(|_| Error::Damaged)
    }
}

/// An answer to COUNT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// So many events, at least.
    pub events: u64,
    /// Whether there are not more.
    pub exact: bool,
}

/// The events of this relay.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    reads: Arc<Semaphore>,
    life: Life,
}

impl Store {
    /// Opens the store in `folder`, which is made if it is not there, and brings its index up to its log. A store of
    /// an older version is taken over. No other relay may have the folder.
    ///
    /// # Errors
    /// When the folder is taken or cannot be written, or what lies in it is no store.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let lock = lock::take(folder).map_err(|error| Error::Folder(Arc::new(error)))?;
        let index = Index::open(&folder.join(INDEX))?;
        let log = folder.join(LOG);
        fs::create_dir_all(&log)?;
        for folder in [&folder.join(INDEX), folder] {
            log::sync_folder(folder)?;
        }
        // First, because what is taken over gets the next numbers: those of the log are taken.
        replay(&log, &index)?;
        import::take_over(folder, &index)?;
        let applied = index.view()?.applied()?;
        let shared = Shared {
            index,
            pending: RwLock::default(),
            logged: AtomicU64::new(applied),
            progress: Progress::new(applied),
            queued: Queued::default(),
            _lock: lock,
        };
        let shared = Arc::new(shared);
        Ok(Self {
            life: Life::begin(&shared, Log::new(log, applied + 1))?,
            reads: Arc::new(Semaphore::new(READS)),
            shared,
        })
    }

    /// Whether an event is stored: on the disk, indexed or not. It takes some microseconds.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn has(&self, id: &EventId) -> Result<bool, Error> {
        self.known(|known| known.has(id))
    }

    /// Checks what an event would do to stored ones, without saving it.
    ///
    /// # Errors
    /// With the reason to refuse it. A store that cannot be read refuses nothing here: saving will fail.
    pub async fn check(&self, event: &Event) -> Result<(), Refusal> {
        match self.judge(event) {
            Ok(Saved::Superseded(by)) => Err(Refusal::Superseded(by)),
            Ok(Saved::Refused(refusal)) => Err(refusal),
            Ok(Saved::New | Saved::Duplicate | Saved::Deleted) | Err(_) => Ok(()),
        }
    }

    /// What would become of an event if it were saved now. It takes some microseconds.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn judge(&self, event: &Event) -> Result<Saved, Error> {
        self.known(|known| known.judge(event))
    }

    /// Looks at everything that was acknowledged so far.
    fn known<T>(&self, look: impl FnOnce(&Known<'_>) -> Result<T, Error>) -> Result<T, Error> {
        // In this order: what leaves the one is in the other before.
        let pending = self.shared.pending();
        look(&Known {
            view: &self.shared.index.view()?,
            pending: [&pending, &Pending::default()],
        })
    }

    /// Saves an event, whose JSON is `json`. The future answers once it is on the disk. The event takes its place in
    /// the queue when this is called, not when the future is first polled, and is saved also if that is dropped.
    ///
    /// # Errors
    /// When the disk is full or fails, or too much waits for it already.
    pub fn save(
        &self,
        event: Arc<Event>,
        json: Bytes,
    ) -> impl Future<Output = Result<Saved, Error>> + Send + use<> {
        let (told, outcome) = oneshot::channel();
        let refused = match self.shared.queued.take(weight(&event, &json)) {
            true => self.life.order(Order::Save(event, json, told)).err(),
            false => Some(Error::Busy),
        };
        async move {
            match refused {
                Some(error) => Err(error),
                None => outcome.await.unwrap_or(Err(Error::Closed)),
            }
        }
    }

    /// The newest events that `filter` asks for, newest first (of the same second the lower id), at most `limit`. It
    /// sees everything that was acknowledged before, and nothing that has expired.
    ///
    /// # Errors
    /// When the index cannot be read or lacks what was acknowledged (the disk is full), or a search is asked for.
    pub async fn query(&self, filter: Filter, limit: usize) -> Result<Vec<Stored>, Error> {
        self.seen_by(Reader::default()).query(filter, limit).await
    }

    /// How many events `filter` asks for. It gives up counting at some ten thousand.
    ///
    /// # Errors
    /// As for [`Store::query`].
    pub async fn count(&self, filter: Filter) -> Result<Count, Error> {
        self.seen_by(Reader::default()).count(filter).await
    }

    /// Times and ids of all events that `filter` asks for, newest first (NIP-77).
    ///
    /// # Errors
    /// [`Error::TooMany`] if they are more than `most`; else as for [`Store::query`].
    pub async fn items(
        &self,
        filter: Filter,
        most: usize,
    ) -> Result<Vec<(Timestamp, EventId)>, Error> {
        self.seen_by(Reader::default()).items(filter, most).await
    }

    /// Removes events by the operator's will, evidence among them. That is on the disk when it answers.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn remove(&self, ids: Vec<EventId>) -> Result<(), Error> {
        let (told, outcome) = oneshot::channel();
        self.life.order(Order::Remove(ids.into(), told))?;
        outcome.await.unwrap_or(Err(Error::Closed))
    }

    /// Drops what has expired at `now` from the disk, and answers how many events that were.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub async fn purge(&self, now: Timestamp) -> Result<usize, Error> {
        let (told, outcome) = oneshot::channel();
        self.life.task(Task::Purge(now, told))?;
        outcome.await.unwrap_or(Err(Error::Closed))
    }

    /// Operations that are logged and not indexed yet.
    pub fn backlog(&self) -> usize {
        self.shared.pending().len()
    }

    /// Bytes that the index takes on the disk.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.index.disk_bytes()
    }

    /// Waits until the index has what was acknowledged before this was called, and fails if it cannot have it now.
    async fn settled(&self) -> Result<(), Error> {
        let logged = self.shared.logged.load(Ordering::Acquire);
        if self.shared.progress.applied() < logged {
            self.life.task(Task::Hurry)?;
            self.shared.progress.reached(logged).await?;
        }
        Ok(())
    }
}

/// Whether a filter asks for more combinations than the store should look up at once.
pub fn is_too_broad(filter: &Filter) -> bool {
    let authors = filter.authors.as_ref().map(BTreeSet::len);
    let kinds = filter.kinds.as_ref().map(BTreeSet::len);
    let tags = filter
        .generic_tags
        .values()
        .map(|values| Some(values.len()));
    let factors = [authors, kinds].into_iter().chain(tags).flatten();
    factors.fold(1, |product: usize, one| product.saturating_mul(one.max(1))) > MAX_COMBINATIONS
}

/// Brings the index up to the log that the last process left.
fn replay(folder: &Path, index: &Index) -> Result<(), Error> {
    let mut last = index.view()?.applied()?;
    for segment in log::segments(folder)? {
        let contents = log::read(&segment)?;
        let mut steps = Steps::new(index);
        for entry in contents.entries.iter().filter(|entry| entry.number > last) {
            // What could not be synced may be there all the same, and then once more.
            let again = match &entry.operation {
                Operation::Take(event, _) => steps.known(|known| known.has(&event.id))?,
                Operation::Remove(_) => false,
            };
            if !again {
                steps.put(entry.clone())?;
            }
        }
        steps.apply()?;
        last = index.view()?.applied()?;
        log::remove(&segment, &contents)?;
    }
    Ok(())
}
