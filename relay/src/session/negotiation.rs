//! Reconciliation (NIP-77): who holds which events is found out with few messages, so that two relays, or a client and
//! this relay, send each other only what the other lacks.
//!
//! The peer leads. For each reconciliation the ids of all events that match its filter are held in memory, forty bytes
//! each, as they were when it began; [`Reconciliation`] bounds how many these are over all connections and lets go of
//! those that were left lying when somebody else needs the room. Comparing goes through all of them, some milliseconds
//! for each message, so it runs off the async threads and a few at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr::{EventId, Filter, Timestamp};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::options::ReconciliationLimits;
use crate::store::{self, Reader, Store};

/// Bytes of one answer before they are written in hex: with that, and its frame, it stays below what one message may
/// have, here and at other relays.
const FRAME_BYTES: u64 = 60_000;

/// How long a peer may be silent before its reconciliation gives way to others'.
const IDLE: Duration = Duration::from_secs(60);

/// How long one may last before it gives way to others'.
const LASTING: Duration = Duration::from_secs(600);

/// Messages of one reconciliation. Two sets of which nothing is common need about one for each thousand events.
const MAX_ROUNDS: u32 = 4_096;

/// Reconciliations that begin, which reads the store, and those that compare, at the same time.
const AT_A_TIME: usize = 1;

/// Why a reconciliation does not go on. Clients read it in a NEG-ERR.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("blocked: this query is too big: more than {0} events match; ask for a shorter time")]
    TooBig(usize),
    #[error("blocked: too many reconciliations at once; try again in a minute")]
    Busy,
    #[error("blocked: {0} reconciliations on one connection are the most; close one")]
    TooMany(usize),
    #[error("closed: no such reconciliation, or it took too long; begin again")]
    Gone,
    #[error("closed: it takes more messages than two honest sets do")]
    Endless,
    #[error("invalid: {0}")]
    Malformed(String),
    #[error("error: the store cannot be read")]
    Store,
}

/// All reconciliations of a relay.
#[derive(Debug)]
pub struct Reconciliation {
    store: Arc<Store>,
    limits: ReconciliationLimits,
    held: Mutex<Held>,
    beginning: Semaphore,
    comparing: Semaphore,
}

/// What is in memory for them.
#[derive(Debug, Default)]
struct Held {
    next: u64,
    items: usize,
    sets: HashMap<u64, Set>,
}

/// The events of one reconciliation.
#[derive(Debug)]
struct Set {
    items: Arc<NegentropyStorageVector>,
    count: usize,
    began: Instant,
    touched: Instant,
    rounds: u32,
}

impl Held {
    fn keep(&mut self, items: Arc<NegentropyStorageVector>, count: usize) -> u64 {
        let now = Instant::now();
        self.next += 1;
        self.items += count;
        let set = Set {
            items,
            count,
            began: now,
            touched: now,
            rounds: 0,
        };
        self.sets.insert(self.next, set);
        self.next
    }

    fn release(&mut self, key: u64) {
        if let Some(set) = self.sets.remove(&key) {
            self.items -= set.count;
        }
    }

    /// Makes room of what was left lying.
    fn drop_stale(&mut self) {
        let is_stale = |set: &Set| set.touched.elapsed() > IDLE || set.began.elapsed() > LASTING;
        let stale = self.sets.iter().filter(|(_, set)| is_stale(set));
        let stale: Vec<_> = stale.map(|(key, _)| *key).collect();
        stale.into_iter().for_each(|key| self.release(key));
    }

    fn touch(&mut self, key: u64) -> Result<Arc<NegentropyStorageVector>, Refusal> {
        let set = self.sets.get_mut(&key).ok_or(Refusal::Gone)?;
        set.touched = Instant::now();
        set.rounds += 1;
        match set.rounds > MAX_ROUNDS {
            true => Err(Refusal::Endless),
            false => Ok(set.items.clone()),
        }
    }
}

impl Reconciliation {
    /// Reconciliations over `store`.
    pub fn new(store: Arc<Store>, limits: ReconciliationLimits) -> Arc<Self> {
        Arc::new(Self {
            store,
            limits,
            held: Mutex::default(),
            beginning: Semaphore::new(AT_A_TIME),
            comparing: Semaphore::new(AT_A_TIME),
        })
    }

    /// Those of one connection.
    pub fn connection(self: &Arc<Self>) -> Negotiations {
        Negotiations {
            all: self.clone(),
            open: HashMap::new(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many events a new reconciliation may have.
    fn room(&self) -> usize {
        let mut held = self.held();
        if self.limits.total_events.saturating_sub(held.items) < self.limits.events {
            held.drop_stale();
        }
        let left = self.limits.total_events.saturating_sub(held.items);
        left.min(self.limits.events)
    }

    /// The events that match, as far as the peer may see them.
    async fn items(
        &self,
        filter: Filter,
        reader: Reader,
    ) -> Result<Vec<(Timestamp, EventId)>, Refusal> {
        let room = self.room();
        let refused = |error| match error {
            store::Error::TooMany if room < self.limits.events => Refusal::Busy,
            store::Error::TooMany => Refusal::TooBig(room),
            error => {
                tracing::debug!(%error, "a reconciliation cannot begin");
                Refusal::Store
            }
        };
        let items = self.store.seen_by(reader).items(filter, room).await;
        items.map_err(refused)
    }

    /// Answers a peer's message about these events.
    async fn compare(
        &self,
        items: Arc<NegentropyStorageVector>,
        message: Vec<u8>,
    ) -> Result<Vec<u8>, Refusal> {
        let _turn = self.comparing.acquire().await;
        let compared = spawn_blocking(move || {
            let mut negentropy = Negentropy::borrowed(&*items, FRAME_BYTES)?;
            negentropy.reconcile(&message)
        });
        match compared.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Refusal::Malformed(error.to_string())),
            Err(_) => Err(Refusal::Malformed("it cannot be followed".to_owned())),
        }
    }
}

/// The reconciliations of one connection. Dropping it ends them.
#[derive(Debug)]
pub struct Negotiations {
    all: Arc<Reconciliation>,
    open: HashMap<String, u64>,
}

impl Drop for Negotiations {
    fn drop(&mut self) {
        let mut held = self.all.held();
        self.open.values().for_each(|key| held.release(*key));
    }
}

impl Negotiations {
    /// Begins a reconciliation, in place of one of the same id, and answers what the relay says: NEG-MSG or NEG-ERR.
    /// The filter was admitted; the store is read as `reader`.
    pub async fn open(
        &mut self,
        id: &str,
        filter: Filter,
        message_hex: &str,
        reader: Reader,
    ) -> String {
        self.close(id);
        let begun = self.begin(id, filter, message_hex, reader).await;
        self.answer(id, begun)
    }

    /// Goes on with one.
    pub async fn message(&mut self, id: &str, message_hex: &str) -> String {
        let compared = self.go_on(id, message_hex).await;
        self.answer(id, compared)
    }

    /// Ends one, if it is there.
    pub fn close(&mut self, id: &str) {
        if let Some(key) = self.open.remove(id) {
            self.all.held().release(key);
        }
    }

    async fn begin(
        &mut self,
        id: &str,
        filter: Filter,
        message_hex: &str,
        reader: Reader,
    ) -> Result<Vec<u8>, Refusal> {
        let most = self.all.limits.per_connection;
        if self.open.len() >= most {
            return Err(Refusal::TooMany(most));
        }
        let message = bytes(message_hex)?;
        // The events of those that wait for their turn are not in memory yet.
        let all = self.all.clone();
        let _turn = all.beginning.acquire().await;
        let items = self.all.items(filter, reader).await?;
        let count = items.len();
        let set = Arc::new(
            spawn_blocking(|| sealed(items))
                .await
                .map_err(|_| Refusal::Store)?,
        );
        let answer = self.all.compare(set.clone(), message).await?;
        let mut held = self.all.held();
        if held.items + count > self.all.limits.total_events {
            return Err(Refusal::Busy);
        }
        self.open.insert(id.to_owned(), held.keep(set, count));
        Ok(answer)
    }

    async fn go_on(&mut self, id: &str, message_hex: &str) -> Result<Vec<u8>, Refusal> {
        let message = bytes(message_hex)?;
        let key = *self.open.get(id).ok_or(Refusal::Gone)?;
        let items = self.all.held().touch(key)?;
        self.all.compare(items, message).await
    }

    fn answer(&mut self, id: &str, answer: Result<Vec<u8>, Refusal>) -> String {
        match answer {
            Ok(message) => json!(["NEG-MSG", id, hex::encode(message)]).to_string(),
            Err(refusal) => {
                self.close(id);
                json!(["NEG-ERR", id, refusal.to_string()]).to_string()
            }
        }
    }
}

fn bytes(message_hex: &str) -> Result<Vec<u8>, Refusal> {
    hex::decode(message_hex).map_err(|error| Refusal::Malformed(error.to_string()))
}

/// The events as the library wants them: in order, and each once.
pub fn sealed(items: Vec<(Timestamp, EventId)>) -> NegentropyStorageVector {
    let mut storage = NegentropyStorageVector::with_capacity(items.len());
    for (created_at, id) in items {
        // Neither fails before the other was called.
        let _ = storage.insert(created_at.as_secs(), Id::from_byte_array(id.to_bytes()));
    }
    let _ = storage.seal();
    storage
}

#[cfg(test)]
mod tests;
