//! How much of something may still come: buckets that fill at a steady rate.

use std::time::Duration;

use crate::options::{Rate, Share};

/// How fast a bucket fills, and how much is in a full one.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    per_second: f64,
    burst: f64,
}

impl Flow {
    /// So much an hour, all of which may come at once.
    pub fn hourly(amount: u64) -> Self {
        Self {
            per_second: amount as f64 / 3_600.0,
            burst: amount as f64,
        }
    }

    /// So many times as much.
    pub fn times(self, factor: u32) -> Self {
        Self {
            per_second: self.per_second * f64::from(factor),
            burst: self.burst * f64::from(factor),
        }
    }

    /// As fast, but for those who must leave a quarter of what is there.
    pub fn without_reserve(self) -> Self {
        Self {
            burst: self.burst * 0.75,
            ..self
        }
    }

    fn seconds(self, amount: f64) -> f64 {
        amount / self.per_second
    }

    fn is_unbounded(self) -> bool {
        self.per_second <= 0.0
    }
}

impl From<Rate> for Flow {
    fn from(rate: Rate) -> Self {
        Self {
            per_second: rate.per_second as f64,
            burst: rate.burst.max(1) as f64,
        }
    }
}

/// What was taken of a share that fills again steadily. It is eight bytes, and full as long as nothing was taken.
#[derive(Debug, Default, Clone, Copy)]
pub struct Bucket {
    /// When all that was taken would have come at the steady rate, in seconds.
    due: f64,
}

impl Bucket {
    /// Whether `amount` may be taken at `now`. What is larger than the whole bucket counts as the whole bucket.
    ///
    /// # Errors
    /// With the time to wait.
    pub fn has(self, flow: Flow, amount: u64, now: Duration) -> Result<(), Duration> {
        if flow.is_unbounded() {
            return Ok(());
        }
        let excess = self.after(flow, amount, now) - now.as_secs_f64() - flow.seconds(flow.burst);
        // Sums of fractions are not exact: a millionth of a second is no excess.
        match excess > 1e-6 {
            true => Err(Duration::from_secs_f64(excess)),
            false => Ok(()),
        }
    }

    /// Takes `amount`, whether it is there or not: ask [`Bucket::has`] before.
    pub fn take(&mut self, flow: Flow, amount: u64, now: Duration) {
        if !flow.is_unbounded() {
            self.due = self.after(flow, amount, now);
        }
    }

    fn after(self, flow: Flow, amount: u64, now: Duration) -> f64 {
        let amount = (amount as f64).min(flow.burst);
        self.due.max(now.as_secs_f64()) + flow.seconds(amount)
    }
}

/// How fast events may come, and their bytes.
#[derive(Debug, Clone, Copy)]
pub struct Flows {
    events: Flow,
    bytes: Flow,
}

impl From<Share> for Flows {
    fn from(share: Share) -> Self {
        Self {
            events: share.events.into(),
            bytes: share.bytes.into(),
        }
    }
}

impl Flows {
    /// As [`Flow::without_reserve`], of both.
    pub fn without_reserve(self) -> Self {
        Self {
            events: self.events.without_reserve(),
            bytes: self.bytes.without_reserve(),
        }
    }
}

/// What was taken of a share of events and bytes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Account {
    events: Bucket,
    bytes: Bucket,
}

impl Account {
    /// Whether an event of so many bytes may come.
    ///
    /// # Errors
    /// With the time to wait.
    pub fn has(self, share: Flows, bytes: u64, now: Duration) -> Result<(), Duration> {
        let events = self.events.has(share.events, 1, now);
        events.and(self.bytes.has(share.bytes, bytes, now))
    }

    /// Takes an event of so many bytes.
    pub fn take(&mut self, share: Flows, bytes: u64, now: Duration) {
        self.events.take(share.events, 1, now);
        self.bytes.take(share.bytes, bytes, now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Flow = Flow {
        per_second: 10.0,
        burst: 20.0,
    };

    fn at(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    #[test]
    fn a_burst_comes_at_once_and_the_rest_steadily() {
        let mut bucket = Bucket::default();
        for _ in 0..20 {
            assert_eq!(bucket.has(RATE, 1, at(5.0)), Ok(()));
            bucket.take(RATE, 1, at(5.0));
        }
        let wait = bucket.has(RATE, 1, at(5.0));
        assert!(wait.is_err_and(|wait| wait.abs_diff(at(0.1)) < at(1e-5)));
        assert_eq!(bucket.has(RATE, 1, at(5.1)), Ok(()));
        assert!(bucket.has(RATE, 2, at(5.1)).is_err());
        assert_eq!(bucket.has(RATE, 20, at(7.0)), Ok(()), "it is full again");
    }

    #[test]
    fn what_is_larger_than_the_bucket_takes_it_whole() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.has(RATE, 1_000, at(1.0)), Ok(()));
        bucket.take(RATE, 1_000, at(1.0));
        assert!(bucket.has(RATE, 1, at(1.0)).is_err());
        assert_eq!(bucket.has(RATE, 1_000, at(3.0)), Ok(()));
    }

    #[test]
    fn nothing_a_second_is_no_bound() {
        let rate = Rate::new(0, 0).into();
        let mut bucket = Bucket::default();
        for _ in 0..1_000 {
            assert_eq!(bucket.has(rate, u64::MAX, at(1.0)), Ok(()));
            bucket.take(rate, u64::MAX, at(1.0));
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            rate in (1_u64..1_000, 1_u64..1_000),
            tries in prop::collection::vec((0.0_f64..0.5, 1_u64..50), 1..300),
        ) {
            let (per_second, burst) = rate;
            let rate = Rate::new(per_second, burst).into();
            let (mut bucket, mut now, mut taken) = (Bucket::default(), 0.0, 0);
            for (pause, amount) in tries {
                now += pause;
                if bucket.has(rate, amount, at(now)).is_ok() {
                    bucket.take(rate, amount, at(now));
                    taken += amount.min(burst);
                }
                let most = burst as f64 + per_second as f64 * now + 1.0;
                prop_assert!(taken as f64 <= most, "{taken} by {now} s");
            }
        }

        #[test]
        fn who_waits_as_told_is_served(
            amounts in prop::collection::vec(1_u64..40, 1..100),
        ) {
            let (mut bucket, mut now) = (Bucket::default(), Duration::ZERO);
            for amount in amounts {
                if let Err(wait) = bucket.has(RATE, amount, now) {
                    now += wait + Duration::from_micros(1);
                }
                prop_assert_eq!(bucket.has(RATE, amount, now), Ok(()));
                bucket.take(RATE, amount, now);
            }
        }
    }
}
