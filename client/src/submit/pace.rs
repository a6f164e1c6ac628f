//! The clock by which a job's patience runs.
//!
//! While no relay is connected nobody can be heard, and that is no provider's fault. So the clock stands still then,
//! and for a moment after, until the provider is heard again or had time to come back too. Only the deadline is not
//! put off.

use infernet_protocol::job::Millis;

/// How long a provider has to come back to a relay after we have: it may be in a pause between two attempts that is
/// as long as the relay was away.
const REJOIN_MS: u64 = 10_000;

/// A clock that can stand still, up to a deadline that does not move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    deadline: u64,
    lag: u64,
    still: Option<Still>,
}

#[derive(Debug, Clone, Copy)]
struct Still {
    since: u64,
    /// When it goes on at the latest; none while no relay is connected.
    until: Option<u64>,
}

impl Pace {
    /// A clock for a job with this deadline, in Unix milliseconds.
    pub const fn new(deadline: u64) -> Self {
        Self {
            deadline,
            lag: 0,
            still: None,
        }
    }

    /// What this clock shows when it really is `real`.
    pub fn at(&self, real: u64) -> Millis {
        if real >= self.deadline {
            return Millis(self.deadline);
        }
        let stood = self
            .still
            .map_or(0, |still| real.saturating_sub(still.since));
        Millis(real.saturating_sub(self.lag + stood))
    }

    /// When it really is `shown` on this clock, at the latest.
    pub fn real(&self, shown: Millis) -> u64 {
        let at = match self.still {
            None => shown.0.saturating_add(self.lag),
            Some(Still {
                until: Some(until), ..
            }) => until,
            Some(Still { until: None, .. }) => self.deadline,
        };
        at.min(self.deadline)
    }

    /// Stands still: the last relay is gone.
    pub fn adrift(&mut self, real: u64) {
        let since = self.still.map_or(real, |still| still.since);
        self.still = Some(Still { since, until: None });
    }

    /// A relay is back: goes on soon.
    pub fn moored(&mut self, real: u64) {
        if let Some(still) = &mut self.still {
            still.until = Some(real.saturating_add(REJOIN_MS));
        }
    }

    /// Goes on: the provider was heard.
    pub fn heard(&mut self, real: u64) {
        if let Some(still) = self.still.take() {
            self.lag += real.saturating_sub(still.since);
        }
    }

    /// Goes on if it has stood still for long enough.
    pub fn tick(&mut self, real: u64) {
        if self
            .still
            .is_some_and(|still| still.until.is_some_and(|until| real >= until))
        {
            self.heard(real);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_without_relays_and_a_moment_longer() {
        let mut pace = Pace::new(100_000);
        assert_eq!(pace.at(1_000), Millis(1_000));
        pace.adrift(2_000);
        assert_eq!(pace.at(9_000), Millis(2_000));
        assert_eq!(pace.real(Millis(2_500)), 100_000);
        pace.moored(9_000);
        assert_eq!(pace.real(Millis(2_500)), 9_000 + REJOIN_MS);
        pace.tick(9_000 + REJOIN_MS);
        assert_eq!(pace.at(9_000 + REJOIN_MS), Millis(2_000));
        assert_eq!(pace.real(Millis(2_500)), 9_500 + REJOIN_MS);
    }

    #[test]
    fn it_goes_on_when_the_provider_is_heard() {
        let mut pace = Pace::new(100_000);
        pace.adrift(2_000);
        pace.moored(5_000);
        pace.heard(5_100);
        assert_eq!(pace.at(5_200), Millis(2_100));
    }

    #[test]
    fn the_deadline_is_not_put_off() {
        let mut pace = Pace::new(10_000);
        pace.adrift(2_000);
        assert_eq!(pace.at(10_000), Millis(10_000));
        pace.moored(9_000);
        assert_eq!(pace.real(Millis(2_500)), 10_000);
        pace.heard(9_500);
        assert_eq!(pace.real(Millis(9_999)), 10_000);
    }

    #[test]
    fn two_relays_lost_in_turn_are_one_standstill() {
        let mut pace = Pace::new(100_000);
        pace.adrift(2_000);
        pace.moored(3_000);
        pace.adrift(3_500);
        pace.tick(14_000);
        assert_eq!(pace.at(14_000), Millis(2_000));
    }
}
