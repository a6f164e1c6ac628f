//! What goes on by itself: holds are brought nearer to what was decided, and providers are paid.

use std::time::Duration;

use futures::{StreamExt, stream};
use infernet_payments::cashier::Change;
use infernet_payments::ledger::{self, Reason};
use infernet_payments::rail::Direction;
use infernet_payments::{Cashier, cashier};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{Error, Treasury};

/// How often is looked, besides the wallet's own news and what is decided.
const OFTEN: Duration = Duration::from_secs(3);

/// Holds about which the wallet is asked at a time.
const AT_ONCE: usize = 8;

impl Treasury {
    /// Does what is to be done until told to stop; what is half done then is taken up by the next process.
    ///
    /// # Errors
    /// [`Error::Ledger`]: nothing may go on that cannot be written down.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), Error> {
        let Some(cashier) = &self.shared.cashier else {
            stop.cancelled().await;
            return Ok(());
        };
        let changes = cashier.subscribe();
        let notices = cashier.rail().subscribe();
        if let Err(error) = cashier.open_books(self.now()).await {
            tracing::warn!(%error, "the ledger begins without the wallet's contents");
        }
        tokio::select! {
            followed = cashier.follow(notices, OFTEN, || self.now()) => Ok(followed?),
            () = self.tell(changes) => Ok(()),
            done = self.rounds() => done,
            paid = self.payouts() => paid,
            () = stop.cancelled() => Ok(()),
        }
    }

    /// Goes on with payments that a process before us has begun: nobody else does. To be called once, at the start.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn resume(&self) -> Result<(), Error> {
        let Some(cashier) = &self.shared.cashier else {
            return Ok(());
        };
        for intent in self.shared.ledger.open_intents().await? {
            match cashier.go_on(&intent, self.now()).await {
                // What concerns one payment alone keeps no others waiting.
                Err(cashier::Error::Ledger(error)) if !is_of_one(&error) => {
                    return Err(error.into());
                }
                Err(error) => tracing::info!(%error, "a payment of before came to nothing yet"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// One of everything, for who keeps its own time.
    ///
    /// # Errors
    /// [`Error::Ledger`]. A wallet that cannot be asked is asked again the next time.
    pub async fn round(&self) -> Result<(), Error> {
        if let Some(cashier) = &self.shared.cashier {
            cashier.look(self.now()).await?;
            self.pursue_all(cashier).await?;
        }
        self.pay_out().await
    }

    async fn rounds(&self) -> Result<(), Error> {
        let cashier = self.cashier()?;
        let mut round = tokio::time::interval(OFTEN);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = round.tick() => {}
                () = self.shared.decided.notified() => {}
            }
            self.pursue_all(cashier).await?;
        }
    }

    /// Providers that are slow to answer keep no hold waiting.
    async fn payouts(&self) -> Result<(), Error> {
        self.resume().await?;
        let mut round = tokio::time::interval(OFTEN);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            round.tick().await;
            self.pay_out().await?;
        }
    }

    async fn pursue_all(&self, wallet: &Cashier) -> Result<(), Error> {
        let now = self.now();
        let holds = self.shared.ledger.open_holds().await?;
        let pursuing = stream::iter(holds).map(|hold| async move {
            // Not one that is being planned.
            let is_planned = hold.intent.as_ref().is_some_and(|one| one.invoice.is_none());
            let _alone = match is_planned {
                true => Some(self.shared.holding.lock().await),
                false => None,
            };
            match wallet.pursue(&hold, now).await {
                Err(cashier::Error::Ledger(error)) if !is_of_one(&error) => Err(error),
                Err(error) => {
                    tracing::debug!(%error, group = hold.due.group, "a hold is pursued again later");
                    Ok(())
                }
                Ok(()) => Ok(()),
            }
        });
        let mut pursuing = pursuing.buffer_unordered(AT_ONCE);
        let mut outcome = Ok(());
        while let Some(pursued) = pursuing.next().await {
            if let Err(error) = pursued {
                outcome = Err(error.into());
            }
        }
        outcome
    }

    /// Tells whose money has changed, until the cashier is gone.
    async fn tell(&self, mut changes: broadcast::Receiver<Change>) {
        loop {
            match changes.recv().await {
                Ok(change) => {
                    let intent = change.intent;
                    if (intent.direction, intent.reason) == (Direction::Incoming, Reason::Hold)
                        && let Ok(Some(hold)) = self.shared.ledger.hold_of(&intent.key).await
                    {
                        self.changed(hold.due.order, hold.due.group);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    tracing::warn!("so much has changed at a time that some was not told");
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

/// Whether the ledger is sound, and only knows one payment otherwise.
const fn is_of_one(error: &ledger::Error) -> bool {
    matches!(error, ledger::Error::Conflict)
}
