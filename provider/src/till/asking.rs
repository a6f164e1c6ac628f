//! Asking buyers for money.

use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use infernet_payments::cashier;
use infernet_payments::ledger::{self, Caps, Due, Reason};
use infernet_payments::rail::Ask;
use infernet_protocol::job::Millis;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::invoice_description;
use tokio::time::timeout;

use super::account::{Account, Bill, Book};
use super::{Till, WALLET_PATIENCE, no_answer};

/// How long an invoice can be paid: longer than anybody waits for money here,
/// and short enough that invoices which nobody pays do not pile up.
const INVOICE_LIFE: Duration = Duration::from_secs(180);

/// Unpaid invoices of those who have never paid. A flood of them leaves room for
/// those who have.
const STRANGERS: Caps = Caps {
    for_one: 4,
    in_all: 600,
};

/// Unpaid invoices of those who have paid before: so many of one, ...
const CUSTOMERS: Caps = Caps {
    for_one: 8,
    in_all: 2_000,
};

/// ... and one more for each of the smallest top-ups that it has paid, up to so
/// many. To take all there are has to cost something.
const MOST_FOR_ONE: u64 = 64;

impl Till {
    /// Tells an account something, and asks for the money that it then wants.
    pub(super) fn step(
        &self,
        account: &Arc<Account>,
        act: impl FnOnce(&mut Book, Millis) -> Option<Bill>,
    ) {
        let bill = act(&mut account.book(), self.0.clock.now());
        self.ask(account, bill);
    }

    /// Asks for money, beside whoever needs it.
    pub(super) fn ask(&self, account: &Arc<Account>, bill: Option<Bill>) {
        let Some(bill) = bill else { return };
        tracing::debug!(award = %bill.ticket.award, "a top-up is needed");
        let (till, account) = (self.clone(), account.clone());
        tokio::spawn(async move {
            if let Err(why) = till.send_bill(&account, &bill).await {
                let now = till.0.clock.now();
                account.book().cannot_ask(now, &why);
            }
        });
    }

    /// Whether there is room for one more invoice, before anything is written for it.
    async fn check_caps(&self, account: &Account, caps: Caps) -> Result<(), String> {
        let ledger = self.0.cashier.ledger();
        let unpaid = ledger.unpaid_invoices(&account.buyer).await;
        let (theirs, all) = unpaid.map_err(|error| plainly(&error.into()))?;
        match theirs >= caps.for_one || all >= caps.in_all {
            true => Err(ledger::Error::TooManyInvoices { theirs, all }.to_string()),
            false => Ok(()),
        }
    }

    async fn send_bill(&self, account: &Arc<Account>, bill: &Bill) -> Result<(), String> {
        let award = bill.ticket.award;
        let caps = caps(bill, self.0.terms.min_top_up);
        self.check_caps(account, caps).await?;
        // A receipt over what is paid needs it, whatever becomes of the award.
        if let Err(error) = self.0.store.open_ticket(&bill.ticket).await {
            tracing::error!(%award, %error, "cannot write a ticket");
            return Err("the provider's disk has a fault".to_owned());
        }
        let due = Due {
            reason: Reason::TopUp,
            counterparty: account.buyer,
            award: Some(award),
        };
        let ask = Ask {
            amount: bill.amount,
            description: invoice_description(&award),
            expiry: INVOICE_LIFE,
        };
        let made = self.0.cashier.invoice(&due, &ask, caps, clock::now());
        // What was planned is given up in time.
        let made = timeout(WALLET_PATIENCE, made).await;
        let made = made.unwrap_or_else(|_| Err(no_answer().into()));
        let invoice = made.map_err(|error| {
            tracing::warn!(%award, peer = %account.buyer, %error, "cannot ask for money");
            plainly(&error)
        })?;
        let (peer, payment) = (account.buyer, invoice.hash());
        tracing::info!(%award, %peer, %payment, amount = %bill.amount, "asks for a top-up");
        self.step(account, |book, now| book.asks(now, award, &invoice));
        Ok(())
    }
}

/// How many invoices may wait to be paid when there is to be one more. What nobody
/// waits for leaves half of them: jobs that were paid for and cut short, each with
/// an invoice for what it would have needed, keep no other from asking.
fn caps(bill: &Bill, min_top_up: Msat) -> Caps {
    let caps = caps_of(bill.paid, min_top_up);
    match bill.is_ahead {
        true => Caps {
            for_one: caps.for_one / 2,
            ..caps
        },
        false => caps,
    }
}

/// How many invoices may wait to be paid by one who has paid so much.
fn caps_of(paid: Msat, min_top_up: Msat) -> Caps {
    if paid == Msat::ZERO {
        return STRANGERS;
    }
    let more = paid.0.checked_div(min_top_up.0).unwrap_or(MOST_FOR_ONE);
    let for_one = CUSTOMERS.for_one.saturating_add(more).min(MOST_FOR_ONE);
    Caps {
        for_one,
        ..CUSTOMERS
    }
}

/// What a buyer is told. Words of the wallet are for the owner alone.
fn plainly(error: &cashier::Error) -> String {
    match error {
        cashier::Error::Ledger(error @ ledger::Error::TooManyInvoices { .. }) => error.to_string(),
        cashier::Error::Ledger(_) => "the provider's ledger has a fault".to_owned(),
        cashier::Error::Rail(error) if error.is_temporary() => {
            "the provider's wallet cannot be reached".to_owned()
        }
        cashier::Error::Rail(_) => "the provider's wallet makes no invoice".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_paid_little_takes_few_invoices_from_others() {
        let least = Msat(10_000);
        let of = |paid: u64| caps_of(Msat(paid), least).for_one;
        assert_eq!((of(0), of(1), of(10_000)), (4, 8, 9));
        assert_eq!((of(100_000), of(u64::MAX)), (18, 64));
        // What is left to customers cannot be had for less.
        let room = CUSTOMERS.in_all - STRANGERS.in_all;
        assert!(room / of(10_000) * least.0 >= 1_500_000);
    }
}
