//! How much work (NIP-13) is asked of keys without standing.
//!
//! They have a small share together for which none is asked. Once it is used up, standing costs a number of bits, and
//! each bit doubles the price. The price rises, by one bit a second at most, while more standing is bought than
//! `standings_per_second`, each counted by what was paid for it against what it costs now: so it follows the work that
//! is really done, and whoever wants it high must pay that price. It rises as well while those who bought standing have
//! more stored than `stored_per_second`, or send more than half of the events that the relay takes in all, but by that
//! only half of the way. It falls by one bit in half a minute. Only what was accepted counts: a flood of refused events
//! changes nothing.

use std::time::Duration;

use super::bucket::{Account, Flows};
use crate::options::Work;

/// Seconds for which what was asked is still enough: it takes a while to do the work.
const GRACE_SECS: usize = 30;

/// Bits by which the price falls in a second.
const FALL: f64 = 1.0 / 30.0;

/// How much the latest second weighs in what counts: one busy second among quiet ones is no load.
const LATEST: f64 = 0.3;

/// Seconds after which nothing is left of what counted.
const FORGOTTEN_SECS: u64 = 120;

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
    /// What came in a second lately.
    lately: Counts,
    /// What was asked in the latest seconds, each at its number modulo their number.
    asked: [u8; GRACE_SECS],
}

/// What those who worked did.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    /// Standing that was bought, each in hashes that it cost.
    standings: f64,
    /// Events that came.
    events: f64,
    /// Bytes that were stored.
    stored: f64,
}

impl Load {
    /// At rest. `events_per_second` is what the relay takes in all; 0 is no bound.
    pub fn new(work: Work, events_per_second: u64) -> Self {
        let level = floor(&work);
        Self {
            most: Counts {
                standings: work.standings_per_second as f64,
                events: events_per_second as f64 / 2.0,
                stored: work.stored_per_second as f64,
            },
            free: Account::default(),
            level: f64::from(level),
            second: 0,
            came: Counts::default(),
            lately: Counts::default(),
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
        self.came.events += 1.0;
        self.came.stored += stored as f64;
    }

    /// A key bought standing by so many bits.
    pub fn bought(&mut self, bits: u8, now: Duration) {
        let price = self.price(now);
        // Whoever pays more than is asked makes nothing dearer by it.
        self.came.standings += f64::from(bits.min(price)).exp2();
    }

    fn share(&self) -> Flows {
        self.work.free.into()
    }

    /// Closes the seconds that are over, and sets the price by what came in them.
    fn count_to(&mut self, now: Duration) {
        let over = now.as_secs().saturating_sub(self.second);
        for _ in 0..over.min(FORGOTTEN_SECS) {
            self.close_second();
        }
        let idle = over.saturating_sub(FORGOTTEN_SECS);
        self.set(self.level - idle as f64 * FALL);
        self.second += idle;
    }

    fn close_second(&mut self) {
        let weigh = |lately: f64, came: f64| lately + LATEST * (came - lately);
        let (came, lately) = (self.came, self.lately);
        self.lately = Counts {
            standings: weigh(lately.standings, came.standings),
            events: weigh(lately.events, came.events),
            stored: weigh(lately.stored, came.stored),
        };
        self.came = Counts::default();
        self.set(self.level + self.rise());
        self.second += 1;
        self.asked[self.second as usize % GRACE_SECS] = self.level.round() as u8;
    }

    fn set(&mut self, level: f64) {
        let (least, most) = (floor(&self.work), self.work.max_bits);
        self.level = level.clamp(f64::from(least), f64::from(most));
    }

    /// By how many bits the price changes for the second that ends.
    fn rise(&self) -> f64 {
        let half_way = f64::from(floor(&self.work) + self.work.max_bits) / 2.0;
        let (came, most) = (self.lately, self.most);
        let work = share(came.standings, most.standings * self.level.exp2());
        let load = share(came.events, most.events).max(share(came.stored, most.stored));
        let by_load = match load > 1.0 && self.level + load.log2() > half_way {
            true => (half_way - self.level).max(0.0),
            false => change(load),
        };
        change(work).max(by_load).min(1.0)
    }
}

/// By how many bits a bound of which so much is used changes the price.
fn change(used: f64) -> f64 {
    match used {
        above if above > 1.0 => above.log2(),
        below if below < 0.5 => -FALL,
        _ => 0.0,
    }
}

/// How much of a bound was used; nothing where there is none.
fn share(came: f64, most: f64) -> f64 {
    match most > 0.0 {
        true => came / most,
        false => 0.0,
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

    /// Buys standing for so many keys in a second, at the price that is enough.
    fn buy(load: &mut Load, second: u64, keys: u64) {
        let bits = load.price(at(second));
        (0..keys).for_each(|_| load.bought(bits, at(second)));
    }

    #[test]
    fn many_who_buy_standing_raise_its_price_and_it_falls_slowly() {
        let mut load = load();
        for second in 0..60 {
            buy(&mut load, second, 5);
            assert_eq!(load.price(at(second)), 16, "as many as may");
        }
        buy(&mut load, 70, 15);
        assert_eq!(load.price(at(80)), 16, "one busy second");
        for second in 80..84 {
            buy(&mut load, second, 1_000);
        }
        assert_eq!(load.price(at(84)), 20, "one bit a second");
        assert_eq!(load.enough(at(84)), 16, "what was asked while they worked");
        for second in 84..110 {
            buy(&mut load, second, 1_000);
        }
        assert_eq!(load.price(at(110)), 24, "never more");
        assert_eq!(load.price(at(170)), 23);
        assert_eq!(load.price(at(10_000)), 16);
    }

    #[test]
    fn the_price_follows_the_work_that_is_done() {
        // So many hashes a second; five standings a second for them cost 2^19.6 each.
        const HASHES: f64 = 4_000_000.0;
        let (mut load, mut highest) = (load(), 0);
        for second in 0..1_000 {
            let bits = load.enough(at(second));
            let keys = HASHES / f64::from(bits).exp2();
            (0..keys as u64).for_each(|_| load.bought(bits, at(second)));
            highest = highest.max(load.price(at(second)));
        }
        assert!((19..=21).contains(&highest), "{highest}");
    }

    #[test]
    fn a_flood_by_those_who_worked_raises_the_price_half_of_the_way() {
        let flood = |events: u32, stored: u64| {
            let mut load = load();
            for second in 0..100 {
                (0..events).for_each(|_| load.accepted_worked(stored, at(second)));
            }
            load.price(at(100))
        };
        assert_eq!(flood(9_000, 0), 16);
        assert_eq!(flood(15_000, 0), 20);
        assert_eq!(flood(100, 1_000), 16);
        assert_eq!(flood(100, 40_000), 20, "few, but large");
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
