//! How fast one connection is read.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A steady rate, with a burst that fills again as fast as it may be spent.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    burst: Duration,
    /// When all that was taken so far would have come at the steady rate.
    due: Instant,
    wait: Pin<Box<Sleep>>,
}

impl Pace {
    /// So many a second, and so many at once.
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

    /// Counts what came.
    pub fn spend(&mut self, count: u32) {
        let now = Instant::now();
        self.due = self.due.max(now) + self.interval * count;
        let resume = self.due.checked_sub(self.burst).unwrap_or(self.due);
        // Within the burst nothing is waited for, and a timer need not be told.
        if resume > now || !self.wait.is_elapsed() {
            self.wait.as_mut().reset(resume);
        }
    }

    /// Is ready when the next may come.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.wait.is_elapsed() {
            return Poll::Ready(());
        }
        self.wait.as_mut().poll(context)
    }

    /// Waits until the next may come.
    pub async fn ready(&mut self) {
        std::future::poll_fn(|context| self.poll_ready(context)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let mut pace = Pace::new(10, 5);
        let began = Instant::now();
        for _ in 0..5 {
            pace.ready().await;
            pace.spend(1);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            pace.ready().await;
            pace.spend(1);
        }
        let took = began.elapsed().as_secs_f64();
        assert!((9.5..=10.5).contains(&took), "took {took} s");
        // What was not used is there again, and no more than the burst.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..6 {
            pace.ready().await;
            pace.spend(1);
        }
        assert!(began.elapsed() <= Duration::from_millis(110));
        pace.ready().await;
        assert!(began.elapsed() >= Duration::from_millis(90));
    }
}
