//! What an event would do to those that are stored, and whether it may.

use infernet_protocol::kinds;
use nostr::{Event, EventId, Kind, Timestamp};

use super::index::View;
use super::key::{self, Digest16};
use super::pending::{Origin, Pending, Version, is_kept};
use super::{Error, Saved};
use crate::admission::Refusal;

/// Everything that was logged: what the index has, and what it has not yet, the oldest first.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What the index has.
    pub view: &'a View<'a>,
    /// What it may not have yet. It was looked at before the view was taken, so that nothing falls between.
    pub pending: [&'a Pending; 2],
}

impl Known<'_> {
    /// What becomes of `event` if it is saved now.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn judge(&self, event: &Event) -> Result<Saved, Error> {
        if !is_kept(event.kind) && self.is_deleted(&key::deletion(&event.id, &event.pubkey))? {
            return Ok(Saved::Deleted);
        }
        if let Some(address) = key::address_of(event) {
            if let Some(stored) = self.version(&address, event)?
                && is_newer(&stored, event)
            {
                return Ok(Saved::Superseded(stored.id));
            }
            if self.deleted_until(&address)? >= Some(event.created_at) {
                return Ok(Saved::Deleted);
            }
        }
        if self.has(&event.id)? {
            return Ok(Saved::Duplicate);
        }
        match self.judge_deletion(event)? {
            Some(refusal) => Ok(Saved::Refused(refusal)),
            None => Ok(Saved::New),
        }
    }

    /// Why a deletion may not be carried out (NIP-09): it names what is not its author's, or evidence.
    fn judge_deletion(&self, event: &Event) -> Result<Option<Refusal>, Error> {
        if event.kind != Kind::EventDeletion {
            return Ok(None);
        }
        for id in event.tags.event_ids() {
            let Some(target) = self.origin(id)? else {
                continue;
            };
            if target.author != event.pubkey {
                return Ok(Some(Refusal::DeletesForeign(id.to_hex())));
            }
            if kinds::is_evidence(target.kind.as_u16()) {
                return Ok(Some(Refusal::DeletesEvidence(*id, target.kind)));
            }
        }
        let mut named = event.tags.coordinates();
        let foreign = named.find(|named| named.public_key != event.pubkey);
        Ok(foreign.map(|foreign| Refusal::DeletesForeign(foreign.to_string())))
    }

    /// Whether an event is stored.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn has(&self, id: &EventId) -> Result<bool, Error> {
        Ok(self.origin(id)?.is_some())
    }

    /// Where a stored event comes from.
    fn origin(&self, id: &EventId) -> Result<Option<Origin>, Error> {
        let mut latest = self.pending.iter().rev();
        let origin = match latest.find_map(|pending| pending.event(id)) {
            Some(origin) => Some(*origin),
            None => self.view.origin(id)?,
        };
        let stands = |origin: &Origin| {
            let mut pending = self.pending.iter();
            !pending.any(|pending| pending.drops(id, origin))
        };
        Ok(origin.filter(stands))
    }

    /// The version that stands under an event's address.
    fn version(&self, address: &Digest16, event: &Event) -> Result<Option<Version>, Error> {
        let mut latest = self.pending.iter().rev();
        let version = match latest.find_map(|pending| pending.version(address)) {
            Some(version) => Some(version),
            None => self.view.version(address)?,
        };
        let stands = |version: &Version| {
            let origin = Origin {
                number: version.number,
                author: event.pubkey,
                kind: event.kind,
                created_at: version.created_at,
                address: Some(*address),
            };
            let mut pending = self.pending.iter();
            !pending.any(|pending| pending.drops(&version.id, &origin))
        };
        Ok(version.filter(stands))
    }

    fn is_deleted(&self, deletion: &Digest16) -> Result<bool, Error> {
        let mut pending = self.pending.iter();
        Ok(pending.any(|pending| pending.is_deleted(deletion))
            || self.view.deleted_until(deletion)?.is_some())
    }

    fn deleted_until(&self, address: &Digest16) -> Result<Option<Timestamp>, Error> {
        let pending = self.pending.iter();
        let pending = pending.filter_map(|pending| pending.deleted_until(address));
        Ok(pending.max().max(self.view.deleted_until(address)?))
    }
}

/// Whether `stored` stays and `event` goes (NIP-01: of two of the same second, the lower id stays).
fn is_newer(stored: &Version, event: &Event) -> bool {
    stored.created_at > event.created_at
        || (stored.created_at == event.created_at && stored.id < event.id)
}
