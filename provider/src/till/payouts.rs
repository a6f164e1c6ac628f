//! Being paid for work in escrow: an aggregator says what it makes of it, and is given
//! an invoice for what it pays now.
//!
//! What it rejects is its word alone; we count it, and our owner may lend it no more.
//! But its sums must be ours: it cannot have paid more than we have got, nor accept
//! more than we have done.

use std::time::Duration;

use infernet_node::{clock, mortality};
use infernet_payments::Invoice;
use infernet_payments::ledger::{Caps, Due, Escrow, Posted, Posting, Reason};
use infernet_payments::rail::{Ask, Direction};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Payout, payout_description};
use nostr::{EventId, PublicKey};
use tokio::time::timeout;

use super::{Till, WALLET_PATIENCE, no_answer};
use crate::store::Kept;

/// How long an invoice can be paid.
const INVOICE_LIFE: Duration = Duration::from_secs(600);

/// How long it is given out once more to who asks again. After that its payment may
/// have failed, and another try needs another invoice.
const SAME_FOR: Duration = Duration::from_secs(90);

/// Invoices for payouts that may be open.
const CAPS: Caps = Caps {
    for_one: 16,
    in_all: 2_000,
};

/// Why there is no invoice, in words for the aggregator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPayable {
    /// Name work that was done for you.
    #[error("award {0} was not done here for you in escrow")]
    Unknown(EventId),
    /// Compare the books.
    #[error("by our books you have paid {ours} so far, and not {theirs}")]
    Paid {
        /// What has come.
        ours: Msat,
        /// What is said to have gone.
        theirs: Msat,
    },
    /// Compare the books.
    #[error("by our books {ours} was done and not rejected, and you accept {theirs}")]
    Accepted {
        /// What was done.
        ours: Msat,
        /// What is said to be accepted.
        theirs: Msat,
    },
    /// State totals that only grow.
    #[error("what was accepted or forfeited before is less now")]
    Shrinks,
    /// Ask once there is something to pay.
    #[error("there is nothing to pay")]
    Nothing,
    /// Ask again later.
    #[error("the provider cannot make an invoice just now")]
    Fault,
}

impl Till {
    /// Books what an aggregator makes of our work, and makes the invoice for what it
    /// pays now. Said again, it changes nothing and answers the same invoice.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn payable(
        &self,
        aggregator: &PublicKey,
        award: &EventId,
        payout: &Payout,
    ) -> Result<Invoice, NotPayable> {
        let _alone = self.0.paying_out.lock().await;
        self.cost_of(aggregator, award).await?;
        self.write_off(aggregator, &payout.rejected).await?;
        let escrow = self.agreed(aggregator, payout).await?;
        self.check(aggregator, &escrow, payout).await?;
        self.keep(aggregator, payout).await?;
        if payout.pay_msat == Msat::ZERO {
            return Err(NotPayable::Nothing);
        }
        match self.open_invoice(aggregator, payout.pay_msat).await? {
            Some(invoice) => Ok(invoice),
            None => {
                self.payout_invoice(aggregator, award, payout.pay_msat)
                    .await
            }
        }
    }

    /// What work in escrow has cost that was done for this aggregator.
    async fn cost_of(&self, aggregator: &PublicKey, award: &EventId) -> Result<Msat, NotPayable> {
        let kept = self.0.store.ticket(award).await;
        let kept = kept.map_err(|error| fault(&error))?;
        let theirs = kept.filter(|kept| kept.ticket.buyer == *aggregator && kept.ticket.is_escrow);
        let outcome = theirs.and_then(|kept| kept.outcome);
        outcome
            .map(|outcome| outcome.due)
            .ok_or(NotPayable::Unknown(*award))
    }

    /// The books, once they say that as much was paid as the aggregator says. A payment
    /// may have come a moment ago.
    async fn agreed(&self, aggregator: &PublicKey, payout: &Payout) -> Result<Escrow, NotPayable> {
        let escrow = self.escrow(aggregator).await?;
        if escrow.paid == payout.paid_msat {
            return Ok(escrow);
        }
        let looked = timeout(WALLET_PATIENCE, self.0.cashier.look(clock::now())).await;
        looked
            .unwrap_or_else(|_| Err(no_answer().into()))
            .map_err(|error| fault(&error))?;
        let escrow = self.escrow(aggregator).await?;
        match escrow.paid == payout.paid_msat {
            true => Ok(escrow),
            false => Err(NotPayable::Paid {
                ours: escrow.paid,
                theirs: payout.paid_msat,
            }),
        }
    }

    async fn check(
        &self,
        aggregator: &PublicKey,
        escrow: &Escrow,
        payout: &Payout,
    ) -> Result<(), NotPayable> {
        let stated = self.0.store.stated(aggregator).await;
        let before = stated.map_err(|error| fault(&error))?;
        let theirs = payout.accepted_msat;
        if theirs < before.accepted || payout.forfeited_msat < escrow.forfeited {
            return Err(NotPayable::Shrinks);
        }
        let mut ours = not_rejected(escrow);
        if theirs > ours {
            // A result is out a moment before its charge.
            self.settle_all(aggregator).await?;
            ours = not_rejected(&self.escrow(aggregator).await?);
        }
        match theirs <= ours {
            true => Ok(()),
            false => Err(NotPayable::Accepted { ours, theirs }),
        }
    }

    /// Charges what was done for an aggregator and is not charged yet.
    async fn settle_all(&self, aggregator: &PublicKey) -> Result<(), NotPayable> {
        let unsettled = self.0.store.unsettled().await;
        let unsettled = unsettled.map_err(|error| fault(&error))?.into_iter();
        let theirs = unsettled.filter(|kept| kept.ticket.buyer == *aggregator);
        for Kept { ticket, .. } in theirs.filter(|kept| kept.outcome.is_some()) {
            let settled = self.settle_one(&ticket.award).await;
            settled.map_err(|error| fault(&error))?;
        }
        Ok(())
    }

    /// Writes down what is rejected: that is not owed any more.
    async fn write_off(
        &self,
        aggregator: &PublicKey,
        rejected: &[EventId],
    ) -> Result<(), NotPayable> {
        let ledger = self.0.cashier.ledger();
        for award in rejected {
            let amount = match self.cost_of(aggregator, award).await {
                Ok(amount) => amount,
                // Work that cost nothing is not in the books: there is nothing to lose.
                Err(NotPayable::Unknown(_)) => continue,
                Err(error) => return Err(error),
            };
            let posting = Posting::WrittenOff {
                award: *award,
                aggregator: *aggregator,
                amount,
            };
            let posted = ledger.post(&posting, clock::now()).await;
            if posted.map_err(|error| fault(&error))? == Posted::Now {
                tracing::warn!(%award, peer = %aggregator, %amount, "this work was rejected, and is not paid");
            }
            mortality::point("rejection-booked");
        }
        Ok(())
    }

    /// Keeps what is stated; what is forfeited is not owed any more.
    async fn keep(&self, aggregator: &PublicKey, payout: &Payout) -> Result<(), NotPayable> {
        let ledger = self.0.cashier.ledger();
        let lost = ledger.lose_bond_to(aggregator, payout.forfeited_msat, clock::now());
        lost.await.map_err(|error| fault(&error))?;
        let stated = self.0.store.state(aggregator, payout).await;
        stated.map_err(|error| fault(&error))
    }

    /// The invoice that was given out for the same a moment ago.
    async fn open_invoice(
        &self,
        aggregator: &PublicKey,
        amount: Msat,
    ) -> Result<Option<Invoice>, NotPayable> {
        let ledger = self.0.cashier.ledger();
        let open = ledger.open_intents().await.map_err(|error| fault(&error))?;
        let theirs = open.into_iter().filter(|intent| {
            (intent.direction, intent.reason) == (Direction::Incoming, Reason::Payout)
                && (intent.counterparty, intent.amount) == (*aggregator, amount)
        });
        let since = clock::now() - SAME_FOR;
        let mut fresh = theirs.filter(|intent| intent.planned_at >= since);
        Ok(fresh.find_map(|intent| intent.invoice))
    }

    async fn payout_invoice(
        &self,
        aggregator: &PublicKey,
        award: &EventId,
        amount: Msat,
    ) -> Result<Invoice, NotPayable> {
        let due = Due {
            reason: Reason::Payout,
            counterparty: *aggregator,
            award: Some(*award),
        };
        let ask = Ask {
            amount,
            description: payout_description(award),
            expiry: INVOICE_LIFE,
        };
        let made = self.0.cashier.invoice(&due, &ask, CAPS, clock::now());
        let made = timeout(WALLET_PATIENCE, made).await;
        let invoice = made
            .unwrap_or_else(|_| Err(no_answer().into()))
            .map_err(|error| fault(&error))?;
        tracing::info!(peer = %aggregator, payment = %invoice.hash(), %amount, "asks for a payout");
        Ok(invoice)
    }

    async fn escrow(&self, aggregator: &PublicKey) -> Result<Escrow, NotPayable> {
        let escrow = self.0.cashier.ledger().escrow(aggregator).await;
        escrow.map_err(|error| fault(&error))
    }
}

const fn not_rejected(escrow: &Escrow) -> Msat {
    Msat(escrow.earned.0.saturating_sub(escrow.rejected.0))
}

fn fault(error: &dyn std::fmt::Display) -> NotPayable {
    tracing::error!(%error, "a payout");
    NotPayable::Fault
}
