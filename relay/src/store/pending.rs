//! What the log has and the index not yet, as far as the next event must know of it.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use infernet_protocol::kinds;
use nostr::{Event, EventId, Kind, PublicKey, Timestamp};

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

/// What must be known of an event to see what others do to it.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Its number.
    pub number: Number,
    /// Its author.
    pub author: PublicKey,
    /// Its kind.
    pub kind: Kind,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its address, if it has one.
    pub address: Option<Digest16>,
}

/// Operations on their way from the log to the index.
#[derive(Debug, Default)]
pub struct Pending {
    entries: VecDeque<Entry>,
    bytes: usize,
    events: HashMap<EventId, Origin>,
    versions: HashMap<Digest16, Version>,
    /// What authors deleted: ids for good, addresses up to a moment.
    deleted: HashMap<Digest16, Number>,
    deleted_until: HashMap<Digest16, (Timestamp, Number)>,
    /// What the operator removed.
    removed: HashMap<EventId, Number>,
}

impl Pending {
    /// Takes in what was logged.
    pub fn push(&mut self, entry: Entry) {
        self.bytes += entry.operation.bytes();
        match &entry.operation {
            Operation::Take(event, _) => self.take(event, entry.number),
            Operation::Remove(ids) => {
                self.removed
                    .extend(ids.iter().map(|id| (*id, entry.number)));
            }
        }
        self.entries.push_back(entry);
    }

    fn take(&mut self, event: &Event, number: Number) {
        let (id, created_at) = (event.id, event.created_at);
        let address = key::address_of(event);
        let origin = Origin {
            number,
            author: event.pubkey,
            kind: event.kind,
            created_at,
            address,
        };
        self.events.insert(id, origin);
        if let Some(address) = address {
            let version = Version {
                created_at,
                id,
                number,
            };
            self.versions.insert(address, version);
        }
        if event.kind == Kind::EventDeletion {
            for id in event.tags.event_ids() {
                self.deleted
                    .insert(key::deletion(id, &event.pubkey), number);
            }
            for address in addresses(event) {
                let (until, last) = self.deleted_until.entry(address).or_default();
                *until = created_at.max(*until);
                *last = number;
            }
        }
    }

    /// Forgets what the index has by now, at most `most` of it. Answers whether that was all.
    pub fn forget(&mut self, applied: Number, most: usize) -> bool {
        for _ in 0..most {
            let Some(entry) = self.entries.pop_front_if(|entry| entry.number <= applied) else {
                return true;
            };
            self.bytes -= entry.operation.bytes();
            match entry.operation {
                Operation::Take(event, _) => self.forget_event(&event, applied),
                Operation::Remove(ids) => ids.iter().for_each(|id| {
                    remove_if(&mut self.removed, id, |number| *number <= applied);
                }),
            }
        }
        false
    }

    fn forget_event(&mut self, event: &Event, applied: Number) {
        remove_if(&mut self.events, &event.id, |origin| {
            origin.number <= applied
        });
        if let Some(address) = key::address_of(event) {
            remove_if(&mut self.versions, &address, |version| {
                version.number <= applied
            });
        }
        if event.kind == Kind::EventDeletion {
            for id in event.tags.event_ids() {
                let deletion = key::deletion(id, &event.pubkey);
                remove_if(&mut self.deleted, &deletion, |number| *number <= applied);
            }
            for address in addresses(event) {
                remove_if(&mut self.deleted_until, &address, |(_, last)| {
                    *last <= applied
                });
            }
        }
    }

    /// The event with this id, whether or not it stands.
    pub fn event(&self, id: &EventId) -> Option<&Origin> {
        self.events.get(id)
    }

    /// Whether an event goes by what is here: it is removed, deleted or replaced.
    pub fn drops(&self, id: &EventId, origin: &Origin) -> bool {
        let after = |number: &Number| *number > origin.number;
        let deleted = || self.is_deleted(&key::deletion(id, &origin.author));
        let replaced = |address| {
            let version = self.versions.get(address);
            let until = self.deleted_until(address);
            version.is_some_and(|version| after(&version.number))
                || until >= Some(origin.created_at)
        };
        self.removed.get(id).is_some_and(after)
            || (!self.deleted.is_empty() && !is_kept(origin.kind) && deleted())
            || origin.address.as_ref().is_some_and(replaced)
    }

    /// The newest version under an address.
    pub fn version(&self, address: &Digest16) -> Option<Version> {
        self.versions.get(address).copied()
    }

    /// Whether an id was deleted by its author ([`key::deletion`]).
    pub fn is_deleted(&self, deletion: &Digest16) -> bool {
        self.deleted.contains_key(deletion)
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

    /// About as many bytes as its operations take in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many operations it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

fn remove_if<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: &K, is_done: impl Fn(&V) -> bool) {
    if map.get(key).is_some_and(is_done) {
        map.remove(key);
    }
}

/// Whether events of a kind stay whatever their author says: evidence, and deletions (NIP-09).
pub fn is_kept(kind: Kind) -> bool {
    kind == Kind::EventDeletion || kinds::is_evidence(kind.as_u16())
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
