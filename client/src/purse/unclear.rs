//! Attempts whose cost is not known when they end: relays were away, and their provider may still bring a result.
//!
//! Such an attempt stays open in the books, and on its tab what we have signed last counts for it. While the tab is
//! open the relays are asked for the result. Without one it costs what we have signed last, once nothing can come any
//! more, or the provider itself counts no more for earlier jobs than we do.

use std::time::Duration;

use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey, Timestamp};
use tokio::time::Instant;

use super::{Attempt, Done, Error, Lease, Purse};

/// How long after the end of an attempt its result may come: a provider that was cut off tries to reach a relay every
/// 30 seconds, and sends its results for another minute.
pub(crate) const LATE: Duration = Duration::from_secs(90);

/// How long a provider that speaks again, and counts more than we, has to bring the result that says so.
const LATE_ONCE_HEARD: Duration = Duration::from_secs(20);

/// How often the relays are asked.
const LOOK_EVERY: Duration = Duration::from_millis(700);

/// Such an attempt.
pub(super) struct Unclear {
    pub attempt: Attempt,
    /// What we have signed last for it.
    pub signed: Msat,
    pub until: Timestamp,
}

/// What a provider has said since about all that was before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub since: Instant,
    /// Whether it counts no more than we.
    pub agrees: bool,
}

impl Heard {
    fn is_final(&self) -> bool {
        self.agrees || self.since.elapsed() >= LATE_ONCE_HEARD
    }
}

impl Purse {
    /// Leaves an attempt open in the books.
    pub(super) async fn leave_unclear(
        &self,
        attempt: Attempt,
        until: Timestamp,
    ) -> Result<Unclear, Error> {
        let attempts = self.shared.books.attempts();
        attempts.leave_unclear(&attempt.award, until).await?;
        let (signed, _) = self.last_word(&attempt).await?;
        tracing::info!(award = %attempt.award, "what this attempt cost is not known yet");
        Ok(Unclear {
            attempt,
            signed,
            until,
        })
    }

    /// Asks what an attempt has cost, in the background, until that is known or its tab is given back.
    pub(super) fn clear_later(&self, unclear: Unclear) {
        let purse = self.clone();
        self.shared.tasks.spawn(async move {
            // It may never have heard that nobody waits.
            purse.stop(&unclear.attempt);
            let award = unclear.attempt.award;
            if let Err(error) = purse.clear(unclear).await {
                tracing::error!(%error, %award, "an attempt is not over in the books; the next start ends it");
            }
        });
    }

    async fn clear(&self, unclear: Unclear) -> Result<(), Error> {
        let Unclear { attempt, until, .. } = &unclear;
        let mut is_last = false;
        while let Some(lease) = self.rejoin(attempt.provider) {
            let mut known = self.cost_by(attempt, *until).await?;
            let is_heard = lease.with(|tab| tab.heard().is_some_and(|heard| heard.is_final()));
            if known.is_none() && is_heard {
                known = Some(self.last_word(attempt).await?);
            }
            if let Some((charge, done)) = known {
                return self.clear_by(&lease, attempt, charge, done).await;
            }
            drop(lease);
            if is_last {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.shared.closing.cancelled() => is_last = true,
            }
        }
        Ok(())
    }

    async fn clear_by(
        &self,
        lease: &Lease,
        attempt: &Attempt,
        charge: Msat,
        done: Done,
    ) -> Result<(), Error> {
        self.charge_late(attempt, charge, done).await?;
        lease.with(|tab| tab.cleared(self, attempt.award, charge));
        Ok(())
    }

    /// A lease on a tab that this process keeps; nothing if it was given back.
    fn rejoin(&self, provider: PublicKey) -> Option<Lease> {
        self.with(&provider, |_| ())?;
        Some(self.enter(provider))
    }
}

impl Lease {
    /// Ends an attempt whose result may still come until then. Answers what we have signed for it.
    pub fn leave(self, award: EventId, until: Timestamp) -> Msat {
        let job = self.with(|tab| tab.job(&award).map(super::tab::Job::attempt));
        let charge = self.end(award, false);
        let Some(job) = job else { return charge };
        self.with(|tab| tab.unclear(award, charge));
        let purse = self.purse.clone();
        let tasks = purse.shared.tasks.clone();
        tasks.spawn(async move {
            let leaving = async {
                purse.is_written(&job).await?;
                // What was signed last is read by whoever takes up the tab next.
                purse.shared.books.ledger().flush().await?;
                purse.leave_unclear((*job.0).clone(), until).await
            };
            match leaving.await {
                Ok(unclear) => purse.clear_later(unclear),
                Err(error) => {
                    tracing::error!(%error, %award, "an attempt is not over in the books; the next start ends it");
                }
            }
            drop(self);
        });
        charge
    }
}
