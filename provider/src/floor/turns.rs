//! Whose turn it is: attempts begin, end, and leave their place to the next.

use infernet_protocol::inference::EndReason;
use nostr::EventId;

use super::{Floor, Phase};
use crate::attempt::{Order, Report};

/// Ended attempts that still answer a buyer that missed something; each keeps
/// its pieces.
const MAX_LINGERING: usize = 128;

/// How much the newest job's duration counts in their average.
const NEWEST_SHARE: f64 = 0.2;

impl Floor {
    /// An attempt has something to say.
    pub(super) async fn reported(&mut self, report: Report) {
        match report {
            Report::Paid(guest) => self.paid(*guest).await,
            Report::TurnedAway {
                admitted,
                reason,
                detail,
            } => self.turned_away(*admitted, reason, detail).await,
            Report::Left { admitted } => {
                let award = admitted.award.id();
                tracing::info!(%award, "left by its buyer before it was paid for");
                self.unseat(&award);
                self.close_to(&admitted.award).await;
            }
            Report::Halted {
                award,
                ended,
                usage,
            } => {
                self.count(ended, usage.input_tokens, usage.output_tokens);
                self.halted(award);
            }
            Report::Forgotten { award } => {
                self.attempts.remove(&award);
                self.lingering.retain(|lingering| *lingering != award);
            }
        }
    }

    fn count(&mut self, ended: Option<EndReason>, input_tokens: u64, output_tokens: u64) {
        self.tally.input_tokens += input_tokens;
        self.tally.output_tokens += output_tokens;
        match ended {
            Some(EndReason::Stop | EndReason::Length) => self.tally.completed += 1,
            Some(EndReason::Cancelled) | None => self.tally.stopped += 1,
            Some(EndReason::Failed) => self.tally.failed += 1,
        }
    }

    /// An attempt needs its place no more: the next one begins.
    fn halted(&mut self, award: EventId) {
        self.queue.leave(&award);
        if let Some(entry) = self.attempts.get_mut(&award) {
            entry.phase = Phase::Over;
            if let Some(begun_at) = entry.begun_at {
                let took = self.clock.now().since(begun_at) as f64;
                let share = if self.mean_job_ms > 0.0 {
                    NEWEST_SHARE
                } else {
                    1.0
                };
                self.mean_job_ms += share * (took - self.mean_job_ms);
            }
        }
        self.lingering.push_back(award);
        if self.lingering.len() > MAX_LINGERING
            && let Some(oldest) = self.lingering.pop_front()
        {
            self.attempts.remove(&oldest);
        }
        self.begin();
    }

    /// Fills free slots, and tells those who still wait how many are ahead.
    pub(super) fn begin(&mut self) {
        while let Some(award) = self.queue.begin_next() {
            if let Some(entry) = self.attempts.get_mut(&award) {
                entry.phase = Phase::Running;
                entry.begun_at = Some(self.clock.now());
                entry.order(Order::Begin);
            }
        }
        for (award, ahead) in self.queue.positions() {
            if let Some(entry) = self.attempts.get(&award) {
                entry.order(Order::Moved(ahead));
            }
        }
        self.schedule.changed(self.bulletin());
    }
}
