//! How fast one connection is read.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How fast messages are taken: a steady rate, with a burst that fills again as fast as it may be spent.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    burst: Duration,
    /// When all that was taken so far would have come at the steady rate.
    due: Instant,
    wait: Pin<Box<Sleep>>,
}

impl Pace {
    /// So many messages a second, and so many at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        let now = Instant::now();
        Self {
            interval,
            burst: interval * burst,
            due: now,
            wait: Box::pin(sleep_until(now)),
        }
    }

    /// Counts messages that came.
    pub fn spend(&mut self, messages: u32) {
        self.due = self.due.max(Instant::now()) + self.interval * messages;
        let resume = self.due.checked_sub(self.burst).unwrap_or(self.due);
        self.wait.as_mut().reset(resume);
    }

    /// Is ready when the next message may come.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.wait.as_mut().poll(context)
    }
}
