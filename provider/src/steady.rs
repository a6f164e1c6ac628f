//! A clock for waiting: begins with the wall clock, and then goes on by itself,
//! however the wall clock is set meanwhile. Set back by an hour, a clock that
//! pieces and announcements waited for would keep them back for an hour.

use infernet_node::clock;
use infernet_protocol::job::Millis;
use tokio::time::Instant;

/// A clock that never goes back and never jumps.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    began: Millis,
    instant: Instant,
}

impl Steady {
    /// A clock that shows the wall clock's time now.
    pub fn start() -> Self {
        Self {
            began: wall(),
            instant: Instant::now(),
        }
    }

    /// What it shows.
    pub fn now(&self) -> Millis {
        let passed = u64::try_from(self.instant.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.began.plus(passed)
    }
}

/// The wall clock, for what others have dated.
pub fn wall() -> Millis {
    Millis(clock::unix_ms())
}
