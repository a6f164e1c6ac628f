//! A stretch of time, cut into windows of which each fits into memory, here and at the other relay.

use nostr::{Filter, Timestamp};

/// The seconds from `since` to `until`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first second.
    pub since: Timestamp,
    /// The last second.
    pub until: Timestamp,
}

impl Window {
    /// `filter` within this window.
    pub fn of(self, filter: &Filter) -> Filter {
        filter.clone().since(self.since).until(self.until)
    }

    /// Whether it cannot be cut further.
    pub fn is_one_second(self) -> bool {
        self.since >= self.until
    }

    /// The older and the newer half; nothing of a single second.
    fn halves(self) -> Option<[Self; 2]> {
        if self.is_one_second() {
            return None;
        }
        let (since, until) = (self.since.as_secs(), self.until.as_secs());
        let middle = since + (until - since) / 2;
        let window = |since, until| Self {
            since: Timestamp::from_secs(since),
            until: Timestamp::from_secs(until),
        };
        Some([window(since, middle), window(middle + 1, until)])
    }
}

/// The windows still to come, newest first: what is newest is missed most.
#[derive(Debug)]
pub struct Windows {
    ahead: Vec<Window>,
}

impl Windows {
    /// The whole stretch that `filter` asks for, up to `now` where it says nothing, as one window.
    pub fn over(filter: &Filter, now: Timestamp) -> Self {
        let whole = Window {
            since: filter.since.unwrap_or(Timestamp::zero()),
            until: filter.until.unwrap_or(now),
        };
        let ahead = match whole.since <= whole.until {
            true => vec![whole],
            false => Vec::new(),
        };
        Self { ahead }
    }

    /// Comes back to a window in two halves. False if it is a single second, which has none.
    pub fn halve(&mut self, window: Window) -> bool {
        let Some(halves) = window.halves() else {
            return false;
        };
        self.ahead.extend(halves);
        true
    }

    /// Comes back to a window as it is.
    pub fn again(&mut self, window: Window) {
        self.ahead.push(window);
    }
}

impl Iterator for Windows {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        self.ahead.pop()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// Goes through the windows of a set of instants, none of which has more than `most`, and answers them in order.
    fn walk(instants: &[u64], filter: &Filter, now: u64, most: usize) -> Vec<Window> {
        let mut windows = Windows::over(filter, Timestamp::from_secs(now));
        let mut walked = Vec::new();
        while let Some(window) = windows.next() {
            let is_inside = |instant: &&u64| {
                (window.since.as_secs()..=window.until.as_secs()).contains(*instant)
            };
            let is_full = instants.iter().filter(is_inside).count() > most;
            if !is_full || !windows.halve(window) {
                walked.push(window);
            }
        }
        walked
    }

    proptest! {
        #[test]
        fn windows_cover_the_stretch_once_and_none_is_too_full(
            instants in prop::collection::vec(0_u64..5_000, 0..200),
            since in prop::option::of(0_u64..6_000),
            until in prop::option::of(0_u64..6_000),
            now in 0_u64..6_000,
            most in 1_usize..20,
        ) {
            let mut filter = Filter::new();
            filter.since = since.map(Timestamp::from_secs);
            filter.until = until.map(Timestamp::from_secs);
            let walked = walk(&instants, &filter, now, most);
            let (first, last) = (since.unwrap_or(0), until.unwrap_or(now));
            let mut expected_end = last;
            for window in &walked {
                prop_assert_eq!(window.until.as_secs(), expected_end, "newest first, without a gap");
                prop_assert!(window.since <= window.until);
                let inside = instants
                    .iter()
                    .filter(|instant| (window.since.as_secs()..=window.until.as_secs()).contains(instant))
                    .count();
                prop_assert!(inside <= most || window.since == window.until);
                expected_end = window.since.as_secs().wrapping_sub(1);
            }
            match walked.last() {
                Some(oldest) => prop_assert_eq!(oldest.since.as_secs(), first),
                None => prop_assert!(first > last),
            }
        }
    }

    #[test]
    fn the_whole_of_time_can_be_halved_down_to_a_second() {
        let mut windows = Windows::over(&Filter::new(), Timestamp::max());
        let mut halvings = 0;
        let last = loop {
            let window = windows.next().unwrap();
            if !windows.halve(window) {
                break window;
            }
            halvings += 1;
        };
        assert_eq!((last.since, halvings), (Timestamp::max(), 64));
    }
}
