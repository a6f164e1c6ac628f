//! What the log has and the index not yet, as far as the next event must know of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use nostr::{Event, EventId, Kind, Timestamp};

use super::frame::{Entry, Operation};
use super::key::{self, Digest16, Number};

/// The current version under an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// When it was made.
    pub created_at: Timestamp,
    /// Its id.
    pub id: EventId,
    /// Its number.
    pub number: Number,
}

/// Operations on their way from the log to the index.
#[derive(Debug, Default)]
pub struct Pending {
    entries: VecDeque<Entry>,
    events: HashMap<EventId, Arc<Event>>,
    versions: HashMap<Digest16, Version>,
    /// What authors deleted: ids for good, addresses up to a moment.
    deleted: HashSet<Digest16>,
    deleted_until: HashMap<Digest16, (Timestamp, Number)>,
}

impl Pending {
    /// Takes in what was logged.
    pub fn push(&mut self, entry: Entry) {
        if let Operation::Take(event, _) = &entry.operation {
            self.take(event, entry.number);
        }
        self.entries.push_back(entry);
    }

    fn take(&mut self, event: &Arc<Event>, number: Number) {
        self.events.insert(event.id, event.clone());
        if let Some(address) = key::address_of(event) {
            let version = Version {
                created_at: event.created_at,
                id: event.id,
                number,
            };
            self.versions.insert(address, version);
        }
        if event.kind == Kind::EventDeletion {
            for id in event.tags.event_ids() {
                self.deleted.insert(key::deletion(id, &event.pubkey));
            }
            for address in addresses(event) {
                let (until, last) = self.deleted_until.entry(address).or_default();
                *until = event.created_at.max(*until);
                *last = number;
            }
        }
    }

    /// Forgets what the index has by now.
    pub fn forget(&mut self, applied: Number) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.number <= applied) {
            if let Operation::Take(event, _) = entry.operation {
                self.forget_event(&event, applied);
            }
        }
    }

    fn forget_event(&mut self, event: &Event, applied: Number) {
        self.events.remove(&event.id);
        if let Some(address) = key::address_of(event) {
            let version = self.versions.get(&address);
            if version.is_some_and(|version| version.number <= applied) {
                self.versions.remove(&address);
            }
        }
        if event.kind == Kind::EventDeletion {
            for id in event.tags.event_ids() {
                // Another pending deletion of the same by the same author says no more than this one did.
                self.deleted.remove(&key::deletion(id, &event.pubkey));
            }
            for address in addresses(event) {
                let last = self.deleted_until.get(&address);
                if last.is_some_and(|(_, last)| *last <= applied) {
                    self.deleted_until.remove(&address);
                }
            }
        }
    }

    /// The event with this id.
    pub fn event(&self, id: &EventId) -> Option<&Arc<Event>> {
        self.events.get(id)
    }

    /// The newest version under an address.
    pub fn version(&self, address: &Digest16) -> Option<Version> {
        self.versions.get(address).copied()
    }

    /// Whether an id was deleted by its author ([`key::deletion`]).
    pub fn is_deleted(&self, deletion: &Digest16) -> bool {
        self.deleted.contains(deletion)
    }

    /// Up to when the versions under an address were deleted.
    pub fn deleted_until(&self, address: &Digest16) -> Option<Timestamp> {
        self.deleted_until.get(address).map(|(until, _)| *until)
    }

    /// Takes in everything that another has, which came later, and leaves that one empty.
    pub fn absorb(&mut self, later: &mut Self) {
        for entry in std::mem::take(later).entries {
            self.push(entry);
        }
    }

    /// How many operations it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The addresses that a deletion names, as far as they are its author's own.
pub fn addresses(deletion: &Event) -> impl Iterator<Item = Digest16> {
    let named = deletion.tags.coordinates();
    let own = named.filter(|named| named.public_key == deletion.pubkey);
    own.filter_map(|named| {
        let identifier = match named.kind {
            kind if kind.is_addressable() => &named.identifier,
            kind if kind.is_replaceable() => "",
            _ => return None,
        };
        let (kind, author) = (named.kind.as_u16(), named.public_key.as_bytes());
        Some(key::address(kind, author, &key::value(identifier)))
    })
}
