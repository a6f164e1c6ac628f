//! The durable store: LMDB by the library, with what the library lacks.
//!
//! Expired events (NIP-40) are never answered and are purged: [`Store::purge`] drops what is due by a list in memory,
//! which a walk over the store fills at start and every save extends (some fifty bytes for each event that will
//! expire). Evidence cannot be deleted (NIP-09): a deletion is checked and carried out while nothing else is written,
//! so that evidence cannot slip in between.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use infernet_node::clock;
use infernet_protocol::kinds;
use nostr::{Event, EventId, Filter, Kind, Timestamp};
use nostr_lmdb::NostrLMDB;
use nostr_relay_builder::prelude::{
    Backend, BoxedFuture, DatabaseError, DatabaseEventStatus, Events, NostrDatabase,
    RejectedReason, SaveEventStatus,
};
use tokio::sync::RwLock;

use crate::admission::Refusal;
use crate::lock::{self, Lock};

/// Events read or dropped in one step, so that neither holds much memory nor the writer for long.
const STEP: usize = 500;

/// The most that a COUNT looks at: it has no limit of its own, and reads what it counts.
const MAX_SCANNED: usize = 10_000;

/// How many combinations of author, kind and tag value one filter may ask for. The store looks each of them up, some
/// microseconds each, and nobody else is served on that thread meanwhile. A feed of a thousand authors fits well.
const MAX_COMBINATIONS: usize = 20_000;

/// Why a folder cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be had.
    #[error(transparent)]
    Folder(#[from] lock::Error),
    /// LMDB cannot open what is in it.
    #[error("the store in it cannot be opened: {0}")]
    Open(DatabaseError),
}

/// The events of this relay.
#[derive(Debug)]
pub struct Store {
    lmdb: NostrLMDB,
    /// When which event expires.
    expiring: Mutex<BTreeSet<(Timestamp, EventId)>>,
    /// Saves share it, a deletion has it alone.
    writing: RwLock<()>,
    _lock: Lock,
}

impl Store {
    /// Opens the store in `folder`, which is made if it is not there. No other relay may have it.
    ///
    /// # Errors
    /// When the folder is taken or cannot be written, or what lies in it is no store.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let lock = lock::take(folder)?;
        Ok(Self {
            lmdb: NostrLMDB::open(folder).map_err(Error::Open)?,
            expiring: Mutex::default(),
            writing: RwLock::default(),
            _lock: lock,
        })
    }

    /// Walks over the store, newest first, and notes what will expire.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn note_expirations(&self) -> Result<(), DatabaseError> {
        let (mut step, mut until) = (STEP, Timestamp::max());
        loop {
            let page = Filter::new().until(until).limit(step);
            let events = self.lmdb.query(page).await?;
            self.note(events.iter());
            let Some(oldest) = events.last().map(|event| event.created_at) else {
                return Ok(());
            };
            if events.len() < step {
                return Ok(());
            }
            // A page that begins and ends in one second may hide more of that second.
            step = if oldest == until { 2 * step } else { STEP };
            until = oldest;
            tokio::task::yield_now().await;
        }
    }

    /// Drops what has expired by `now` and answers how much that was, as far as it was noted.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn purge(&self, now: Timestamp) -> Result<usize, DatabaseError> {
        let due = self.take_due(now);
        for (index, step) in due.chunks(STEP).enumerate() {
            // Never with an empty list of ids, which LMDB would take for no condition at all.
            let ids = step.iter().map(|(_, id)| *id);
            if let Err(error) = self.lmdb.delete(Filter::new().ids(ids)).await {
                self.expiring().extend(&due[index * STEP..]);
                return Err(error);
            }
        }
        Ok(due.len())
    }

    /// Checks what an event would do to stored ones.
    ///
    /// # Errors
    /// With the reason to refuse it. A store that cannot be read refuses nothing here: saving will fail.
    pub async fn check(&self, event: &Event) -> Result<(), Refusal> {
        if event.kind == Kind::EventDeletion {
            return self.check_deletion(event).await;
        }
        match self.version_of(event).await {
            Some(stored) if is_newer(&stored, event) => Err(Refusal::Superseded(stored.id)),
            _ => Ok(()),
        }
    }

    /// What is stored under the same address as `event`, if it is of a kind that has one (NIP-01).
    async fn version_of(&self, event: &Event) -> Option<Event> {
        let coordinate = event.coordinate()?;
        let mut version = Filter::new().kind(event.kind).author(event.pubkey).limit(1);
        if event.kind.is_addressable() {
            version = version.identifier(coordinate.identifier.unwrap_or_default());
        }
        self.lmdb.query(version).await.ok()?.first_owned()
    }

    async fn check_deletion(&self, deletion: &Event) -> Result<(), Refusal> {
        for id in deletion.tags.event_ids() {
            let Ok(Some(target)) = self.lmdb.event_by_id(id).await else {
                continue;
            };
            if target.pubkey != deletion.pubkey {
                return Err(Refusal::DeletesForeign(id.to_hex()));
            }
            if kinds::is_evidence(target.kind.as_u16()) {
                return Err(Refusal::DeletesEvidence(*id, target.kind));
            }
        }
        let mut coordinates = deletion.tags.coordinates();
        match coordinates.find(|named| named.public_key != deletion.pubkey) {
            Some(foreign) => Err(Refusal::DeletesForeign(foreign.to_string())),
            None => Ok(()),
        }
    }

    async fn save(&self, event: &Event) -> Result<SaveEventStatus, DatabaseError> {
        let status = if event.kind == Kind::EventDeletion {
            let _alone = self.writing.write().await;
            if self.check_deletion(event).await.is_err() {
                return Ok(SaveEventStatus::Rejected(RejectedReason::InvalidDelete));
            }
            self.lmdb.save_event(event).await?
        } else {
            let _shared = self.writing.read().await;
            self.lmdb.save_event(event).await?
        };
        if status.is_success() {
            self.note([event]);
        }
        Ok(status)
    }

    fn note<'a>(&self, events: impl IntoIterator<Item = &'a Event>) {
        let expiring = events
            .into_iter()
            .filter_map(|event| Some((*event.tags.expiration()?, event.id)));
        self.expiring().extend(expiring);
    }

    fn take_due(&self, now: Timestamp) -> Vec<(Timestamp, EventId)> {
        let mut expiring = self.expiring();
        let mut due = Vec::new();
        while let Some(next) = expiring.pop_first() {
            if next.0 >= now {
                expiring.insert(next);
                break;
            }
            due.push(next);
        }
        due
    }

    fn expiring(&self) -> MutexGuard<'_, BTreeSet<(Timestamp, EventId)>> {
        // A set of pairs is sound whatever its last user did.
        self.expiring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `stored` stays and `event` goes (NIP-01: of two of the same second, the lower id stays).
fn is_newer(stored: &Event, event: &Event) -> bool {
    stored.created_at > event.created_at
        || (stored.created_at == event.created_at && stored.id < event.id)
}

impl NostrDatabase for Store {
    fn backend(&self) -> Backend {
        self.lmdb.backend()
    }

    fn save_event<'a>(
        &'a self,
        event: &'a Event,
    ) -> BoxedFuture<'a, Result<SaveEventStatus, DatabaseError>> {
        Box::pin(self.save(event))
    }

    fn check_id<'a>(
        &'a self,
        id: &'a EventId,
    ) -> BoxedFuture<'a, Result<DatabaseEventStatus, DatabaseError>> {
        self.lmdb.check_id(id)
    }

    fn event_by_id<'a>(
        &'a self,
        id: &'a EventId,
    ) -> BoxedFuture<'a, Result<Option<Event>, DatabaseError>> {
        Box::pin(async move {
            let now = clock::now();
            let event = self.lmdb.event_by_id(id).await?;
            Ok(event.filter(|event| !event.is_expired_at(&now)))
        })
    }

    fn count(&self, filter: Filter) -> BoxedFuture<'_, Result<usize, DatabaseError>> {
        Box::pin(async move {
            // As for a query.
            tokio::task::yield_now().await;
            self.purge(clock::now()).await?;
            self.lmdb.count(bounded(filter)?).await
        })
    }

    fn query(&self, filter: Filter) -> BoxedFuture<'_, Result<Events, DatabaseError>> {
        Box::pin(async move {
            // LMDB answers without ever waiting, and a REQ may hold thousands of filters: let others in between.
            tokio::task::yield_now().await;
            let now = clock::now();
            let mut live = Events::new(&filter);
            let stored = self.lmdb.query(filter).await?;
            live.extend(
                stored
                    .into_iter()
                    .filter(|event| !event.is_expired_at(&now)),
            );
            Ok(live)
        })
    }

    fn negentropy_items(
        &self,
        _: Filter,
    ) -> BoxedFuture<'_, Result<Vec<(EventId, Timestamp)>, DatabaseError>> {
        // The session keeps the items of every NEG-OPEN until its connection ends, and takes any number of them.
        Box::pin(async { Err(DatabaseError::NotSupported) })
    }

    fn delete(&self, filter: Filter) -> BoxedFuture<'_, Result<(), DatabaseError>> {
        self.lmdb.delete(filter)
    }

    fn wipe(&self) -> BoxedFuture<'_, Result<(), DatabaseError>> {
        self.lmdb.wipe()
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

/// `filter` with a limit to what it scans. A search would read the whole store whatever its limit.
fn bounded(filter: Filter) -> Result<Filter, DatabaseError> {
    if filter.search.is_some() || is_too_broad(&filter) {
        return Err(DatabaseError::NotSupported);
    }
    let limit = filter.limit.unwrap_or(MAX_SCANNED).min(MAX_SCANNED);
    Ok(filter.limit(limit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, Keys, Tag};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn note(keys: &Keys, created_at: u64, expiration: Option<u64>) -> Event {
        let expiration = expiration.map(|at| Tag::expiration(Timestamp::from_secs(at)));
        EventBuilder::text_note("")
            .tags(expiration)
            .custom_created_at(Timestamp::from_secs(created_at))
            .sign_with_keys(keys)
            .unwrap()
    }

    async fn stored(store: &Store) -> usize {
        store.lmdb.count(Filter::new()).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_due_is_purged_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let keys = Keys::generate();
        for expiration in [None, Some(NOW - 1), Some(NOW), Some(NOW + 1)] {
            store.save(&note(&keys, 1, expiration)).await.unwrap();
        }
        assert_eq!(store.purge(Timestamp::from_secs(NOW)).await.unwrap(), 1);
        assert_eq!(stored(&store).await, 3);
        assert_eq!(store.purge(Timestamp::from_secs(NOW + 2)).await.unwrap(), 2);
        assert_eq!(store.purge(Timestamp::from_secs(NOW + 2)).await.unwrap(), 0);
        assert_eq!(stored(&store).await, 1);
    }

    #[tokio::test]
    async fn a_walk_finds_every_expiration_even_many_in_one_second() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::generate();
        let mut events: Vec<Event> = (0..STEP as u64 + 7)
            .map(|number| note(&keys, 5_000, Some(NOW + number)))
            .collect();
        events.extend((0..STEP as u64).map(|number| note(&keys, number, Some(NOW + number))));
        {
            let lmdb = NostrLMDB::open(folder.path()).unwrap();
            let saves = events.iter().map(|event| lmdb.save_event(event));
            for saved in futures::future::join_all(saves).await {
                assert!(saved.unwrap().is_success());
            }
        }
        let store = Store::open(folder.path()).unwrap();
        store.note_expirations().await.unwrap();
        assert_eq!(store.expiring().len(), events.len());
        store
            .purge(Timestamp::from_secs(NOW + 5_000))
            .await
            .unwrap();
        assert_eq!(stored(&store).await, 0);
    }

    #[tokio::test]
    async fn an_expired_event_is_not_answered_before_it_is_purged() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let keys = Keys::generate();
        let (expired, lasting) = (note(&keys, 1, Some(2)), note(&keys, 1, None));
        store.save(&expired).await.unwrap();
        store.save(&lasting).await.unwrap();
        let answered = store.query(Filter::new()).await.unwrap();
        assert_eq!(answered.into_iter().collect::<Vec<_>>(), [lasting]);
        assert_eq!(store.event_by_id(&expired.id).await.unwrap(), None);
        assert_eq!(store.count(Filter::new()).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn evidence_outlives_its_authors_deletion_even_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let keys = Keys::generate();
        let evidence = EventBuilder::new(Kind::from(kinds::RESULT), "")
            .sign_with_keys(&keys)
            .unwrap();
        store.save(&evidence).await.unwrap();
        let deletion = EventBuilder::new(Kind::EventDeletion, "")
            .tag(Tag::event(evidence.id))
            .sign_with_keys(&keys)
            .unwrap();
        let refusal = Refusal::DeletesEvidence(evidence.id, evidence.kind);
        assert_eq!(store.check(&deletion).await, Err(refusal));
        assert!(!store.save(&deletion).await.unwrap().is_success());
        assert_eq!(
            store.event_by_id(&evidence.id).await.unwrap(),
            Some(evidence)
        );
    }
}
