//! The index's tables and how their values are written.
//!
//! Four of them: `records` has the events by number, `ids` their numbers by id, `keys` what [`super::key`] says (with
//! empty values), `state` current versions by address, deletions, and how far the log was applied.

use heed::types::Bytes;
use heed::{Database, Env, RoTxn, RwTxn};
use nostr::{EventId, Timestamp};

use super::Error;
use super::key::{self, Digest16, Number};
use super::pending::Version;
use super::record::Record;

/// Where `state` says how far the log was applied. All other keys have 17 bytes.
const APPLIED: &[u8] = b"applied";

/// Keys and values of any bytes.
pub type Table = Database<Bytes, Bytes>;

/// The tables.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// Events by number.
    pub records: Table,
    /// Numbers by [`key::ShortId`].
    pub ids: Table,
    /// [`key::Key`]s.
    pub keys: Table,
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
