//! How long an attempt has waited for its buyer while it held a slot.

use std::time::Duration;

use tokio::time::Instant;

/// How long in all: a buyer that pays or acknowledges a token just before each
/// wait is over would hold the slot for hours.
const MOST: Duration = Duration::from_secs(5 * 60);

/// The pauses of an attempt.
#[derive(Debug, Default)]
pub struct Pauses {
    since: Option<Instant>,
    /// How long those that are over have been.
    before: Duration,
    were_any: bool,
}

impl Pauses {
    /// It waits from now on.
    pub fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.were_any = true;
    }

    /// It goes on.
    pub fn end(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.before += now.saturating_duration_since(since);
        }
    }

    /// How much longer it may wait, if it waits.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let since = self.since?;
        let waited = self.before + now.saturating_duration_since(since);
        Some(MOST.saturating_sub(waited))
    }

    /// Whether it has ever waited.
    pub const fn were_any(&self) -> bool {
        self.were_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_pauses_add_up() {
        let (mut pauses, mut now) = (Pauses::default(), Instant::now());
        assert_eq!((pauses.left(now), pauses.were_any()), (None, false));
        for round in 1..=10 {
            pauses.begin(now);
            now += Duration::from_secs(59);
            let left = MOST.saturating_sub(Duration::from_secs(59 * round));
            assert_eq!(pauses.left(now), Some(left));
            pauses.end(now);
            assert_eq!(pauses.left(now), None, "it runs");
            now += Duration::from_secs(1_000);
        }
        pauses.begin(now);
        assert_eq!(pauses.left(now), Some(Duration::ZERO));
    }
}
