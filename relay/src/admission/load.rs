//! How much work (NIP-13) is asked of keys without standing.
//!
//! They have a small share together for which none is asked. Once it is used up, standing costs a number of bits, and
//! each bit doubles the price. The price rises while more keys buy standing than `standings_per_second`, or while those
//! who bought it have more stored than `stored_per_second`, or send more than half of the events that the relay takes
//! in all, by one bit a second at most; it falls by one bit in half a minute. Only what was accepted counts: a flood of refused events changes nothing.

use std::time::Duration;

use super::bucket::{Account, Flows};
use crate::options::Work;

/// Seconds for which what was asked is still enough: it takes a while to do the work.
const GRACE_SECS: usize = 30;

/// Bits by which the price falls in a second.
const FALL: f64 = 1.0 / 30.0;

/// The demand on the share without work, and the price of standing.
#[derive(Debug)]
pub struct Load {
    work: Work,
    /// What may come in a second before more bits are asked.
    most: Counts,
    free: Account,
    level: f64,
    /// The second that is counted.
    second: u64,
    /// What came in it.
    came: Counts,
    /// What was asked in the latest seconds, each at its number modulo their number.
    asked: [u8; GRACE_SECS],
}

/// What those who worked did.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    standings: u64,
    events: u64,
    stored: u64,
}

impl Load {
    /// At rest. `events_per_second` is what the relay takes in all; 0 is no bound.
    pub fn new(work: Work, events_per_second: u64) -> Self {
        let level = floor(&work);
        Self {
            most: Counts {
                standings: work.standings_per_second,
                events: events_per_second / 2,
                stored: work.stored_per_second,
            },
            free: Account::default(),
            level: f64::from(level),
            second: 0,
            came: Counts::default(),
            asked: [level; GRACE_SECS],
            work,
        }
    }

    /// Whether work is never asked.
    pub fn is_off(&self) -> bool {
        self.work.max_bits == 0
    }

    /// Bits asked for an event of so many bytes by a key without standing; 0 while the share without work lasts.
    pub fn asked(&mut self, bytes: u64, now: Duration) -> u8 {
        let has_left = || self.free.has(self.share(), bytes, now).is_ok();
        let is_free = self.work.min_bits == 0 && has_left();
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
    pub fn accepted_free(&mut self, bytes: u64, now: Duration) {
        self.free.take(self.share(), bytes, now);
    }

    /// An event of a key that bought its standing was accepted, of which so many bytes are stored.
    pub fn accepted_worked(&mut self, stored: u64, now: Duration) {
        self.count_to(now);
        self.came.events += 1;
        self.came.stored += stored;
    }

    /// A key bought standing.
    pub fn bought(&mut self, now: Duration) {
        self.count_to(now);
        self.came.standings += 1;
    }

    fn share(&self) -> Flows {
        self.work.free.into()
    }

    /// Closes the seconds that are over, and sets the price by what came in them.
    fn count_to(&mut self, now: Duration) {
        let second = now.as_secs();
        if second <= self.second {
            return;
        }
        self.level += self.rise();
        self.came = Counts::default();
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
        let (came, most) = (self.came, self.most);
        let pressure = share(came.standings, most.standings)
            .max(share(came.events, most.events))
            .max(share(came.stored, most.stored));
        match pressure {
            above if above > 1.0 => above.log2().min(1.0),
            below if below < 0.5 => -FALL,
            _ => 0.0,
        }
    }
}

/// How much of a bound was used; nothing where there is none.
fn share(came: u64, most: u64) -> f64 {
    match most {
        0 => 0.0,
        most => came as f64 / most as f64,
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
        assert_eq!(load.asked(500, at(1)), 0);
        for _ in 0..10_000 {
            load.accepted_free(500, at(1));
        }
        assert_eq!(load.asked(500, at(1)), 16);
        assert_eq!(load.asked(500, at(2)), 0, "twenty more in the next second");
        for _ in 0..20 {
            load.accepted_free(500, at(2));
        }
        assert_eq!(load.asked(500, at(2)), 16);
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
            (0..15_000).for_each(|_| load.accepted_worked(0, at(second)));
        }
        // log2(1.5) in each of three seconds.
        assert_eq!(load.price(at(3)), 18);
        for second in 3..6 {
            load.accepted_worked(4 << 20, at(second));
        }
        assert_eq!(load.price(at(6)), 21, "few, but large");
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
        assert_eq!(off.asked(500, at(1)), 0);
        let always = Work {
            min_bits: 12,
            ..Work::default()
        };
        assert_eq!(Load::new(always, 0).asked(500, at(1)), 12);
        let little = Work {
            min_bits: 12,
            max_bits: 8,
            ..Work::default()
        };
        assert_eq!(Load::new(little, 0).asked(500, at(1)), 8);
    }
}
