//! Paying for the groups of a batch: an aggregator holds what is paid, and takes it when it delivers.

use infernet_node::{clock, mortality};
use infernet_payments::ledger::{
    Account, Budget, Caps, Due, GroupName, Intent, Posting, Reason, Standing,
};
use infernet_payments::rail::{Ask, Direction, State};
use infernet_payments::{Invoice, PaymentHash, Preimage};
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey};

use super::paying::{A_DAY, Trouble};
use super::refund::INVOICE_EXPIRY;
use super::{Error, Purse};

/// A payment that an aggregator holds, or is to hold.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub order: EventId,
    pub aggregator: PublicKey,
    pub invoice: Invoice,
}

impl Purse {
    /// Pays a hold invoice, within the day's budget; the same one again pays nothing. Returns when it is held, settled
    /// or failed, or the wallet's patience is over. Goes on if nobody waits for it.
    pub async fn hold(&self, hold: Hold) -> Result<Standing, Trouble> {
        let purse = self.clone();
        let paying = tokio::spawn(async move { purse.hold_now(&hold).await });
        match paying.await {
            Ok(Ok(intent)) => Ok(intent.standing),
            Ok(Err(error)) => Err(Trouble::of(&error)),
            Err(_) => Err(Trouble {
                why: "the payment broke off".into(),
                is_temporary: true,
            }),
        }
    }

    async fn hold_now(&self, hold: &Hold) -> Result<Intent, Error> {
        self.open_books().await;
        let now = clock::now();
        let limits = self.limits();
        let budget = Budget {
            most: limits.daily,
            since: now - A_DAY,
        };
        let due = Due {
            reason: Reason::Hold,
            counterparty: hold.aggregator,
            award: Some(hold.order),
        };
        let max_fee = limits.fee_for(hold.invoice.amount());
        let cashier = &self.shared.cashier;
        let paying = cashier.pay(&due, &hold.invoice, max_fee, Some(budget), now);
        Ok(paying.await?)
    }

    /// How a payment stands by the ledger; nothing if it was never begun.
    pub async fn hold_standing(&self, hash: &PaymentHash) -> Result<Option<Standing>, Error> {
        let ledger = self.shared.books.ledger();
        let intent = ledger.intent(Direction::Outgoing, hash).await?;
        Ok(intent.map(|intent| intent.standing))
    }

    /// What was paid, or may be, for an order's groups.
    pub async fn held_for(&self, order: &EventId) -> Result<Msat, Error> {
        let intents = self.shared.books.ledger().intents_about(order).await?;
        let open = intents.iter().filter(|intent| {
            intent.direction == Direction::Outgoing && intent.standing != Standing::Failed
        });
        Ok(Msat(open.map(|intent| intent.amount.0).sum()))
    }

    /// The preimage of a payment that was taken, where the wallet tells it.
    pub async fn preimage(&self, hash: &PaymentHash) -> Option<Preimage> {
        let rail = self.shared.cashier.rail();
        let payment = rail.look_up(Direction::Outgoing, hash).await.ok()??;
        match payment.state {
            State::Settled { preimage, .. } => preimage,
            State::Pending | State::Held | State::Failed | State::Expired => None,
        }
    }

    /// Books what a group cost; again it changes nothing.
    pub async fn group_spent(
        &self,
        order: &EventId,
        group: u32,
        aggregator: PublicKey,
        amount: Msat,
    ) -> Result<(), Error> {
        let posting = Posting::GroupSpent {
            group: GroupName::new(order, group),
            aggregator,
            amount,
        };
        self.shared
            .books
            .ledger()
            .post(&posting, clock::now())
            .await?;
        mortality::point("group-spent");
        Ok(())
    }

    /// What an aggregator has taken of ours and not charged, by our books.
    pub async fn credit_with(&self, aggregator: PublicKey) -> Result<Msat, Error> {
        if let Err(error) = self.look_now().await {
            tracing::debug!(%error, "the wallet cannot be asked");
        }
        let account = Account::Credit(aggregator);
        let balance = self.shared.books.ledger().balance(&account).await?;
        // It may have given us more than it took: of somebody's bond.
        Ok(Msat(u64::try_from(balance).unwrap_or_default()))
    }

    /// An invoice for what an aggregator is to pay back; the one that was made before, if it may still be paid.
    pub async fn credit_back(
        &self,
        order: &EventId,
        aggregator: PublicKey,
        amount: Msat,
    ) -> Result<Invoice, Error> {
        let now = clock::now();
        let ledger = self.shared.books.ledger();
        let intents = ledger.intents_about(order).await?;
        let before = intents.into_iter().find(|intent| {
            (intent.direction, intent.reason) == (Direction::Incoming, Reason::Credit)
                && intent.standing == Standing::UnderWay
                && intent.amount == amount
        });
        if let Some(invoice) = before.and_then(|intent| intent.invoice)
            && !invoice.is_expired(now)
        {
            return Ok(invoice);
        }
        let due = Due {
            reason: Reason::Credit,
            counterparty: aggregator,
            award: Some(*order),
        };
        let ask = Ask {
            amount,
            description: format!("infernet batch, order {order}, what is left"),
            expiry: INVOICE_EXPIRY,
        };
        let making = self
            .shared
            .cashier
            .invoice(&due, &ask, Caps::default(), now);
        let invoice = making.await?;
        mortality::point("credit-invoiced");
        Ok(invoice)
    }

    /// Whether an invoice of ours was paid, as the wallet says.
    pub async fn has_come(&self, invoice: &Invoice) -> bool {
        if let Err(error) = self.look_now().await {
            tracing::debug!(%error, "the wallet cannot be asked");
        }
        self.is_settled(invoice).await
    }
}
