//! The index behind the log: events and the keys that find them, in LMDB.
//!
//! Four tables: `records` has the events by number, `ids` their numbers by id, `keys` what [`super::key`] says (with
//! empty values), `state` current versions by address, deletions, and how far the log was applied. A batch of
//! operations is one transaction and says so there, so that none is applied twice.

use std::collections::HashSet;
use std::fs;
use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvOpenOptions, PutFlags, RoTxn, RwTxn};
use nostr::{Event, EventId, Kind, PublicKey, Timestamp};

use super::Error;
use super::frame::{Entry, Operation};
use super::key::{self, Digest16, Key, Number, ShortId};
use super::pending::{self, Origin, Version, is_kept};
use super::record::{self, Record};

/// Address space for the index, not disk: the most that it can ever hold.
const MAP: usize = 1 << 40;

/// Reads at a time, of all threads.
const READERS: u32 = 510;

/// Events that one transaction of [`Index::purge`] drops.
const PURGED: usize = 1_000;

/// Where `state` says how far the log was applied. All other keys have 16 bytes.
const APPLIED: &[u8] = b"applied";

type Table = Database<Bytes, Bytes>;

/// The index of all events.
#[derive(Debug)]
pub struct Index {
    env: Env,
    tables: Tables,
}

/// Its tables.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// Events by number.
    pub records: Table,
    /// Numbers by [`ShortId`].
    pub ids: Table,
    /// [`Key`]s.
    pub keys: Table,
    /// Versions, deletions and how far the log was applied.
    pub state: Table,
}

impl Index {
    /// Opens the index in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP).max_readers(READERS).max_dbs(4);
        // SAFETY: the store holds the folder's lock, so no other process changes the file under the map, and no flag
        // weakens what LMDB promises.
        let env = unsafe { options.open(folder) }?;
        let mut txn = env.write_txn()?;
        let mut table = |name| env.create_database(&mut txn, Some(name));
        let tables = Tables {
            records: table("records")?,
            ids: table("ids")?,
            keys: table("keys")?,
            state: table("state")?,
        };
        txn.commit()?;
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
        batch.commit(last.number)
    }

    /// Drops what has expired at `now`, and answers how many events that were.
    ///
    /// # Errors
    /// When LMDB cannot be written.
    pub fn purge(&self, now: Timestamp) -> Result<usize, Error> {
        let mut purged = 0;
        loop {
            let due = self.view()?.expired(now, PURGED)?;
            if due.is_empty() {
                return Ok(purged);
            }
            let mut batch = Batch::new(self.env.write_txn()?, self.tables);
            for number in &due {
                batch.discard(*number)?;
            }
            batch.txn.commit()?;
            purged += due.len();
        }
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
        let short: ShortId = key::short(id);
        let number = self.tables.ids.get(&self.txn, &short)?;
        Ok(number.and_then(read_number))
    }

    /// The event with a number.
    pub fn record(&self, number: Number) -> Result<Option<Record<'_>>, Error> {
        let bytes = self.tables.records.get(&self.txn, &number.to_be_bytes())?;
        bytes.map(read_record).transpose()
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
        let version = self.tables.state.get(&self.txn, &versions_key(address))?;
        Ok(version.and_then(read_version))
    }

    /// Up to when an address was deleted by its author, or that an id was.
    pub fn deleted_until(&self, deleted: &Digest16) -> Result<Option<Timestamp>, Error> {
        let until = self.tables.state.get(&self.txn, &deletions_key(deleted))?;
        Ok(until.and_then(read_number).map(Timestamp::from_secs))
    }

    /// The number up to which the log was applied.
    pub fn applied(&self) -> Result<Number, Error> {
        let applied = self.tables.state.get(&self.txn, APPLIED)?;
        Ok(applied.and_then(read_number).unwrap_or(0))
    }

    /// The keys in a range, in order.
    pub fn keys(&self, first: &Key, last: &Key) -> Result<Keys<'_>, Error> {
        let range = (
            Bound::Included(first.bytes()),
            Bound::Included(last.bytes()),
        );
        Ok(self.tables.keys.range(&self.txn, &range)?)
    }

    /// Events that have expired at `now`, at most `most` of them.
    fn expired(&self, now: Timestamp, most: usize) -> Result<Vec<Number>, Error> {
        let (first, last) = Key::expired(now);
        let mut due = Vec::new();
        for found in self.keys(&first, &last)?.take(most) {
            due.extend(Key::expiring(found?.0));
        }
        Ok(due)
    }
}

/// Keys in order.
pub type Keys<'a> = heed::RoRange<'a, Bytes, Bytes>;

/// Operations that become one transaction. What goes to `ids` and `keys` is gathered and sorted first, which spares
/// most of the way through the trees.
struct Batch<'env> {
    txn: RwTxn<'env>,
    tables: Tables,
    ids: Vec<(ShortId, Number)>,
    keys: Vec<Key>,
    /// Addresses whose version is among those gathered.
    addresses: HashSet<Digest16>,
}

impl<'env> Batch<'env> {
    fn new(txn: RwTxn<'env>, tables: Tables) -> Self {
        Self {
            txn,
            tables,
            ids: Vec::new(),
            keys: Vec::new(),
            addresses: HashSet::new(),
        }
    }

    /// Takes an event in. That it may come in was decided when it was logged.
    fn take(&mut self, number: Number, event: &Event, json: &[u8]) -> Result<(), Error> {
        if let Some(address) = key::address_of(event) {
            self.replace(address, number, event)?;
        }
        let bytes = record::encode(event, json);
        let records = self.tables.records;
        records.put_with_flags(
            &mut self.txn,
            PutFlags::APPEND,
            &number.to_be_bytes(),
            &bytes,
        )?;
        self.ids.push((key::short(event.id.as_bytes()), number));
        self.keys.extend(read_record(&bytes)?.keys(number));
        if event.kind == Kind::EventDeletion {
            self.delete(event)?;
        }
        Ok(())
    }

    /// Puts a version in the place of the one before.
    fn replace(&mut self, address: Digest16, number: Number, event: &Event) -> Result<(), Error> {
        if !self.addresses.insert(address) {
            self.write()?;
            self.addresses.insert(address);
        }
        if let Some(before) = self.version(&address)? {
            self.discard(before.number)?;
        }
        let mut version = [0; 48];
        version[..8].copy_from_slice(&event.created_at.as_secs().to_be_bytes());
        version[8..40].copy_from_slice(event.id.as_bytes());
        version[40..].copy_from_slice(&number.to_be_bytes());
        let state = self.tables.state;
        state.put(&mut self.txn, &versions_key(&address), &version)?;
        Ok(())
    }

    /// Carries out a deletion (NIP-09): of its author's own, never of evidence nor of other deletions.
    fn delete(&mut self, deletion: &Event) -> Result<(), Error> {
        self.write()?;
        for id in deletion.tags.event_ids() {
            let deleted = deletions_key(&key::deletion(id, &deletion.pubkey));
            let state = self.tables.state;
            state.put(&mut self.txn, &deleted, &Number::MAX.to_be_bytes())?;
            if let Some(number) = self.deletable(id, deletion)? {
                self.discard(number)?;
            }
        }
        for address in pending::addresses(deletion) {
            self.delete_address(&address, deletion.created_at)?;
        }
        Ok(())
    }

    /// The number of an event that a deletion may drop.
    fn deletable(&self, id: &EventId, deletion: &Event) -> Result<Option<Number>, Error> {
        let Some(number) = self.tables.ids.get(&self.txn, &key::short(id.as_bytes()))? else {
            return Ok(None);
        };
        let Some(number) = read_number(number) else {
            return Ok(None);
        };
        let Some(record) = self.record(number)? else {
            return Ok(None);
        };
        let own = record.author() == deletion.pubkey.as_bytes();
        let deletable = own && !is_kept(Kind::from(record.kind()));
        Ok(deletable.then_some(number))
    }

    fn delete_address(&mut self, address: &Digest16, until: Timestamp) -> Result<(), Error> {
        let state = self.tables.state;
        let deleted = deletions_key(address);
        let before = state.get(&self.txn, &deleted)?.and_then(read_number);
        let latest = before.unwrap_or(0).max(until.as_secs());
        state.put(&mut self.txn, &deleted, &latest.to_be_bytes())?;
        match self.version(address)? {
            Some(version) if version.created_at <= until => self.discard(version.number),
            _ => Ok(()),
        }
    }

    /// Removes events by the operator's will.
    fn remove(&mut self, ids: &[EventId]) -> Result<(), Error> {
        self.write()?;
        for id in ids {
            let number = self.tables.ids.get(&self.txn, &key::short(id.as_bytes()))?;
            if let Some(number) = number.and_then(read_number) {
                self.discard(number)?;
            }
        }
        Ok(())
    }

    /// Drops an event that was written, and every trace of it but deletions.
    fn discard(&mut self, number: Number) -> Result<(), Error> {
        let Some(record) = self.record(number)? else {
            // A key without its event leads nowhere.
            return Ok(());
        };
        let keys: Vec<Key> = record.keys(number).collect();
        let id = key::short(record.id());
        let address = record.address();
        for key in keys {
            self.tables.keys.delete(&mut self.txn, key.bytes())?;
        }
        self.tables.ids.delete(&mut self.txn, &id)?;
        let records = self.tables.records;
        records.delete(&mut self.txn, &number.to_be_bytes())?;
        if let Some(address) = address
            && let Some(version) = self.version(&address)?
            && version.number == number
        {
            let state = self.tables.state;
            state.delete(&mut self.txn, &versions_key(&address))?;
        }
        Ok(())
    }

    fn record(&self, number: Number) -> Result<Option<Record<'_>>, Error> {
        let bytes = self.tables.records.get(&self.txn, &number.to_be_bytes())?;
        bytes.map(read_record).transpose()
    }

    fn version(&self, address: &Digest16) -> Result<Option<Version>, Error> {
        let version = self.tables.state.get(&self.txn, &versions_key(address))?;
        Ok(version.and_then(read_version))
    }

    /// Writes what was gathered.
    fn write(&mut self) -> Result<(), Error> {
        self.ids.sort_unstable();
        for (id, number) in self.ids.drain(..) {
            self.tables
                .ids
                .put(&mut self.txn, &id, &number.to_be_bytes())?;
        }
        self.keys.sort_unstable();
        // An event may have the same tag twice.
        self.keys.dedup();
        for key in self.keys.drain(..) {
            self.tables.keys.put(&mut self.txn, key.bytes(), &[])?;
        }
        self.addresses.clear();
        Ok(())
    }

    fn commit(mut self, applied: Number) -> Result<(), Error> {
        self.write()?;
        let state = self.tables.state;
        state.put(&mut self.txn, APPLIED, &applied.to_be_bytes())?;
        Ok(self.txn.commit()?)
    }
}

/// Where `state` has the version under an address.
fn versions_key(address: &Digest16) -> [u8; 17] {
    prefixed(b'v', address)
}

/// Where `state` has up to when something was deleted.
fn deletions_key(deleted: &Digest16) -> [u8; 17] {
    prefixed(b'd', deleted)
}

fn prefixed(prefix: u8, digest: &Digest16) -> [u8; 17] {
    let mut key = [prefix; 17];
    key[1..].copy_from_slice(digest);
    key
}

fn read_number(bytes: &[u8]) -> Option<Number> {
    Some(Number::from_be_bytes(bytes.try_into().ok()?))
}

fn read_record(bytes: &[u8]) -> Result<Record<'_>, Error> {
    Record::read(bytes).ok_or(Error::Damaged)
}

fn read_version(bytes: &[u8]) -> Option<Version> {
    let (created_at, rest) = bytes.split_first_chunk()?;
    let (id, number) = rest.split_first_chunk()?;
    Some(Version {
        created_at: Timestamp::from_secs(u64::from_be_bytes(*created_at)),
        id: EventId::from_byte_array(*id),
        number: read_number(number)?,
    })
}
