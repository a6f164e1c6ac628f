//! What the changes come to.

use std::collections::HashMap;
use std::net::IpAddr;

use nostr::{EventId, Kind, PublicKey};
use serde::{Deserialize, Serialize};

use super::{MAX_DESCRIPTION_BYTES, MAX_ENTRIES, MAX_TEXT_BYTES};
use crate::address::network;

/// One decision of the operator. The texts are reasons, unless something else is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Takes nothing of this key any more.
    BanKey(PublicKey, String),
    /// Forgets that it was banned.
    UnbanKey(PublicKey),
    /// Knows this key to be good.
    AllowKey(PublicKey, String),
    /// Forgets that it was allowed.
    UnallowKey(PublicKey),
    /// Takes this event no more.
    BanEvent(EventId, String),
    /// Forgets that it was banned.
    AllowEvent(EventId),
    /// Takes this kind, whatever the relay does by itself.
    AllowKind(Kind),
    /// Refuses it likewise.
    DisallowKind(Kind),
    /// Talks to nobody there.
    BlockAddress(IpAddr, String),
    /// Forgets that it was blocked.
    UnblockAddress(IpAddr),
    /// The relay's name.
    Name(String),
    /// Its description.
    Description(String),
    /// The address of its icon.
    Icon(String),
}

impl Change {
    /// Its text, and how many bytes that may have.
    pub fn text(&self) -> (&str, usize) {
        match self {
            Self::BanKey(_, text)
            | Self::AllowKey(_, text)
            | Self::BanEvent(_, text)
            | Self::BlockAddress(_, text)
            | Self::Name(text)
            | Self::Icon(text) => (text, MAX_TEXT_BYTES),
            Self::Description(text) => (text, MAX_DESCRIPTION_BYTES),
            Self::UnbanKey(_)
            | Self::UnallowKey(_)
            | Self::AllowEvent(_)
            | Self::AllowKind(_)
            | Self::DisallowKind(_)
            | Self::UnblockAddress(_) => ("", 0),
        }
    }
}

/// What is thought of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is known to be good.
    Allowed,
    /// Nothing of it is taken.
    Banned,
}

/// Keys, each on one list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeyList(HashMap<PublicKey, (Verdict, String)>);

impl KeyList {
    /// Whether this is thought of `key`.
    pub fn is(&self, key: &PublicKey, verdict: Verdict) -> bool {
        self.0.get(key).is_some_and(|(is, _)| *is == verdict)
    }

    /// All of whom this is thought, with the reasons.
    pub fn all(&self, verdict: Verdict) -> Vec<(PublicKey, String)> {
        let such = self.0.iter().filter(|(_, (is, _))| *is == verdict);
        such.map(|(key, (_, why))| (*key, why.clone())).collect()
    }

    fn remove(&mut self, key: &PublicKey, verdict: Verdict) {
        if self.is(key, verdict) {
            self.0.remove(key);
        }
    }
}

/// How the relay is called, where the operator changed it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Face {
    /// Its name.
    pub name: Option<String>,
    /// What it says about itself.
    pub description: Option<String>,
    /// The address of its icon.
    pub icon: Option<String>,
}

/// Everything that was decided, as it stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    pub keys: KeyList,
    pub events: HashMap<EventId, String>,
    pub kinds: HashMap<Kind, bool>,
    pub addresses: HashMap<IpAddr, String>,
    pub face: Face,
}

impl State {
    /// Takes in a change.
    pub fn apply(&mut self, change: Change) {
        let (keys, face) = (&mut self.keys, &mut self.face);
        match change {
            Change::BanKey(key, why) => drop(keys.0.insert(key, (Verdict::Banned, why))),
            Change::AllowKey(key, why) => drop(keys.0.insert(key, (Verdict::Allowed, why))),
            Change::UnbanKey(key) => keys.remove(&key, Verdict::Banned),
            Change::UnallowKey(key) => keys.remove(&key, Verdict::Allowed),
            Change::BanEvent(id, why) => drop(self.events.insert(id, why)),
            Change::AllowEvent(id) => drop(self.events.remove(&id)),
            Change::AllowKind(kind) => drop(self.kinds.insert(kind, true)),
            Change::DisallowKind(kind) => drop(self.kinds.insert(kind, false)),
            Change::BlockAddress(at, why) => drop(self.addresses.insert(network(at), why)),
            Change::UnblockAddress(at) => drop(self.addresses.remove(&network(at))),
            Change::Name(text) => face.name = Some(text),
            Change::Description(text) => face.description = Some(text),
            Change::Icon(text) => face.icon = Some(text),
        }
    }

    /// Whether the list that this change adds to has no room for it.
    pub fn is_full_for(&self, change: &Change) -> bool {
        match change {
            Change::BanKey(key, _) | Change::AllowKey(key, _) => {
                self.keys.0.len() >= MAX_ENTRIES && !self.keys.0.contains_key(key)
            }
            Change::BanEvent(id, _) => {
                self.events.len() >= MAX_ENTRIES && !self.events.contains_key(id)
            }
            Change::BlockAddress(at, _) => {
                self.addresses.len() >= MAX_ENTRIES && !self.addresses.contains_key(&network(*at))
            }
            // There are 65,536 kinds, and one of everything else.
            _ => false,
        }
    }

    /// The fewest changes that come to the same.
    pub fn changes(&self) -> Vec<Change> {
        let keys = self
            .keys
            .0
            .iter()
            .map(|(key, (verdict, why))| match verdict {
                Verdict::Allowed => Change::AllowKey(*key, why.clone()),
                Verdict::Banned => Change::BanKey(*key, why.clone()),
            });
        let events = self.events.iter();
        let events = events.map(|(id, why)| Change::BanEvent(*id, why.clone()));
        let kinds = self.kinds.iter().map(|(kind, allowed)| match allowed {
            true => Change::AllowKind(*kind),
            false => Change::DisallowKind(*kind),
        });
        let addresses = self.addresses.iter();
        let addresses = addresses.map(|(at, why)| Change::BlockAddress(*at, why.clone()));
        let face = [
            self.face.name.clone().map(Change::Name),
            self.face.description.clone().map(Change::Description),
            self.face.icon.clone().map(Change::Icon),
        ];
        let lists = keys.chain(events).chain(kinds).chain(addresses);
        lists.chain(face.into_iter().flatten()).collect()
    }
}

/// Whether it is this machine's own, or nobody's.
pub fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// One of few keys, events, kinds and addresses, so that changes meet.
    fn change() -> impl Strategy<Value = Change> {
        let text = prop_oneof![Just(String::new()), Just("why \"\n".to_owned())];
        (0..13_u8, 0..3_u8, text).prop_map(|(what, which, text)| {
            let key = PublicKey::from_byte_array([which; 32]);
            let event = EventId::from_byte_array([which; 32]);
            let kind = Kind::from(u16::from(which));
            let address = IpAddr::from([192, 0, 2, which]);
            match what {
                0 => Change::BanKey(key, text),
                1 => Change::UnbanKey(key),
                2 => Change::AllowKey(key, text),
                3 => Change::UnallowKey(key),
                4 => Change::BanEvent(event, text),
                5 => Change::AllowEvent(event),
                6 => Change::AllowKind(kind),
                7 => Change::DisallowKind(kind),
                8 => Change::BlockAddress(address, text),
                9 => Change::UnblockAddress(address),
                10 => Change::Name(text),
                11 => Change::Description(text),
                _ => Change::Icon(text),
            }
        })
    }

    fn state(changes: impl IntoIterator<Item = Change>) -> State {
        let mut state = State::default();
        changes.into_iter().for_each(|change| state.apply(change));
        state
    }

    proptest! {
        #[test]
        fn what_changes_come_to_is_written_and_read(changes in vec(change(), 0..40)) {
            let after = state(changes);
            let lines = after.changes().into_iter().map(|change| serde_json::to_vec(&change).unwrap());
            let read = lines.map(|line| serde_json::from_slice(&line).unwrap());
            prop_assert_eq!(state(read), after);
        }
    }
}
