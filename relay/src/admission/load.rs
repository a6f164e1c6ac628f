//! How much work (NIP-13) is asked of keys without standing.
//!
//! They have a small share together for which none is asked. Once it is used up, standing costs a number of bits, and
//! each bit doubles the price. The price rises while more keys buy standing than `standings_per_second`, or while those
//! who bought it send more than half of what the relay takes in all, by one bit a second at most; it falls by one bit
//! in half a minute. Only what was accepted counts: a flood of refused events changes nothing.

use std::time::Duration;

use super::bucket::{Bucket, Flow};
use crate::options::Work;

/// Seconds for which what was asked is still enough: it takes a while to do the work.
const GRACE_SECS: usize = 30;

/// Bits by which the price falls in a second.
const FALL: f64 = 1.0 / 30.0;

/// The demand on the share without work, and the price of standing.
#[derive(Debug)]
pub struct Load {
    work: Work,
    /// Events a second by those who worked, from which on more bits are asked.
    worked_most: f64,
    free: Bucket,
    level: f64,
    /// The second that is counted.
    second: u64,
    standings: f64,
    worked: f64,
    /// What was asked in the latest seconds, each at its number modulo their number.
    asked: [u8; GRACE_SECS],
}

impl Load {
    /// At rest. `events_per_second` is what the relay takes in all; 0 is no bound.
    pub fn new(work: Work, events_per_second: u64) -> Self {
        let level = floor(&work);
        Self {
            worked_most: match events_per_second {
                0 => f64::INFINITY,
                bound => bound as f64 / 2.0,
            },
            free: Bucket::default(),
            level: f64::from(level),
            second: 0,
            standings: 0.0,
            worked: 0.0,
            asked: [level; GRACE_SECS],
            work,
        }
    }

    /// Whether work is never asked.
    pub fn is_off(&self) -> bool {
        self.work.max_bits == 0
    }

    /// Bits asked of a key without standing at this moment; 0 while the share without work lasts.
    pub fn asked(&mut self, now: Duration) -> u8 {
        let is_free = self.work.min_bits == 0 && self.free.has(self.share(), 1, now).is_ok();
        match self.is_off() || is_free {
            true => 0,
            false => self.price(now),
        }
    }

    /// Bits for which a key earns standing, whether or not it needs any.
    pub fn price(&mut self, now: Duration) -> u8 {
        self.count_to(now);
        self.level.round() as u8
    }

    /// The fewest bits that are enough: as many as were asked at some time of the last half minute.
    pub fn enough(&mut self, now: Duration) -> u8 {
        let price = self.price(now);
        self.asked.iter().copied().min().unwrap_or(price).min(price)
    }

    /// An event of a key without standing was accepted.
    pub fn accepted_free(&mut self, now: Duration) {
        self.free.take(self.share(), 1, now);
    }

    /// An event of a key that bought its standing was accepted.
    pub fn accepted_worked(&mut self, now: Duration) {
        self.count_to(now);
        self.worked += 1.0;
    }

    /// A key bought standing.
    pub fn bought(&mut self, now: Duration) {
        self.count_to(now);
        self.standings += 1.0;
    }

    fn share(&self) -> Flow {
        self.work.free.into()
    }

    /// Closes the seconds that are over, and sets the price by what came in them.
    fn count_to(&mut self, now: Duration) {
        let second = now.as_secs();
        if second <= self.second {
            return;
        }
        self.level += self.rise();
        (self.standings, self.worked) = (0.0, 0.0);
        // In the seconds between the two nothing came.
        let idle = second - self.second - 1;
        self.level -= idle as f64 * FALL;
        let (least, most) = (floor(&self.work), self.work.max_bits);
        self.level = self.level.clamp(f64::from(least), f64::from(most));
        let asked = self.level.round() as u8;
        for closed in self.second + 1 + idle.saturating_sub(GRACE_SECS as u64)..=second {
            self.asked[closed as usize % GRACE_SECS] = asked;
        }
        self.second = second;
    }

    /// By how many bits the price changes for the second that ends.
    fn rise(&self) -> f64 {
        let standings = self.standings / f64::from(self.work.standings_per_second.max(1));
        let pressure = standings.max(self.worked / self.worked_most);
        match pressure {
            above if above > 1.0 => above.log2().min(1.0),
            below if below < 0.5 => -FALL,
            _ => 0.0,
        }
    }
}

/// The price at rest.
fn floor(work: &Work) -> u8 {
    let least = match work.min_bits {
        0 => work.first_bits,
        least => least,
    };
    least.min(work.max_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn load() -> Load {
        Load::new(Work::default(), 20_000)
    }

    #[test]
    fn nothing_is_asked_at_rest_and_sixteen_bits_when_the_share_is_used_up() {
        let mut load = load();
        assert_eq!(load.asked(at(1)), 0);
        for _ in 0..10_000 {
            load.accepted_free(at(1));
        }
        assert_eq!(load.asked(at(1)), 16);
        assert_eq!(load.asked(at(2)), 0, "fifty more in the next second");
        for _ in 0..50 {
            load.accepted_free(at(2));
        }
        assert_eq!(load.asked(at(2)), 16);
    }

    #[test]
    fn many_who_buy_standing_raise_its_price_and_it_falls_slowly() {
        let mut load = load();
        let buy = |load: &mut Load, second, keys| (0..keys).for_each(|_| load.bought(at(second)));
        for second in 0..60 {
            buy(&mut load, second, 5);
            assert_eq!(load.price(at(second)), 16, "as many as may");
        }
        for second in 60..64 {
            buy(&mut load, second, 1_000);
        }
        assert_eq!(load.price(at(64)), 20, "one bit a second");
        assert_eq!(load.enough(at(64)), 16, "what was asked while they worked");
        for second in 64..100 {
            buy(&mut load, second, 1_000);
        }
        assert_eq!(load.price(at(100)), 24, "never more");
        assert_eq!(load.enough(at(100)), 24);
        assert_eq!(load.price(at(131)), 23);
        assert_eq!(load.price(at(400)), 16);
    }

    #[test]
    fn a_flood_by_those_who_worked_raises_the_price_for_others() {
        let mut load = load();
        for second in 0..3 {
            (0..15_000).for_each(|_| load.accepted_worked(at(second)));
        }
        // log2(1.5) in each of three seconds.
        assert_eq!(load.price(at(3)), 18);
    }

    #[test]
    fn the_operator_bounds_it() {
        let off = Work {
            max_bits: 0,
            min_bits: 9,
            ..Work::default()
        };
        let mut off = Load::new(off, 0);
        assert!(off.is_off());
        assert_eq!(off.asked(at(1)), 0);
        let always = Work {
            min_bits: 12,
            ..Work::default()
        };
        assert_eq!(Load::new(always, 0).asked(at(1)), 12);
        let little = Work {
            min_bits: 12,
            max_bits: 8,
            ..Work::default()
        };
        assert_eq!(Load::new(little, 0).asked(at(1)), 8);
    }
}
