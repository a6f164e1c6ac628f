//! How operations change the index.

use std::collections::{BTreeMap, HashSet};

use heed::{PutFlags, RwTxn};
use nostr::{Event, EventId, Kind, Timestamp};

use super::Error;
use super::key::{self, Digest16, Epoch, Key, Number, ShortId};
use super::pending::{self, Version, is_kept};
use super::record::{self, Record};
use super::tables::{Span, Tables};

/// Operations that become one transaction. What goes to `ids` and `keys` is gathered and sorted first, which spares
/// most of the way through the trees.
pub struct Batch<'env> {
    txn: RwTxn<'env>,
    tables: Tables,
    ids: Vec<(ShortId, Number)>,
    keys: Vec<Key>,
    /// Addresses whose version is among those gathered.
    addresses: HashSet<Digest16>,
    /// The earliest and the latest event that each epoch takes in.
    spans: BTreeMap<Epoch, (Timestamp, Timestamp)>,
}

impl<'env> Batch<'env> {
    /// Begins a transaction.
    pub fn new(txn: RwTxn<'env>, tables: Tables) -> Self {
        Self {
            txn,
            tables,
            ids: Vec::new(),
            keys: Vec::new(),
            addresses: HashSet::new(),
            spans: BTreeMap::new(),
        }
    }

    /// Takes an event in. That it may come in was decided when it was logged.
    ///
    /// # Errors
    /// When LMDB cannot be written; this holds for all of these.
    pub fn take(&mut self, number: Number, event: &Event, json: &[u8]) -> Result<(), Error> {
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
        let record = Record::read(&bytes).ok_or(Error::Damaged)?;
        self.keys.extend(record.keys(number));
        if let Some(at) = record.expiration() {
            let key = key::expiration(at, number);
            self.tables.expirations.put(&mut self.txn, &key, &[])?;
        }
        self.widen(number, event.created_at);
        if event.kind == Kind::EventDeletion {
            self.delete(event)?;
        }
        Ok(())
    }

    /// Notes that an epoch has an event of this moment.
    fn widen(&mut self, number: Number, at: Timestamp) {
        let epoch = key::epoch(number);
        let span = self.spans.entry(epoch).or_insert((at, at));
        *span = (at.min(span.0), at.max(span.1));
    }

    /// Puts a version in the place of the one before.
    fn replace(&mut self, address: Digest16, number: Number, event: &Event) -> Result<(), Error> {
        if !self.addresses.insert(address) {
            self.write()?;
            self.addresses.insert(address);
        }
        if let Some(before) = self.tables.version(&self.txn, &address)? {
            self.discard(before.number)?;
        }
        let version = Version {
            created_at: event.created_at,
            id: event.id,
            number,
        };
        self.tables.put_version(&mut self.txn, &address, &version)
    }

    /// Carries out a deletion (NIP-09): of its author's own, never of evidence nor of other deletions.
    fn delete(&mut self, deletion: &Event) -> Result<(), Error> {
        self.write()?;
        for id in deletion.tags.event_ids() {
            let deleted = key::deletion(id, &deletion.pubkey);
            let for_good = Timestamp::max();
            self.tables.put_deleted(&mut self.txn, &deleted, for_good)?;
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
        let Some(number) = self.tables.number(&self.txn, id.as_bytes())? else {
            return Ok(None);
        };
        let Some(record) = self.tables.record(&self.txn, number)? else {
            return Ok(None);
        };
        let own = record.author() == deletion.pubkey.as_bytes();
        let deletable = own && !is_kept(Kind::from(record.kind()));
        Ok(deletable.then_some(number))
    }

    fn delete_address(&mut self, address: &Digest16, until: Timestamp) -> Result<(), Error> {
        let before = self.tables.deleted_until(&self.txn, address)?;
        let latest = before.map_or(until, |before| before.max(until));
        self.tables.put_deleted(&mut self.txn, address, latest)?;
        match self.tables.version(&self.txn, address)? {
            Some(version) if version.created_at <= until => self.discard(version.number),
            _ => Ok(()),
        }
    }

    /// Removes events by the operator's will.
    pub fn remove(&mut self, ids: &[EventId]) -> Result<(), Error> {
        self.write()?;
        for id in ids {
            if let Some(number) = self.tables.number(&self.txn, id.as_bytes())? {
                self.discard(number)?;
            }
        }
        Ok(())
    }

    /// Drops an event that was written, and every trace of it but deletions.
    pub fn discard(&mut self, number: Number) -> Result<(), Error> {
        let Some(record) = self.tables.record(&self.txn, number)? else {
            // A key without its event leads nowhere.
            return Ok(());
        };
        let keys: Vec<Key> = record.keys(number).collect();
        let id = key::short(record.id());
        let address = record.address();
        if let Some(at) = record.expiration() {
            let key = key::expiration(at, number);
            self.tables.expirations.delete(&mut self.txn, &key)?;
        }
        for key in keys {
            self.tables.keys.delete(&mut self.txn, key.bytes())?;
        }
        self.tables.ids.delete(&mut self.txn, &id)?;
        let records = self.tables.records;
        records.delete(&mut self.txn, &number.to_be_bytes())?;
        if let Some(address) = address
            && let Some(version) = self.tables.version(&self.txn, &address)?
            && version.number == number
        {
            self.tables.drop_version(&mut self.txn, &address)?;
        }
        Ok(())
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

    /// Writes everything, and up to which number the log was applied by that. It is on the disk then.
    pub fn commit(mut self, applied: Option<Number>) -> Result<(), Error> {
        self.write()?;
        for (epoch, (first, last)) in self.spans {
            let span = Span { epoch, first, last };
            self.tables.put_span(&mut self.txn, span)?;
        }
        if let Some(applied) = applied {
            self.tables.put_applied(&mut self.txn, applied)?;
        }
        Ok(self.txn.commit()?)
    }
}
