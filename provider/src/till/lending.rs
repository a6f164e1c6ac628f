//! Work that an aggregator pays for once it has checked it: who is trusted with that,
//! and with how much.
//!
//! **Invariant:** what an aggregator owes, what it would not pay for beyond a tenth of what
//! it has paid, and what its open work may still cost, are together no more than we lend it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use infernet_payments::ledger::Escrow as Standing;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::Decline;
use nostr::PublicKey;

use super::Till;
use crate::options::Escrow;

/// Why work is not done in escrow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLent {
    /// Pay another way.
    #[error("this provider does not work for you in escrow")]
    Stranger,
    /// Pay for what was accepted first.
    #[error("you may owe {most} here, and with this work it could be more; pay what was accepted")]
    TooMuch {
        /// The most that the aggregator may owe.
        most: Msat,
    },
    /// Try again later.
    #[error("the provider's ledger has a fault")]
    Ledger,
}

impl NotLent {
    /// What that is to a buyer.
    pub const fn decline(&self) -> Decline {
        match self {
            Self::Stranger | Self::TooMuch { .. } => Decline::Terms,
            Self::Ledger => Decline::Busy,
        }
    }
}

/// What is lent, and to whom it may be.
#[derive(Debug)]
pub(super) struct Lending {
    escrow: Escrow,
    /// What open work may cost at most, of each aggregator.
    open: Mutex<HashMap<PublicKey, Msat>>,
}

impl Lending {
    pub(super) fn new(escrow: Escrow) -> Self {
        Self {
            escrow,
            open: Mutex::default(),
        }
    }

    /// Counts something more as open; answers how much that is in all, or nothing if it
    /// would be more than there is.
    fn open(&self, aggregator: &PublicKey, most: Msat) -> Option<Msat> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let before = open.get(aggregator).copied().unwrap_or_default();
        let now = before.checked_add(most)?;
        open.insert(*aggregator, now);
        Some(now)
    }

    fn close(&self, aggregator: &PublicKey, most: Msat) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let before = open.remove(aggregator).unwrap_or_default();
        let left = Msat(before.0.saturating_sub(most.0));
        if left > Msat::ZERO {
            open.insert(*aggregator, left);
        }
    }
}

/// Work that is done on credit. Dropped once what it has cost is in the ledger.
#[derive(Debug)]
pub struct Loan {
    till: Till,
    aggregator: PublicKey,
    most: Msat,
}

impl Till {
    /// Takes work on for an aggregator that pays after its check, which may cost so much.
    ///
    /// # Errors
    /// Why not.
    pub async fn lend(&self, aggregator: &PublicKey, most: Msat) -> Result<Loan, NotLent> {
        let lending = &self.0.lending;
        if !lending.escrow.from.contains(aggregator) {
            return Err(NotLent::Stranger);
        }
        let max_owed = lending.escrow.max_owed;
        let too_much = NotLent::TooMuch { most: max_owed };
        // Counted before the ledger is read: what ends meanwhile is counted twice, not never.
        let open = lending.open(aggregator, most).ok_or(too_much.clone())?;
        let loan = Loan {
            till: self.clone(),
            aggregator: *aggregator,
            most,
        };
        let escrow = self.0.cashier.ledger().escrow(aggregator).await;
        let escrow = escrow.map_err(|error| {
            tracing::error!(%error, "cannot read what an aggregator owes");
            NotLent::Ledger
        })?;
        match at_stake(&escrow).checked_add(open) {
            Some(all) if all <= max_owed => Ok(loan),
            _ => Err(too_much),
        }
    }

    /// Whether this is somebody who may pay after the fact.
    pub fn lends_to(&self, aggregator: &PublicKey) -> bool {
        self.0.lending.escrow.from.contains(aggregator)
    }
}

/// What counts against what is lent. That work is rejected is the aggregator's word alone:
/// one that rejects, or keeps of the bond, more than a tenth of what it has paid could
/// else borrow for ever.
fn at_stake(escrow: &Standing) -> Msat {
    let refused = escrow.rejected.0.saturating_add(escrow.forfeited.0);
    let excess = refused.saturating_sub(escrow.paid.0 / 10);
    escrow.owed.checked_add(Msat(excess)).unwrap_or(Msat::MAX)
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.till.0.lending.close(&self.aggregator, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_rejects_much_borrows_less() {
        let stake = |owed, rejected, forfeited, paid| {
            let standing = Standing {
                owed: Msat(owed),
                rejected: Msat(rejected),
                forfeited: Msat(forfeited),
                paid: Msat(paid),
                ..Standing::default()
            };
            at_stake(&standing).0
        };
        assert_eq!(stake(50, 0, 0, 0), 50);
        // All of it rejected, and nothing ever paid: nothing is free again.
        assert_eq!(stake(0, 700, 300, 0), 1_000);
        // A tenth of what it has paid is what honest trade may bring.
        assert_eq!(stake(20, 70, 30, 1_000), 20);
        assert_eq!(stake(20, 170, 30, 1_000), 120);
    }
}
