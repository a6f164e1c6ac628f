//! Whom others ban, where the user follows them (`nips/reputation.md`).

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use nostr::{Event, EventId, Filter, Kind, PublicKey, Timestamp};

/// Lists of bans (NIP-51's mute lists), the newest of each followed author.
#[derive(Debug, Default)]
pub(super) struct Bans {
    followed: HashSet<PublicKey>,
    lists: HashMap<PublicKey, List>,
}

#[derive(Debug)]
struct List {
    version: (Timestamp, Reverse<EventId>),
    banned: HashSet<PublicKey>,
}

impl Bans {
    /// None yet, to follow those of these authors.
    pub fn following(authors: impl IntoIterator<Item = PublicKey>) -> Self {
        Self {
            followed: authors.into_iter().collect(),
            lists: HashMap::new(),
        }
    }

    /// What to subscribe to, if anybody is followed: an empty list of authors would
    /// mean all there are.
    pub fn filter(&self) -> Option<Filter> {
        let authors = self.followed.iter().copied();
        let filter = Filter::new().kind(Kind::MuteList).authors(authors);
        (!self.followed.is_empty()).then_some(filter)
    }

    /// Takes in a verified list. The newer of two stays; of two with the same date the
    /// one with the lower id (NIP-01).
    pub fn take(&mut self, event: &Event) {
        if event.kind != Kind::MuteList || !self.followed.contains(&event.pubkey) {
            return;
        }
        let version = (event.created_at, Reverse(event.id));
        let known = self.lists.get(&event.pubkey);
        if known.is_none_or(|known| known.version < version) {
            let banned = event.tags.public_keys().copied().collect();
            self.lists.insert(event.pubkey, List { version, banned });
        }
    }

    /// Whether anybody who is followed bans this key.
    pub fn hold_off(&self, provider: &PublicKey) -> bool {
        let mut lists = self.lists.values();
        lists.any(|list| list.banned.contains(provider))
    }
}
