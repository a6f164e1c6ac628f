//! Paying back what is left of a buyer's credit.
//!
//! We bear the routing, but it may be the buyer's own: paying in and asking back must bring it nothing. So the refunds
//! of a buyer may cost, all together, no more than a share of what it was charged and a little besides; and none is
//! for a part that is too small to be worth a payment. A payment that hangs keeps a desk's place: one buyer has one.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use infernet_node::mortality;
use infernet_payments::ledger::{self, Custom, Due, Reason, Standing};
use infernet_payments::rail::Direction;
use infernet_payments::tab::MIN_PAYMENT;
use infernet_payments::{Invoice, cashier};
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey};

use super::{Error, Treasury};

/// Routing that one refund may cost: so much of it, in thousandths, ...
const FEE_PER_MILLE: u64 = 10;

/// ... and so much besides.
const FEE_BASE: Msat = Msat(1_000);

/// What the refunds of a buyer may cost in all: so much of what it was charged, in thousandths, which is less than the
/// fee on that, ...
const SHARE_PER_MILLE: u64 = 5;

/// ... and so much besides, for those who buy little.
const BESIDES: Msat = Msat(3_000);

/// Buyers who are being paid back at this moment.
pub(super) type Payees = Mutex<HashSet<PublicKey>>;

impl Treasury {
    /// Pays back to this invoice of a buyer's. The same one again answers how that stands: it is paid once.
    ///
    /// # Errors
    /// [`Error::NotLeft`], [`Error::Invoice`], [`Error::TooFar`], [`Error::Refunding`]; a wallet that cannot pay.
    pub async fn refund(
        &self,
        buyer: &PublicKey,
        order: &EventId,
        invoice: &str,
    ) -> Result<(), Error> {
        let (cashier, now) = (self.cashier()?, self.now());
        let invoice: Invoice = invoice
            .parse()
            .map_err(|_| Error::Invoice("it cannot be read"))?;
        let ledger = &self.shared.ledger;
        let is_new = ledger.intent(Direction::Outgoing, &invoice.hash()).await?;
        let mut _turn = None;
        if is_new.is_none() {
            _turn = Some(Turn::take(&self.shared.refunding, buyer).ok_or(Error::Refunding)?);
            let left = ledger.credit(buyer).await?.free;
            if invoice.amount() < MIN_PAYMENT.min(left) {
                return Err(Error::Invoice("it is for too small a part of what is left"));
            }
        }
        let max_fee = max_fee(ledger.custom(buyer).await?, invoice.amount());
        let due = Due {
            reason: Reason::Credit,
            counterparty: *buyer,
            award: Some(*order),
        };
        mortality::point("refund-asked");
        match cashier.pay(&due, &invoice, max_fee, None, now).await {
            Ok(intent) if intent.standing == Standing::Failed => {
                let max_fee = intent.max_fee;
                Err(Error::TooFar { max_fee })
            }
            Ok(_) => Ok(()),
            Err(cashier::Error::Ledger(ledger::Error::NotLeft { left })) => {
                Err(Error::NotLeft { left })
            }
            Err(cashier::Error::Ledger(ledger::Error::Conflict)) => {
                Err(Error::Invoice("it was another's"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// That a buyer is being paid back, until this is dropped.
struct Turn<'a> {
    of: &'a Payees,
    buyer: PublicKey,
}

impl<'a> Turn<'a> {
    fn take(of: &'a Payees, buyer: &PublicKey) -> Option<Self> {
        let mut all = of.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(*buyer).then_some(Self { of, buyer: *buyer })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.buyer);
    }
}

fn max_fee(custom: Custom, amount: Msat) -> Msat {
    let one = (amount.0 / 1_000 * FEE_PER_MILLE).saturating_add(FEE_BASE.0);
    let share = custom.charged.0 / 1_000 * SHARE_PER_MILLE;
    let all = share.saturating_add(BESIDES.0);
    Msat(one.min(all.saturating_sub(custom.routed.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paying_in_and_asking_back_earns_no_routing() {
        let custom = |charged, routed| Custom {
            charged: Msat(charged),
            routed: Msat(routed),
        };
        let much = Msat(100_000_000);
        assert_eq!(max_fee(custom(1_000, 0), much), Msat(3_005));
        assert_eq!(max_fee(custom(500_000_000, 0), much), Msat(1_001_000));
        assert_eq!(max_fee(custom(500_000_000, 2_000_000), much), Msat(503_000));
        assert_eq!(max_fee(custom(500_000_000, 9_000_000), much), Msat::ZERO);
        let little = Msat(10_000);
        assert_eq!(max_fee(custom(1_000, 0), little), Msat(1_100));
        assert_eq!(max_fee(custom(1_000, 2_900), little), Msat(105));
        assert_eq!(max_fee(custom(1_000, 3_005), little), Msat::ZERO);
    }
}
