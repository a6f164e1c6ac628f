//! When each event was sent, for those who wait for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::events::Ready;

/// When each of some events was sent.
#[derive(Debug)]
pub struct Sendings {
    began: Instant,
    /// Nanoseconds after it began; 0 is not yet.
    sent: HashMap<u64, AtomicU64>,
}

impl Sendings {
    /// Of these events, none of which is sent yet.
    pub fn new(events: &[Ready]) -> Self {
        let numbers = events.iter().map(|event| event.number);
        Self {
            began: Instant::now(),
            sent: numbers.map(|number| (number, AtomicU64::new(0))).collect(),
        }
    }

    /// Event `number` is about to be sent.
    pub fn now(&self, number: u64) {
        if let Some(sent) = self.sent.get(&number) {
            let nanos = self.began.elapsed().as_nanos();
            sent.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Release);
        }
    }

    /// How long ago event `number` was sent, if it is one of these and was.
    pub fn since(&self, number: u64) -> Option<Duration> {
        let nanos = self.sent.get(&number)?.load(Ordering::Acquire);
        let sent = (nanos > 0).then(|| Duration::from_nanos(nanos))?;
        Some(self.began.elapsed().saturating_sub(sent))
    }
}
