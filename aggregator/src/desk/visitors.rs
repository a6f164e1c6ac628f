//! How often a key may ask.

use std::collections::HashMap;

use nostr::PublicKey;
use tokio::time::{Duration, Instant};

/// Questions that a key may ask at once.
const BURST: f64 = 40.0;

/// Questions a second that it may go on asking: it has some groups under way and asks
/// how each stands.
const PER_SECOND: f64 = 10.0;

/// Questions that all keys together may ask at once, and a second: a fresh key costs
/// nothing.
const ALL_BURST: f64 = 1_000.0;
const ALL_PER_SECOND: f64 = 500.0;

/// Keys that are remembered.
const MAX_KEYS: usize = 4_096;

/// Who asked how often.
#[derive(Debug)]
pub(super) struct Visitors {
    keys: HashMap<PublicKey, Bucket>,
    all: Bucket,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    const fn new(left: f64, at: Instant) -> Self {
        Self { left, at }
    }

    fn take(&mut self, now: Instant, per_second: f64, most: f64) -> bool {
        let gained = now.duration_since(self.at).as_secs_f64() * per_second;
        self.left = (self.left + gained).min(most);
        self.at = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

impl Visitors {
    /// Nobody has asked yet.
    pub fn new(now: Instant) -> Self {
        Self {
            keys: HashMap::new(),
            all: Bucket::new(ALL_BURST, now),
        }
    }

    /// Counts a question; whether it is answered.
    pub fn may_ask(&mut self, key: &PublicKey, now: Instant) -> bool {
        if self.keys.len() >= MAX_KEYS && !self.keys.contains_key(key) {
            self.forget(now);
        }
        let bucket = self.keys.entry(*key);
        let bucket = bucket.or_insert_with(|| Bucket::new(BURST, now));
        bucket.take(now, PER_SECOND, BURST) && self.all.take(now, ALL_PER_SECOND, ALL_BURST)
    }

    /// Forgets whoever could ask as often as a stranger by now.
    fn forget(&mut self, now: Instant) {
        let full = Duration::from_secs_f64(BURST / PER_SECOND);
        self.keys
            .retain(|_, bucket| now.duration_since(bucket.at) < full);
        if self.keys.len() >= MAX_KEYS {
            // That many in so short a time are no buyers.
            self.keys.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use nostr::Keys;

    use super::*;

    #[test]
    fn who_asks_too_often_waits() {
        let now = Instant::now();
        let mut visitors = Visitors::new(now);
        let key = Keys::generate().public_key();
        let asked = (0..100).filter(|_| visitors.may_ask(&key, now)).count();
        assert_eq!(asked, BURST as usize);
        assert!(visitors.may_ask(&Keys::generate().public_key(), now));
        let later = now + Duration::from_secs(1);
        let asked = (0..100).filter(|_| visitors.may_ask(&key, later)).count();
        assert_eq!(asked, PER_SECOND as usize);
    }
}
