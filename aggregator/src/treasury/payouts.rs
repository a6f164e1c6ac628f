//! Paying providers.
//!
//! A provider is told the totals with what is going to be paid, and answers an invoice for exactly that. The payment is
//! planned in the ledger together with the change of the bond, if the totals are still the same and no other payment
//! to it may be under way; so nothing is paid twice, whatever is asked twice.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use infernet_node::mortality;
use infernet_payments::ledger::{Due, Dues, Reason};
use infernet_payments::tab::MIN_PAYMENT;
use infernet_payments::{Cashier, Invoice};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Payout, payout_description};
use nostr::{PublicKey, Timestamp};

use super::{Error, Treasury, bond};

/// The least that is paid when nothing more has come for some time.
const LEAST: Msat = Msat(1_000);

/// After how long without accepted work less than [`MIN_PAYMENT`] is paid, too.
const IDLE: Duration = Duration::from_secs(600);

/// Less than that is not paid more often than this.
const LARGE: Msat = Msat(1_000_000);
const PAUSE: Duration = Duration::from_secs(30);

/// How soon a provider is asked again that does not answer, or cannot be paid; each time twice as late, ...
const FIRST_PAUSE: Duration = Duration::from_secs(3);

/// ... and this at most.
const MAX_PAUSE: Duration = Duration::from_secs(3_600);

/// Providers that are asked at a time.
const AT_ONCE: usize = 16;

/// Routing that a payout may cost: so much of it, in thousandths, ...
const FEE_PER_MILLE: u64 = 5;

/// ... and so much besides.
const FEE_BASE: Msat = Msat(1_000);

/// When a provider is asked next, and how often it was in vain.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience {
    next_at: Timestamp,
    failed: u32,
}

impl Treasury {
    /// Pays every provider that is owed enough.
    pub(super) async fn pay_out(&self) -> Result<(), Error> {
        let Ok(cashier) = self.cashier() else {
            return Ok(());
        };
        let owed = self.shared.ledger.owed().await?;
        let paying = stream::iter(owed).map(|provider| async move {
            let paid = self.pay_one(cashier, provider).await;
            if let Err(error) = paid {
                tracing::info!(%provider, %error, "a provider is not paid yet");
                self.failed(provider);
            }
        });
        paying.buffer_unordered(AT_ONCE).collect::<()>().await;
        Ok(())
    }

    async fn pay_one(&self, cashier: &Cashier, provider: PublicKey) -> Result<(), Trouble> {
        let now = self.now();
        let Some(dues) = self.shared.ledger.dues(&provider).await? else {
            return Ok(());
        };
        let pause = self.patience().get(&provider).copied().unwrap_or_default();
        let Some(payout) = next(&dues, pause, now) else {
            return Ok(());
        };
        mortality::point("payout-begun");
        let asked = self.shared.payees.invoice(provider, dues.award, &payout);
        let invoice = asked.await?;
        mortality::point("payout-asked");
        let now = self.now();
        check(&invoice, &dues, &payout, now)?;
        let due = Due {
            reason: Reason::Payout,
            counterparty: provider,
            award: Some(dues.award),
        };
        let max_fee = Msat(payout.pay_msat.0 / 1_000 * FEE_PER_MILLE + FEE_BASE.0);
        let ledger = &self.shared.ledger;
        ledger
            .plan_payout(&due, &payout, &invoice, max_fee, now)
            .await?;
        self.paying(provider, now);
        cashier.pay(&due, &invoice, max_fee, None, now).await?;
        tracing::info!(%provider, amount = %payout.pay_msat, bond = %payout.bond_msat, "a provider is paid");
        Ok(())
    }

    fn patience(&self) -> MutexGuard<'_, HashMap<PublicKey, Patience>> {
        let patience = &self.shared.patience;
        // Every change of it is whole before anything can panic.
        patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn paying(&self, provider: PublicKey, now: Timestamp) {
        let next = Patience {
            next_at: now + PAUSE,
            failed: 0,
        };
        self.patience().insert(provider, next);
    }

    fn failed(&self, provider: PublicKey) {
        let now = self.now();
        let mut all = self.patience();
        let one = all.entry(provider).or_default();
        one.failed = one.failed.saturating_add(1);
        let pause = FIRST_PAUSE * 2_u32.saturating_pow((one.failed - 1).min(16));
        one.next_at = now + pause.min(MAX_PAUSE);
    }
}

/// Why a provider is not paid now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    NotPayable(#[from] super::NotPayable),
    #[error("its invoice {0}")]
    Invoice(&'static str),
    #[error(transparent)]
    Ledger(#[from] infernet_payments::ledger::Error),
    #[error(transparent)]
    Cashier(#[from] infernet_payments::cashier::Error),
}

/// What to pay a provider now, if anything.
fn next(dues: &Dues, pause: Patience, now: Timestamp) -> Option<Payout> {
    if dues.is_being_paid {
        return None;
    }
    let bond = bond::after_payout(dues, now);
    let pay = dues.unpaid().checked_sub(bond)?;
    // Who is owed much is not kept waiting, unless it cannot be paid.
    let is_time = now >= pause.next_at || (pause.failed == 0 && pay >= LARGE);
    let is_idle = now >= dues.last_at + IDLE && pay >= LEAST;
    let is_worth_it = pay >= MIN_PAYMENT || is_idle;
    (is_time && is_worth_it).then(|| Payout {
        rejected: dues.rejected.clone(),
        accepted_msat: dues.accepted,
        bond_msat: bond,
        forfeited_msat: dues.forfeited,
        paid_msat: dues.paid,
        pay_msat: pay,
    })
}

fn check(invoice: &Invoice, dues: &Dues, payout: &Payout, now: Timestamp) -> Result<(), Trouble> {
    if invoice.amount() != payout.pay_msat {
        return Err(Trouble::Invoice("is for another amount"));
    }
    if invoice.description() != Some(payout_description(&dues.award)) {
        return Err(Trouble::Invoice("does not name the work"));
    }
    match invoice.is_expired(now) {
        true => Err(Trouble::Invoice("has run out")),
        false => Ok(()),
    }
}
