//! What keeps others' demands small: a bounded memory, and a rate.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use infernet_protocol::job::Millis;

/// What was seen, the latest so many.
#[derive(Debug)]
pub struct Remembered<T> {
    most: usize,
    known: HashSet<T>,
    order: VecDeque<T>,
}

impl<T: Copy + Eq + Hash> Remembered<T> {
    /// Remembers nothing yet, and never more than `most`.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            known: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether this one was seen.
    pub fn contains(&self, seen: &T) -> bool {
        self.known.contains(seen)
    }

    /// Sees this one; false if it was seen before.
    pub fn insert(&mut self, seen: T) -> bool {
        if !self.known.insert(seen) {
            return false;
        }
        self.order.push_back(seen);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// A rate with a burst that fills again as fast as it may be spent.
#[derive(Debug)]
pub struct Bucket {
    per_s: u64,
    burst: u64,
    /// Thousandths of what may be taken.
    level: u64,
    filled: Millis,
}

impl Bucket {
    /// A full one.
    pub const fn new(per_s: u64, burst: u64, now: Millis) -> Self {
        Self {
            per_s,
            burst,
            level: burst * 1_000,
            filled: now,
        }
    }

    /// Takes one; false if there is none.
    pub fn take(&mut self, now: Millis) -> bool {
        let filled = now.since(self.filled).saturating_mul(self.per_s);
        self.level = self.level.saturating_add(filled).min(self.burst * 1_000);
        // A clock that was set back fills it again from where it stands.
        self.filled = now;
        match self.level.checked_sub(1_000) {
            Some(level) => {
                self.level = level;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000_000_000);

    #[test]
    fn a_flood_is_cut_to_the_rate() {
        let mut bucket = Bucket::new(20, 40, NOW);
        let taken = |bucket: &mut Bucket, now| (0..1_000).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, NOW), 40);
        assert_eq!(taken(&mut bucket, NOW.plus(1_000)), 20);
        assert_eq!(
            taken(&mut bucket, NOW.plus(999)),
            0,
            "a clock that goes back fills nothing"
        );
        assert_eq!(
            taken(&mut bucket, NOW.plus(1_999)),
            20,
            "and fills it from there on"
        );
    }

    #[test]
    fn only_the_latest_are_remembered() {
        let mut remembered = Remembered::new(2);
        assert!(remembered.insert(1) && remembered.insert(2));
        assert!(!remembered.insert(1));
        assert!(remembered.insert(3));
        assert!(!remembered.contains(&1) && remembered.contains(&3));
    }
}
