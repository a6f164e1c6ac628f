//! Many durations, and what stands in a table of them.

use std::fmt;
use std::time::Duration;

/// The value below which so many of a thousand lie; of sorted ones.
pub fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    match sorted.len() {
        0 => Duration::ZERO,
        count => sorted[(count - 1) * per_mille / 1_000],
    }
}

/// Durations, shown as median and 99th percentile in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// These durations.
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.0.len()
    }

    /// The value below which so many of a thousand lie.
    pub fn at(&self, per_mille: usize) -> Duration {
        percentile(&self.0, per_mille)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |per_mille| self.at(per_mille).as_secs_f64() * 1_000.0;
        write!(f, "{:8.2} {:8.2}", ms(500), ms(990))
    }
}
