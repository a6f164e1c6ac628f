//! Whom aggregators ban, where the operator follows them (`nips/reputation.md`).
//!
//! The lists are mute lists (NIP-51) in this relay's own store. They are read at start
//! and again whenever a new one comes in, so that a ban holds from the next event on.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use infernet_protocol::kinds;
use nostr::{Event, EventId, Kind, PublicKey, Timestamp};

use super::refusal::Refusal;

/// The kinds by which a provider offers its work. Whatever else a banned key says is
/// taken: evidence may tell for it, or against it.
const REFUSED: [u16; 2] = [kinds::ANNOUNCEMENT, kinds::BID];

/// One aggregator's list as it stands.
#[derive(Debug)]
struct List {
    event: EventId,
    /// When it was made, or deleted: an older one, which somebody may send again, does not come back.
    since: Timestamp,
    banned: HashSet<PublicKey>,
}

/// The lists that are followed.
#[derive(Debug, Default)]
pub struct Bans {
    followed: HashSet<PublicKey>,
    lists: RwLock<HashMap<PublicKey, List>>,
}

impl Bans {
    /// Those of these authors, who have banned nobody yet.
    pub fn new(followed: &[PublicKey]) -> Self {
        Self {
            followed: followed.iter().copied().collect(),
            lists: RwLock::default(),
        }
    }

    /// Those whose lists are followed.
    pub fn followed(&self) -> impl Iterator<Item = PublicKey> + '_ {
        self.followed.iter().copied()
    }

    /// Takes in an event that was admitted: a followed author's list, or its deletion.
    pub fn take(&self, event: &Event) {
        if !self.followed.contains(&event.pubkey) {
            return;
        }
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        let known = lists.get_mut(&event.pubkey);
        if event.kind == Kind::MuteList {
            if known.is_some_and(|known| known.since > event.created_at) {
                return;
            }
            let list = List {
                event: event.id,
                since: event.created_at,
                banned: event.tags.public_keys().copied().collect(),
            };
            lists.insert(event.pubkey, list);
        } else if let Some(known) = known
            && event.kind == Kind::EventDeletion
            && event.created_at >= known.since
            && deletes(event, &known.event)
        {
            known.since = event.created_at;
            known.banned.clear();
        }
    }

    /// Refuses what a banned key offers.
    ///
    /// # Errors
    /// [`Refusal::Banned`].
    pub fn check(&self, event: &Event) -> Result<(), Refusal> {
        if self.followed.is_empty() || !REFUSED.contains(&event.kind.as_u16()) {
            return Ok(());
        }
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        let mut by = lists
            .iter()
            .filter(|(_, list)| list.banned.contains(&event.pubkey));
        match by.next() {
            Some((author, _)) => Err(Refusal::Banned(*author)),
            None => Ok(()),
        }
    }
}

fn deletes(deletion: &Event, list: &EventId) -> bool {
    let by_id = deletion.tags.event_ids().any(|id| id == list);
    let mut addresses = deletion.tags.coordinates();
    by_id || addresses.any(|address| address.kind == Kind::MuteList)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, Keys, Tag};

    use super::*;

    fn list(by: &Keys, banned: &[&Keys]) -> Event {
        let tags = banned.iter().map(|keys| Tag::public_key(keys.public_key()));
        let list = EventBuilder::new(Kind::MuteList, "").tags(tags);
        list.sign_with_keys(by).unwrap()
    }

    fn says(kind: u16, keys: &Keys) -> Event {
        let event = EventBuilder::new(Kind::from(kind), "");
        event.sign_with_keys(keys).unwrap()
    }

    fn following(keys: &[&Keys]) -> Bans {
        Bans {
            followed: keys.iter().map(|keys| keys.public_key()).collect(),
            lists: RwLock::default(),
        }
    }

    #[test]
    fn what_a_banned_key_offers_is_refused_and_its_evidence_is_not() {
        let (judge, cheat, honest) = (Keys::generate(), Keys::generate(), Keys::generate());
        let bans = following(&[&judge]);
        bans.take(&list(&judge, &[&cheat]));
        for kind in [kinds::ANNOUNCEMENT, kinds::BID] {
            let refused = Err(Refusal::Banned(judge.public_key()));
            assert_eq!(bans.check(&says(kind, &cheat)), refused);
            assert_eq!(bans.check(&says(kind, &honest)), Ok(()));
        }
        for kind in [kinds::RESULT, kinds::RECEIPT, kinds::OFFER] {
            assert_eq!(bans.check(&says(kind, &cheat)), Ok(()));
        }
    }

    #[test]
    fn lists_of_others_count_nothing_and_a_new_list_replaces_the_old_one() {
        let (judge, stranger, cheat) = (Keys::generate(), Keys::generate(), Keys::generate());
        let bans = following(&[&judge]);
        let bid = says(kinds::BID, &cheat);
        bans.take(&list(&stranger, &[&cheat]));
        assert_eq!(bans.check(&bid), Ok(()));
        bans.take(&list(&judge, &[&cheat]));
        assert!(bans.check(&bid).is_err());
        bans.take(&list(&judge, &[]));
        assert_eq!(bans.check(&bid), Ok(()));
    }

    #[test]
    fn a_deleted_list_bans_nobody() {
        let (judge, cheat) = (Keys::generate(), Keys::generate());
        let bans = following(&[&judge]);
        let bid = says(kinds::BID, &cheat);
        let lists = list(&judge, &[&cheat]);
        let deletes = |by: &Keys| {
            let deletion = EventBuilder::new(Kind::EventDeletion, "").tag(Tag::event(lists.id));
            deletion.sign_with_keys(by).unwrap()
        };
        bans.take(&lists);
        bans.take(&deletes(&cheat));
        assert!(bans.check(&bid).is_err(), "not the list's author");
        bans.take(&deletes(&judge));
        assert_eq!(bans.check(&bid), Ok(()));
    }
}
