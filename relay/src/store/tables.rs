//! The index's tables and how their values are written.
//!
//! Five of them: `records` has the events by number, `ids` their numbers by id, `keys` what [`super::key`] says and
//! `expirations` when events expire (both with empty values), `state` current versions by address, deletions, from when
//! to when the events of each epoch were made, and how far the log was applied.

use heed::types::Bytes;
use heed::{Database, Env, RoTxn, RwTxn};
use nostr::{EventId, Timestamp};

use super::Error;
use super::key::{self, Digest16, Epoch, Number};
use super::pending::Version;
use super::record::Record;

/// Where `state` says how far the log was applied. Other keys have 17 bytes, or 3 for an epoch.
const APPLIED: &[u8] = b"applied";

/// Keys and values of any bytes.
pub type Table = Database<Bytes, Bytes>;

/// From when to when the events of an epoch were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The epoch.
    pub epoch: Epoch,
    /// The earliest `created_at`.
    pub first: Timestamp,
    /// The latest.
    pub last: Timestamp,
}

/// The tables.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// Events by number.
    pub records: Table,
    /// Numbers by [`key::ShortId`].
    pub ids: Table,
    /// [`key::Key`]s.
    pub keys: Table,
    /// Keys of [`key::expiration`].
    pub expirations: Table,
    state: Table,
}

impl Tables {
    /// Opens them, and makes them where there are none.
    ///
    /// # Errors
    /// When LMDB cannot be read or written; this holds for all of these.
    pub fn open(env: &Env) -> Result<Self, Error> {
        let mut txn = env.write_txn()?;
        let mut table = |name| env.create_database(&mut txn, Some(name));
        let tables = Self {
            records: table("records")?,
            ids: table("ids")?,
            keys: table("keys")?,
            expirations: table("expirations")?,
            state: table("state")?,
        };
        txn.commit()?;
        Ok(tables)
    }

    /// The number of an event.
    pub fn number(&self, txn: &RoTxn<'_>, id: &[u8; 32]) -> Result<Option<Number>, Error> {
        let number = self.ids.get(txn, &key::short(id))?;
        Ok(number.and_then(read_number))
    }

    /// The event with a number.
    pub fn record<'t>(
        &self,
        txn: &'t RoTxn<'_>,
        number: Number,
    ) -> Result<Option<Record<'t>>, Error> {
        let bytes = self.records.get(txn, &number.to_be_bytes())?;
        bytes
            .map(|bytes| Record::read(bytes).ok_or(Error::Damaged))
            .transpose()
    }

    /// The current version under an address.
    pub fn version(&self, txn: &RoTxn<'_>, address: &Digest16) -> Result<Option<Version>, Error> {
        let version = self.state.get(txn, &versions_key(address))?;
        Ok(version.and_then(read_version))
    }

    /// Puts a version in the place of the one before.
    pub fn put_version(
        &self,
        txn: &mut RwTxn<'_>,
        address: &Digest16,
        version: &Version,
    ) -> Result<(), Error> {
        let mut bytes = [0; 48];
        bytes[..8].copy_from_slice(&version.created_at.as_secs().to_be_bytes());
        bytes[8..40].copy_from_slice(version.id.as_bytes());
        bytes[40..].copy_from_slice(&version.number.to_be_bytes());
        Ok(self.state.put(txn, &versions_key(address), &bytes)?)
    }

    /// Leaves an address without a version.
    pub fn drop_version(&self, txn: &mut RwTxn<'_>, address: &Digest16) -> Result<(), Error> {
        self.state.delete(txn, &versions_key(address))?;
        Ok(())
    }

    /// Up to when an address was deleted by its author, or that an id was.
    pub fn deleted_until(
        &self,
        txn: &RoTxn<'_>,
        deleted: &Digest16,
    ) -> Result<Option<Timestamp>, Error> {
        let until = self.state.get(txn, &deletions_key(deleted))?;
        Ok(until.and_then(read_number).map(Timestamp::from_secs))
    }

    /// Writes down up to when something was deleted.
    pub fn put_deleted(
        &self,
        txn: &mut RwTxn<'_>,
        deleted: &Digest16,
        until: Timestamp,
    ) -> Result<(), Error> {
        let until = until.as_secs().to_be_bytes();
        Ok(self.state.put(txn, &deletions_key(deleted), &until)?)
    }

    /// The epochs, in order.
    pub fn spans(&self, txn: &RoTxn<'_>) -> Result<Vec<Span>, Error> {
        let mut spans = Vec::new();
        for found in self.state.prefix_iter(txn, b"e")? {
            let (key, value) = found?;
            spans.extend(read_span(key, value));
        }
        Ok(spans)
    }

    /// Widens an epoch to what it takes in.
    pub fn put_span(&self, txn: &mut RwTxn<'_>, new: Span) -> Result<(), Error> {
        let key = span_key(new.epoch);
        let before = self.state.get(txn, &key)?;
        let before = before
            .and_then(|value| read_span(&key, value))
            .unwrap_or(new);
        let (first, last) = (new.first.min(before.first), new.last.max(before.last));
        let mut value = [0; 16];
        value[..8].copy_from_slice(&first.as_secs().to_be_bytes());
        value[8..].copy_from_slice(&last.as_secs().to_be_bytes());
        Ok(self.state.put(txn, &key, &value)?)
    }

    /// The number up to which the log was applied.
    pub fn applied(&self, txn: &RoTxn<'_>) -> Result<Number, Error> {
        let applied = self.state.get(txn, APPLIED)?;
        Ok(applied.and_then(read_number).unwrap_or(0))
    }

    /// Writes down up to which number the log was applied.
    pub fn put_applied(&self, txn: &mut RwTxn<'_>, applied: Number) -> Result<(), Error> {
        Ok(self.state.put(txn, APPLIED, &applied.to_be_bytes())?)
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

fn read_version(bytes: &[u8]) -> Option<Version> {
    let (created_at, rest) = bytes.split_first_chunk()?;
    let (id, number) = rest.split_first_chunk()?;
    Some(Version {
        created_at: Timestamp::from_secs(u64::from_be_bytes(*created_at)),
        id: EventId::from_byte_array(*id),
        number: read_number(number)?,
    })
}

/// Where `state` has the span of an epoch.
fn span_key(epoch: Epoch) -> [u8; 3] {
    let [high, low] = epoch.to_be_bytes();
    [b'e', high, low]
}

fn read_span(key: &[u8], value: &[u8]) -> Option<Span> {
    let (first, last) = value.split_first_chunk()?;
    Some(Span {
        epoch: Epoch::from_be_bytes(*key.last_chunk()?),
        first: Timestamp::from_secs(u64::from_be_bytes(*first)),
        last: read_number(last).map(Timestamp::from_secs)?,
    })
}
