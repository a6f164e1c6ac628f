//! The index behind the log: events and the keys that find them, in LMDB.
//!
//! A batch of operations is one transaction, which says how far the log was applied, so that none is applied twice.

use std::fs;
use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{Env, EnvOpenOptions, RoTxn};
use nostr::{EventId, Kind, PublicKey, Timestamp};

use super::Error;
use super::batch::Batch;
use super::frame::{Entry, Operation};
use super::key::{self, Digest16, Key, Number};
use super::pending::{Origin, Version};
use super::record::Record;
use super::tables::{Span, Tables};

/// Address space for the index, not disk: the most that it can ever hold.
const MAP: usize = 1 << 40;

/// Reads at a time, of all threads.
const READERS: u32 = 510;

/// Events that [`Index::purge`] drops at a time.
const PURGED: usize = 1_000;

/// The index of all events.
#[derive(Debug)]
pub struct Index {
    env: Env,
    tables: Tables,
}

impl Index {
    /// Opens the index in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP).max_readers(READERS).max_dbs(5);
        // SAFETY: the store holds the folder's lock, so no other process changes the file under the map, and no flag
        // weakens what LMDB promises.
        let env = unsafe { options.open(folder) }?;
        let tables = Tables::open(&env)?;
        env.clear_stale_readers()?;
        Ok(Self { env, tables })
    }

    /// The index as it is now. What comes later does not show in it; drop it soon, for as long as it is there no
    /// room is given back.
    ///
    /// # Errors
    /// When LMDB cannot be read.
    pub fn view(&self) -> Result<View<'_>, Error> {
        let txn = self.env.read_txn()?;
        Ok(View {
            txn,
            tables: self.tables,
        })
    }

    /// Carries operations out, in order, and answers when that is on the disk.
    ///
    /// # Errors
    /// When LMDB cannot be written. Nothing was done then.
    pub fn apply(&self, entries: &[Entry]) -> Result<(), Error> {
        let Some(last) = entries.last() else {
            return Ok(());
        };
        let mut batch = Batch::new(self.env.write_txn()?, self.tables);
        for Entry { number, operation } in entries {
            match operation {
                Operation::Take(event, json) => batch.take(*number, event, json)?,
                Operation::Remove(ids) => batch.remove(ids)?,
            }
        }
        batch.commit(Some(last.number))
    }

    /// Drops some of what has expired at `now`, in one transaction, and answers how many events that were: none when
    /// nothing is left.
    ///
    /// # Errors
    /// When LMDB cannot be written.
    pub fn purge(&self, now: Timestamp) -> Result<usize, Error> {
        let due = self.view()?.expired(now, PURGED)?;
        if due.is_empty() {
            return Ok(0);
        }
        let mut batch = Batch::new(self.env.write_txn()?, self.tables);
        for number in &due {
            batch.discard(*number)?;
        }
        batch.commit(None)?;
        Ok(due.len())
    }

    /// Bytes on the disk.
    pub fn disk_bytes(&self) -> u64 {
        self.env.real_disk_size().unwrap_or_default()
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // Else the library keeps it open for whoever opens it next.
        self.env.clone().prepare_for_closing();
    }
}

/// The index at one moment.
pub struct View<'env> {
    txn: RoTxn<'env>,
    tables: Tables,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl View<'_> {
    /// The number of an event.
    ///
    /// # Errors
    /// When LMDB cannot be read; this holds for all of these.
    pub fn number(&self, id: &[u8; 32]) -> Result<Option<Number>, Error> {
        self.tables.number(&self.txn, id)
    }

    /// The event with a number.
    pub fn record(&self, number: Number) -> Result<Option<Record<'_>>, Error> {
        self.tables.record(&self.txn, number)
    }

    /// Where an event comes from.
    pub fn origin(&self, id: &EventId) -> Result<Option<Origin>, Error> {
        let Some(number) = self.number(id.as_bytes())? else {
            return Ok(None);
        };
        let origin = |record: Record<'_>| Origin {
            number,
            author: PublicKey::from_byte_array(*record.author()),
            kind: Kind::from(record.kind()),
            created_at: record.created_at(),
            address: record.address(),
        };
        Ok(self.record(number)?.map(origin))
    }

    /// The current version under an address.
    pub fn version(&self, address: &Digest16) -> Result<Option<Version>, Error> {
        self.tables.version(&self.txn, address)
    }

    /// Up to when an address was deleted by its author, or that an id was.
    pub fn deleted_until(&self, deleted: &Digest16) -> Result<Option<Timestamp>, Error> {
        self.tables.deleted_until(&self.txn, deleted)
    }

    /// The number up to which the log was applied.
    pub fn applied(&self) -> Result<Number, Error> {
        self.tables.applied(&self.txn)
    }

    /// The keys in a range, in order.
    pub fn keys(&self, first: &Key, last: &Key) -> Result<Keys<'_>, Error> {
        let range = (
            Bound::Included(first.bytes()),
            Bound::Included(last.bytes()),
        );
        Ok(self.tables.keys.range(&self.txn, &range)?)
    }

    /// The epochs, in order.
    pub fn spans(&self) -> Result<Vec<Span>, Error> {
        self.tables.spans(&self.txn)
    }

    /// Events that have expired at `now`, at most `most` of them.
    fn expired(&self, now: Timestamp, most: usize) -> Result<Vec<Number>, Error> {
        let end = key::expiration(now, 0);
        let range = (Bound::Unbounded, Bound::Excluded(&end[..]));
        let due = self.tables.expirations.range(&self.txn, &range)?;
        let mut numbers = Vec::new();
        for found in due.take(most) {
            numbers.extend(key::expiring(found?.0));
        }
        Ok(numbers)
    }
}

/// Keys in order.
pub type Keys<'a> = heed::RoRange<'a, Bytes, Bytes>;
