//! The two stages of stopping: finish what runs, then stop at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Exit status of a process that was told three times to stop: 128 + SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// Says when to stop, in two stages. Clones are cheap and speak of the same shutdown.
///
/// *Soft*: take no new work, finish what runs, say goodbye. *Hard*: stop at once. Hard implies soft.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    hard: CancellationToken,
    soft: CancellationToken,
}

impl Shutdown {
    /// A shutdown that only [`stop_soon`](Self::stop_soon) and [`stop_now`](Self::stop_now) begin.
    pub fn new() -> Self {
        let hard = CancellationToken::new();
        let soft = hard.child_token();
        Self { hard, soft }
    }

    /// A shutdown that follows SIGINT and SIGTERM: the first is soft (and says so on standard error), the second
    /// hard, and a third ends the process even if it hangs.
    ///
    /// # Errors
    /// When the operating system refuses the signal handlers.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let mut signals = Signals::listen()?;
        let told = shutdown.clone();
        tokio::spawn(async move {
            signals.next().await;
            eprintln!("Stopping: finishing what runs. Once more (Ctrl-C) stops at once.");
            told.stop_soon();
            signals.next().await;
            eprintln!("Stopping at once.");
            told.stop_now();
            signals.next().await;
            std::process::exit(EXIT_INTERRUPTED);
        });
        Ok(shutdown)
    }

    /// Begins the soft stage.
    pub fn stop_soon(&self) {
        self.soft.cancel();
    }

    /// Begins the hard stage, and the soft one with it.
    pub fn stop_now(&self) {
        self.hard.cancel();
    }

    /// Waits for the soft stage.
    pub fn soft(&self) -> WaitForCancellationFuture<'_> {
        self.soft.cancelled()
    }

    /// Waits for the hard stage.
    pub fn hard(&self) -> WaitForCancellationFuture<'_> {
        self.hard.cancelled()
    }

    /// Whether to take no new work.
    pub fn is_soft(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Whether to stop at once.
    pub fn is_hard(&self) -> bool {
        self.hard.is_cancelled()
    }

    /// The soft stage as a token, for what takes one.
    pub fn soft_token(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// The hard stage as a token, for what takes one.
    pub fn hard_token(&self) -> CancellationToken {
        self.hard.clone()
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::Command;
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Sends `name` to this very process.
    fn raise(name: &str) {
        let pid = std::process::id().to_string();
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
            .status();
        assert!(sent.unwrap().success());
    }

    #[tokio::test]
    async fn the_first_signal_is_soft_and_the_second_hard() {
        let shutdown = Shutdown::on_signals().unwrap();
        raise("INT");
        let soft = tokio::time::timeout(DEADLINE, shutdown.soft());
        soft.await.unwrap();
        assert!(!shutdown.is_hard());
        raise("TERM");
        let hard = tokio::time::timeout(DEADLINE, shutdown.hard());
        hard.await.unwrap();
    }

    #[tokio::test]
    async fn soft_leaves_hard_alone() {
        let shutdown = Shutdown::new();
        shutdown.clone().stop_soon();
        shutdown.soft().await;
        assert!(shutdown.is_soft());
        assert!(!shutdown.is_hard());
    }

    #[tokio::test]
    async fn hard_implies_soft() {
        let shutdown = Shutdown::new();
        shutdown.stop_now();
        shutdown.soft().await;
        shutdown.hard().await;
        assert!(shutdown.is_soft() && shutdown.is_hard());
    }
}
