//! Paying back what is left of a buyer's credit.
//!
//! We bear the routing, but it may be the buyer's own: paying in and asking back must bring it nothing. So the refunds
//! of a buyer may cost no more than a share of what it was charged.

use infernet_node::mortality;
use infernet_payments::ledger::{self, Custom, Due, Reason, Standing};
use infernet_payments::{Invoice, cashier};
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey};

use super::{Error, Treasury};

/// Routing that one refund may cost: so much of it, in thousandths, ...
const FEE_PER_MILLE: u64 = 10;

/// ... and so much besides.
const FEE_BASE: Msat = Msat(1_000);

/// What the refunds of a buyer may cost in all: so much of what it was charged, in thousandths, which is less than the
/// fee on that.
const SHARE_PER_MILLE: u64 = 5;

impl Treasury {
    /// Pays back to this invoice of a buyer's. The same one again answers how that stands: it is paid once.
    ///
    /// # Errors
    /// [`Error::NotLeft`], [`Error::Invoice`], [`Error::TooFar`]; a wallet that cannot pay.
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
        let max_fee = max_fee(self.shared.ledger.custom(buyer).await?, invoice.amount());
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

fn max_fee(custom: Custom, amount: Msat) -> Msat {
    let one = amount.0 / 1_000 * FEE_PER_MILLE;
    let share = custom.charged.0 / 1_000 * SHARE_PER_MILLE;
    let left = share.saturating_sub(custom.routed.0);
    Msat(one.min(left).saturating_add(FEE_BASE.0))
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
        assert_eq!(max_fee(custom(1_000, 0), much), Msat(1_005));
        assert_eq!(max_fee(custom(500_000_000, 0), much), Msat(1_001_000));
        assert_eq!(max_fee(custom(500_000_000, 2_000_000), much), Msat(501_000));
        assert_eq!(max_fee(custom(500_000_000, 9_000_000), much), FEE_BASE);
    }
}
