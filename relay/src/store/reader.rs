//! For whom events are read: not everybody may see all of them, and somebody pays for the time that it takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use infernet_node::clock;
use nostr::{EventId, Filter, Kind, PublicKey, Timestamp};
use tokio::task::spawn_blocking;

use super::index::View;
use super::key::{self, Digest16};
use super::record::Record;
use super::{Count, Error, Store, Stored, query};

/// What is told how long a read took.
type Meter = Arc<dyn Fn(Duration) + Send + Sync>;

/// Whoever reads. By default it is the relay itself, which sees everything.
#[derive(Clone, Default)]
pub struct Reader {
    private_kinds: Vec<u16>,
    /// Its keys, each with its hash as the value of a tag.
    keys: Vec<([u8; 32], Digest16)>,
    meter: Option<Meter>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    /// Who has shown to hold `keys`, and of `private_kinds` sees only what it wrote, or what names it in a `p` tag.
    pub fn new(private_kinds: &[Kind], keys: &[PublicKey]) -> Self {
        let with_hash = |key: &PublicKey| (key.to_bytes(), key::value(&key.to_hex()));
        Self {
            private_kinds: private_kinds.iter().map(Kind::as_u16).collect(),
            keys: keys.iter().map(with_hash).collect(),
            meter: None,
        }
    }

    /// The same, with `meter` told how long each read took, also when nobody waited for its end.
    pub fn metered(self, meter: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self {
            meter: Some(Arc::new(meter)),
            ..self
        }
    }

    /// Whether it may see a record.
    pub fn may_see(&self, record: &Record<'_>) -> bool {
        let concerns = |(key, hash): &([u8; 32], Digest16)| {
            let mut tags = record.tags();
            record.author() == key || tags.any(|tag| tag == (b'p', hash))
        };
        !self.private_kinds.contains(&record.kind()) || self.keys.iter().any(concerns)
    }

    /// A read took so long.
    pub fn took(&self, time: Duration) {
        if let Some(meter) = &self.meter {
            meter(time);
        }
    }
}

/// A store as somebody may see it: limits, counts and items are as if nothing else were there.
#[derive(Debug)]
pub struct Seen<'a> {
    store: &'a Store,
    reader: Reader,
}

impl Store {
    /// The store as `reader` may see it.
    pub fn seen_by(&self, reader: Reader) -> Seen<'_> {
        Seen {
            store: self,
            reader,
        }
    }
}

impl Seen<'_> {
    /// As [`Store::query`].
    ///
    /// # Errors
    /// As that; this holds for all of these.
    pub async fn query(&self, filter: Filter, limit: usize) -> Result<Vec<Stored>, Error> {
        self.read(move |view, reader| query::newest(view, reader, &filter, limit, clock::now()))
            .await
    }

    /// As [`Store::count`].
    ///
    /// # Errors
    /// As for [`Seen::query`].
    pub async fn count(&self, filter: Filter) -> Result<Count, Error> {
        self.read(move |view, reader| query::count(view, reader, &filter, clock::now()))
            .await
    }

    /// As [`Store::items`].
    ///
    /// # Errors
    /// As for [`Seen::query`], and [`Error::TooMany`].
    pub async fn items(
        &self,
        filter: Filter,
        most: usize,
    ) -> Result<Vec<(Timestamp, EventId)>, Error> {
        self.read(move |view, reader| query::items(view, reader, &filter, most, clock::now()))
            .await
    }

    /// Reads the index on a thread where it may take its time, once it has all that was acknowledged so far.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>, &Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.store.settled().await?;
        // It is never closed.
        let turn = self.store.reads.clone().acquire_owned().await;
        let turn = turn.map_err(|_| Error::Closed)?;
        let (shared, reader) = (self.store.shared.clone(), self.reader.clone());
        let answer = spawn_blocking(move || {
            // It is held until the end, also if nobody waits for the answer any more.
            let _turn = turn;
            let began = Instant::now();
            let answer = read(&shared.index.view()?, &reader);
            reader.took(began.elapsed());
            answer
        });
        answer.await.map_err(|_| Error::Closed)?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc;

    use nostr::{EventBuilder, JsonUtil, Keys, Tag};
    use tokio::sync::oneshot;

    use super::super::READS;
    use super::*;

    #[tokio::test]
    async fn each_sees_of_private_kinds_what_concerns_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let [author, named, other] = [(); 3].map(|()| Keys::generate());
        for (kind, tags) in [(1, vec![]), (4, vec![named.public_key()]), (4, vec![])] {
            let tags = tags.into_iter().map(Tag::public_key);
            let event = EventBuilder::new(Kind::from(kind), "").tags(tags);
            let event = event.sign_with_keys(&author).unwrap();
            let json = event.as_json().into();
            store.save(Arc::new(event), json).await.unwrap();
        }
        for (keys, seen) in [
            (vec![], 1),
            (vec![&other], 1),
            (vec![&named], 2),
            (vec![&other, &named], 2),
            (vec![&author], 3),
        ] {
            let keys: Vec<_> = keys.iter().map(|keys| keys.public_key()).collect();
            let reader = Reader::new(&[Kind::from(4)], &keys);
            let store = store.seen_by(reader);
            let all = Filter::new;
            assert_eq!(store.query(all(), 9).await.unwrap().len(), seen);
            assert_eq!(store.items(all(), 9).await.unwrap().len(), seen);
            assert_eq!(store.count(all()).await.unwrap().events, seen as u64);
            let few = all().limit(seen);
            assert_eq!(store.query(few.clone(), 9).await.unwrap().len(), seen);
            assert_eq!(store.items(few.clone(), 9).await.unwrap().len(), seen);
            assert_eq!(store.count(few).await.unwrap().events, seen as u64);
        }
    }

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_keeps_its_turn_and_is_paid_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (paid, payment) = oneshot::channel();
        let paid = std::sync::Mutex::new(Some(paid));
        let reader = Reader::default().metered(move |took| {
            let paid = paid.lock().unwrap().take();
            paid.unwrap().send(took).unwrap();
        });
        let (begins, began) = oneshot::channel();
        let (go_on, going_on) = mpsc::channel::<()>();
        let seen = store.seen_by(reader);
        let read = seen.read(move |_, _| {
            begins.send(()).unwrap();
            let _ = going_on.recv();
            Ok(())
        });
        tokio::select! {
            _ = read => panic!("it cannot end"),
            begun = began => begun.unwrap(),
        }
        assert_eq!(store.reads.available_permits(), READS - 1);
        drop(go_on);
        assert!(payment.await.unwrap() > Duration::ZERO);
        let all = u32::try_from(READS).unwrap();
        drop(store.reads.acquire_many(all).await.unwrap());
    }
}
