//! Which ephemeral events were told of lately: they are nowhere stored, and come from several relays to one.

use std::collections::HashSet;
use std::mem;

use nostr::EventId;

/// How many ids are remembered at least; twice as many at most, some four megabytes.
const REMEMBERED: usize = 50_000;

/// The ids of the last events, in two generations: the old one goes when the young one is full.
#[derive(Debug, Default)]
pub struct Recent {
    young: HashSet<EventId>,
    old: HashSet<EventId>,
}

impl Recent {
    /// Whether it was there lately.
    pub fn contains(&self, id: &EventId) -> bool {
        self.young.contains(id) || self.old.contains(id)
    }

    /// Remembers an id and answers whether it is new.
    pub fn insert(&mut self, id: EventId) -> bool {
        if self.contains(&id) {
            return false;
        }
        if self.young.len() == REMEMBERED {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> EventId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        EventId::from_byte_array(bytes)
    }

    #[test]
    fn the_last_ones_are_known_and_memory_is_bounded() {
        let mut recent = Recent::default();
        for number in 0..5 * REMEMBERED {
            assert!(recent.insert(id(number)));
            assert!(!recent.insert(id(number)));
            assert!(number < REMEMBERED || recent.contains(&id(number - REMEMBERED + 1)));
        }
        assert!(!recent.contains(&id(0)));
        assert!(recent.young.len() + recent.old.len() <= 2 * REMEMBERED);
    }
}
