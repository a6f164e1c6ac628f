//! The one place that reads the wall clock.
//!
//! Everything that decides takes the time as an argument; only the outermost loop of a process asks here.

use std::time::{SystemTime, UNIX_EPOCH};

use nostr::Timestamp;

/// Seconds since the Unix epoch, as events carry them.
pub fn now() -> Timestamp {
    Timestamp::from_secs(unix_ms() / 1_000)
}

/// Milliseconds since the Unix epoch; 0 on a machine whose clock stands before 1970.
pub fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_milliseconds_agree() {
        let before = unix_ms() / 1_000;
        let seconds = now().as_secs();
        let after = unix_ms() / 1_000;
        assert!((before..=after).contains(&seconds));
        assert!(seconds > 1_700_000_000, "milliseconds taken for seconds");
    }
}
