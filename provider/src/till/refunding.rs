//! Paying back what a buyer has left.

use infernet_node::clock;
use infernet_payments::Invoice;
use infernet_payments::cashier;
use infernet_payments::ledger::{self, Account, Due, Planned, Reason, Standing};
use infernet_payments::rail::Direction;
use infernet_protocol::event::ReceiptSide;
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey, Timestamp};

use super::Till;

/// Routing that a refund may cost us: so much of it, in thousandths, ...
const FEE_PER_MILLE: u64 = 10;

/// ... and so much besides, since small payments cost no less.
const FEE_BASE: Msat = Msat(2_000);

/// What the refunds of a buyer may cost us in all: so much of what it has used, in
/// thousandths. The routing may be the buyer's own, so that paying in and asking
/// back must bring it nothing.
const SHARE_PER_MILLE: u64 = 50;

/// What the first refunds of buyers who have used little may cost us in all,
/// besides the same share of what everybody has used.
const GIFTS: Msat = Msat(100_000);

/// Why nothing is paid back, in words for the buyer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRefunded {
    /// Nothing here knows that award.
    #[error("that award is not on a tab here")]
    Unknown,
    /// It cannot be paid.
    #[error("the invoice is no good: {0}")]
    Invoice(String),
    /// Wait until it is over.
    #[error("jobs of yours are running on the tab")]
    Running,
    /// Wait until it has come, or has failed.
    #[error("another refund is on its way")]
    UnderWay,
    /// Ask for less.
    #[error("no more than {0} is left on the tab")]
    NotLeft(Msat),
    /// Ask again with another invoice.
    #[error("that payment did not go through; send a new invoice")]
    Failed,
    /// Use what is left, or ask again with an invoice that is cheaper to pay.
    #[error(
        "it could not be paid with at most {0} for routing: use what is left for another job, or \
         send an invoice that is cheaper to reach"
    )]
    TooFar(Msat),
    /// Ask again later.
    #[error("the provider cannot pay just now")]
    Fault,
}

impl Till {
    /// Takes a refund on: from here on it is paid, by [`Till::pay_back`], or has
    /// been.
    ///
    /// # Errors
    /// Why it is not paid.
    pub async fn plan_refund(
        &self,
        buyer: &PublicKey,
        award: &EventId,
        invoice: &str,
    ) -> Result<Refund, NotRefunded> {
        let invoice = readable(invoice)?;
        self.check_award(buyer, award).await?;
        // No account is made while it is planned: what goes back is not there
        // for the next one.
        let _alone = self.0.opening.lock().await;
        let ledger = self.0.cashier.ledger();
        let known = ledger.intent(Direction::Outgoing, &invoice.hash()).await;
        if known.map_err(|error| fault(&error))?.is_none() {
            if invoice.is_expired(clock::now()) {
                return Err(NotRefunded::Invoice("it has expired".to_owned()));
            }
            if self.is_open(buyer) {
                return Err(NotRefunded::Running);
            }
            self.check_others(buyer).await?;
        }
        let max_fee = self.max_fee(buyer, invoice.amount()).await;
        let refund = Refund {
            due: Due {
                reason: Reason::Refund,
                counterparty: *buyer,
                award: Some(*award),
            },
            invoice,
            max_fee: max_fee.map_err(|error| fault(&error))?,
        };
        let Refund { due, invoice, .. } = &refund;
        let planned = ledger.plan_payment(due, invoice, refund.max_fee, None, clock::now());
        match planned.await {
            Ok(Planned::Before(intent)) if intent.standing == Standing::Failed => {
                Err(NotRefunded::Failed)
            }
            Ok(_) => Ok(refund),
            Err(ledger::Error::NotLeft { left }) => Err(NotRefunded::NotLeft(left)),
            Err(ledger::Error::Conflict) => Err(NotRefunded::Invoice("it is another's".to_owned())),
            Err(error) => Err(fault(&error)),
        }
    }

    /// Pays a refund that was taken on; one that is under way or done already
    /// stays as it is.
    ///
    /// # Errors
    /// It came to nothing.
    pub async fn pay_back(&self, refund: &Refund) -> Result<(), NotRefunded> {
        let (due, now) = (&refund.due, clock::now());
        let paid = self
            .0
            .cashier
            .pay(due, &refund.invoice, refund.max_fee, None, now);
        match paid.await {
            Ok(intent) if intent.standing == Standing::Failed => Err(refund.has_failed()),
            Ok(_) => Ok(()),
            Err(cashier::Error::Rail(error)) => {
                tracing::warn!(peer = %due.counterparty, %error, "a refund is not paid");
                Err(refund.has_failed())
            }
            Err(cashier::Error::Ledger(error)) => Err(fault(&error)),
        }
    }

    /// The ticket of an award that was paid for too late is forgotten; the ledger
    /// still has what was asked for.
    async fn check_award(&self, buyer: &PublicKey, award: &EventId) -> Result<(), NotRefunded> {
        let kept = self.0.store.ticket(award).await;
        let kept = kept.map_err(|error| fault(&error))?;
        if kept.is_some_and(|kept| kept.ticket.buyer == *buyer) {
            return Ok(());
        }
        let intents = self.0.cashier.ledger().intents_about(award).await;
        let intents = intents.map_err(|error| fault(&error))?;
        match intents.iter().any(|one| one.counterparty == *buyer) {
            true => Ok(()),
            false => Err(NotRefunded::Unknown),
        }
    }

    /// The most that routing may cost for this refund of this buyer's.
    async fn max_fee(&self, buyer: &PublicKey, amount: Msat) -> Result<Msat, ledger::Error> {
        let ledger = self.0.cashier.ledger();
        let carried = ledger.carried(buyer, ReceiptSide::Provider).await?;
        let beginning = Timestamp::from_secs(0);
        let lines = ledger.lines(&Account::Tab(*buyer), beginning).await?;
        let refunds = lines.iter().filter(|line| line.reason == "refund");
        let refunded: Vec<_> = refunds
            .map(|line| Msat(line.amount_msat.unsigned_abs()))
            .collect();
        let fees = ledger.balance(&Account::Fees).await?.unsigned_abs();
        let open = ledger.open_intents().await?.into_iter();
        let may_cost = open.map(|intent| intent.max_fee.0);
        let history = History {
            used: carried.due,
            refunded: &refunded,
            earned: Msat(ledger.balance(&Account::Income).await?.unsigned_abs()),
            fees: Msat(may_cost.fold(fees, u64::saturating_add)),
        };
        Ok(history.max_fee(amount))
    }

    async fn check_others(&self, buyer: &PublicKey) -> Result<(), NotRefunded> {
        let ledger = self.0.cashier.ledger();
        let opening = ledger.opening(buyer, ReceiptSide::Provider).await;
        let open = opening.map_err(|error| fault(&error))?.open;
        match open.iter().any(|one| one.direction == Direction::Outgoing) {
            true => Err(NotRefunded::UnderWay),
            false => Ok(()),
        }
    }
}

/// A refund that was taken on.
#[derive(Debug)]
pub struct Refund {
    due: Due,
    invoice: Invoice,
    max_fee: Msat,
}

impl Refund {
    /// Why it may have failed.
    fn has_failed(&self) -> NotRefunded {
        match self.max_fee < usual_fee(self.invoice.amount()) {
            true => NotRefunded::TooFar(self.max_fee),
            false => NotRefunded::Failed,
        }
    }
}

/// What the cost of a refund is measured by.
struct History<'a> {
    /// What the buyer has used.
    used: Msat,
    /// What it was paid back before.
    refunded: &'a [Msat],
    /// What all buyers have used.
    earned: Msat,
    /// What all refunds have cost in routing, or still may.
    fees: Msat,
}

impl History<'_> {
    fn max_fee(&self, amount: Msat) -> Msat {
        let before = self.refunded.iter().map(|amount| usual_fee(*amount).0);
        let before = before.fold(0, u64::saturating_add);
        let theirs = share(self.used).saturating_sub(before);
        let gift = match self.refunded {
            [] => (GIFTS.0 + share(self.earned)).saturating_sub(self.fees.0),
            _ => 0,
        };
        usual_fee(amount).min(Msat(theirs.max(gift)))
    }
}

fn readable(invoice: &str) -> Result<Invoice, NotRefunded> {
    let invoice: Result<Invoice, _> = invoice.parse();
    invoice.map_err(|error| NotRefunded::Invoice(error.to_string()))
}

/// The most that routing may cost, where nothing speaks for less.
const fn usual_fee(amount: Msat) -> Msat {
    Msat(amount.0 / 1_000 * FEE_PER_MILLE + FEE_BASE.0)
}

const fn share(used: Msat) -> u64 {
    used.0 / 1_000 * SHARE_PER_MILLE
}

fn fault(error: &dyn std::fmt::Display) -> NotRefunded {
    tracing::error!(%error, "a refund");
    NotRefunded::Fault
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever is paid for the routing of its own refunds.
    #[test]
    fn paying_in_and_asking_back_brings_nothing() {
        // One key, again and again, that has used a satoshi.
        let (mut refunded, mut fees) = (vec![], 0);
        for _ in 0..1_000 {
            let history = History {
                used: Msat(1_000),
                refunded: &refunded,
                earned: Msat(1_000),
                fees: Msat(fees),
            };
            fees += history.max_fee(Msat(1_000)).0;
            refunded.push(Msat(1_000));
        }
        assert_eq!(fees, 2_010, "the first, and no more");
        // A fresh key each time, that has used nothing.
        let mut fees = 0;
        for _ in 0..1_000 {
            let history = History {
                used: Msat::ZERO,
                refunded: &[],
                earned: Msat(1_000_000),
                fees: Msat(fees),
            };
            fees += history.max_fee(Msat(10_000)).0;
        }
        assert_eq!(fees, 150_000, "100 sat, and a share of what was earned");
    }

    #[test]
    fn a_buyer_of_much_is_paid_back_as_often_as_it_likes() {
        let mut refunded = vec![];
        for round in 1..=20_u64 {
            let used = Msat(round * 100_000);
            let history = History {
                used,
                refunded: &refunded,
                earned: used,
                fees: Msat(1_000_000),
            };
            let amount = Msat(50_000);
            assert_eq!(history.max_fee(amount), Msat(2_500), "{round}");
            refunded.push(amount);
        }
    }
}
