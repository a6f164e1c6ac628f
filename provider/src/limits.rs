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
        self.take_many(1, now)
    }

    /// Takes so many at once; false if there are fewer, and none is taken.
    pub fn take_many(&mut self, many: u64, now: Millis) -> bool {
        let filled = now.since(self.filled).saturating_mul(self.per_s);
        self.level = self.level.saturating_add(filled).min(self.burst * 1_000);
        // A clock that was set back fills it again from where it stands.
        self.filled = now;
        match self.level.checked_sub(many.saturating_mul(1_000)) {
            Some(level) => {
                self.level = level;
                true
            }
            None => false,
        }
    }
}

/// A rate for those who have paid here, and one for everybody else: a flood of
/// strangers takes nothing from a customer.
#[derive(Debug)]
pub struct Doors {
    customers: Bucket,
    strangers: Bucket,
}

impl Doors {
    /// Both open, and as wide.
    pub const fn new(per_s: u64, burst: u64, now: Millis) -> Self {
        Self {
            customers: Bucket::new(per_s, burst, now),
            strangers: Bucket::new(per_s, burst, now),
        }
    }

    /// Lets one in that counts as so many; false if too many have come.
    pub fn take(&mut self, is_customer: bool, weight: u64, now: Millis) -> bool {
        match is_customer {
            true => self.customers.take_many(weight, now),
            false => self.strangers.take_many(weight, now),
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
    fn a_flood_of_strangers_takes_nothing_from_customers() {
        let mut doors = Doors::new(10, 40, NOW);
        let strangers = (0..1_000).filter(|_| doors.take(false, 2, NOW)).count();
        assert_eq!(strangers, 20);
        let customers = (0..1_000).filter(|_| doors.take(true, 1, NOW)).count();
        assert_eq!(customers, 40);
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
