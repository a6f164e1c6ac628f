//! Which events not to ask for again, and not to give again: what this relay or the other has refused.

use std::collections::HashSet;
use std::time::Duration;

use nostr::EventId;
use tokio::time::Instant;

/// Events that are remembered, at the least; twice as many at the most.
const REMEMBERED: usize = 100_000;

/// How long: lists and rules change.
const FOR: Duration = Duration::from_secs(3_600);

/// Ids, of which the oldest are forgotten.
#[derive(Debug, Default)]
pub struct Recent {
    young: HashSet<EventId>,
    old: HashSet<EventId>,
}

impl Recent {
    /// Remembers an id.
    pub fn insert(&mut self, id: EventId) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id);
    }

    /// Whether it is remembered.
    pub fn contains(&self, id: &EventId) -> bool {
        self.young.contains(id) || self.old.contains(id)
    }
}

/// What is refused between this relay and another.
#[derive(Debug)]
pub struct Unwanted {
    /// What this relay does not take, or the other does not give though it says it has it.
    pub here: Recent,
    /// What the other does not take.
    pub there: Recent,
    since: Instant,
}

impl Default for Unwanted {
    fn default() -> Self {
        Self {
            here: Recent::default(),
            there: Recent::default(),
            since: Instant::now(),
        }
    }
}

impl Unwanted {
    /// Forgets all that is too long ago.
    pub fn forget_old(&mut self) {
        if self.since.elapsed() > FOR {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> EventId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        EventId::from_byte_array(bytes)
    }

    #[test]
    fn the_latest_are_remembered_and_the_memory_is_bounded() {
        let mut recent = Recent::default();
        for n in 0..3 * REMEMBERED {
            recent.insert(id(n));
            assert!(recent.young.len() + recent.old.len() <= 2 * REMEMBERED);
        }
        let remembered = 2 * REMEMBERED..3 * REMEMBERED;
        assert!(remembered.map(id).all(|id| recent.contains(&id)));
        assert!(!recent.contains(&id(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_forgotten_after_an_hour() {
        let mut unwanted = Unwanted::default();
        unwanted.here.insert(id(1));
        tokio::time::advance(FOR).await;
        unwanted.forget_old();
        assert!(unwanted.here.contains(&id(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        unwanted.forget_old();
        assert!(!unwanted.here.contains(&id(1)));
    }
}
