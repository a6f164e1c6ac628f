//! Paying invoices, and hearing how payments end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use infernet_payments::cashier::{self, Change};
use infernet_payments::ledger::{self, Budget, Due, Intent, Reason, Standing};
use infernet_payments::rail::{self, Ask, Direction};
use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::event::ReceiptSide;
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey};
use tokio::sync::{OnceCell, broadcast};
use tokio::time::timeout;

use super::checks::{chain, is_on, short};
use super::{Attempt, Error, Flaw, Purse};

/// What a daily budget is for.
pub(super) const A_DAY: Duration = Duration::from_secs(24 * 3_600);

/// How long the wallet has to say what is in it, once in a ledger's life.
const BOOKS_PATIENCE: Duration = Duration::from_secs(5);

/// How long an invoice lives that only shows which chain the wallet is on.
const PROBE_EXPIRY: Duration = Duration::from_secs(60);

/// Why a top-up was not paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// In words.
    pub why: String,
    /// Whether another try, with another invoice, may do better.
    pub is_temporary: bool,
}

impl Trouble {
    pub(super) fn of(error: &Error) -> Self {
        let is_temporary = match error {
            Error::Cashier(cashier::Error::Rail(error)) => {
                error.is_temporary() || matches!(error, rail::Error::Refused(_))
            }
            _ => false,
        };
        Self {
            why: in_words(error),
            is_temporary,
        }
    }
}

/// What can be done about it, where the error does not say.
fn in_words(error: &Error) -> String {
    match error {
        Error::Cashier(cashier::Error::Ledger(ledger::Error::OverBudget { most, spent })) => {
            format!(
                "{spent} of the {most} for 24 hours are spent; wait, or raise daily_sats in client.toml"
            )
        }
        Error::Cashier(cashier::Error::Rail(rail::Error::InsufficientBalance)) => {
            "there is not enough money in your wallet".into()
        }
        Error::Cashier(cashier::Error::Rail(rail::Error::NotPermitted)) => {
            "your wallet does not let this connection pay; make one that may, in the wallet".into()
        }
        error => error.to_string(),
    }
}

/// An attempt that is being paid for, and that it is written down.
type Written = (Arc<Attempt>, Arc<OnceCell<()>>);

impl Purse {
    /// Returns once the attempt is written down.
    pub(super) async fn is_written(&self, (attempt, written): &Written) -> Result<(), Error> {
        let attempts = self.shared.books.attempts();
        let writing = written.get_or_try_init(|| attempts.put(attempt));
        writing.await.copied()
    }

    /// Pays an invoice about an award, in a task of its own.
    pub(super) fn pay(
        &self,
        provider: PublicKey,
        award: EventId,
        invoice: Invoice,
        attempt: Option<Written>,
    ) {
        let purse = self.clone();
        // Not one that a client waits for when it goes: the next process finds what is under way.
        tokio::spawn(async move {
            let hash = invoice.hash();
            // Whoever took up the tab before this is written down would not count it, and pay as much again.
            let Some(lease) = purse.join(provider, &hash) else {
                return;
            };
            let closing = purse.shared.closing.clone();
            let prepared = tokio::select! {
                prepared = purse.prepare(attempt) => prepared,
                () = closing.cancelled() => return,
            };
            tracing::info!(payment = short(&hash), amount = %invoice.amount(), %provider, "paying");
            let paying = async {
                prepared?;
                purse.pay_now(&provider, award, &invoice).await
            };
            let mut paying = pin!(paying);
            let paid = tokio::select! {
                paid = &mut paying => paid,
                // It is written down by now, or is at once: the next one to take up the tab finds it.
                () = closing.cancelled() => {
                    drop(lease);
                    paying.await
                }
            };
            let trouble = match paid {
                Ok(Standing::Failed) => Some(no_route()),
                Ok(_) => None,
                Err(error) => Some(Trouble::of(&error)),
            };
            purse.paid(&provider, award, &hash, trouble).await;
        });
    }

    /// Takes what a wallet holds into a new ledger, before anything is paid from it.
    pub(super) async fn open_books(&self) {
        let opened = &self.shared.opened;
        let opening = || async {
            let opening = self.shared.cashier.open_books(clock::now());
            match timeout(BOOKS_PATIENCE, opening).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the ledger begins without the wallet's contents")
                }
                Err(_) => {
                    tracing::warn!("the ledger begins without the wallet's contents: it is slow")
                }
            }
        };
        opened.get_or_init(opening).await;
    }

    /// Does what comes before a payment.
    async fn prepare(&self, attempt: Option<Written>) -> Result<(), Error> {
        if let Some(attempt) = &attempt {
            self.is_written(attempt).await?;
        }
        self.open_books().await;
        Ok(())
    }

    async fn pay_now(
        &self,
        provider: &PublicKey,
        award: EventId,
        invoice: &Invoice,
    ) -> Result<Standing, Error> {
        let due = Due {
            reason: Reason::TopUp,
            counterparty: *provider,
            award: Some(award),
        };
        let now = clock::now();
        let limits = self.shared.limits;
        let budget = Budget {
            most: limits.daily,
            since: now - A_DAY,
        };
        let paying = self.shared.cashier.pay(
            &due,
            invoice,
            limits.fee_for(invoice.amount()),
            Some(budget),
            now,
        );
        Ok(paying.await?.standing)
    }

    /// A payment's task is over: the job is told if it came to nothing.
    async fn paid(
        &self,
        provider: &PublicKey,
        award: EventId,
        hash: &PaymentHash,
        mut trouble: Option<Trouble>,
    ) {
        if trouble.is_none() {
            self.with(provider, |tab| tab.leaves(hash));
            // It may have failed since it was asked about.
            let intent = self
                .shared
                .books
                .ledger()
                .intent(Direction::Outgoing, hash)
                .await;
            let failed =
                |intent: Option<Intent>| intent.is_some_and(|i| i.standing == Standing::Failed);
            trouble = intent.is_ok_and(failed).then(no_route);
        }
        let Some(trouble) = trouble else { return };
        tracing::warn!(payment = short(hash), why = trouble.why, "not paid");
        self.with(provider, |tab| tab.gives_up(self, *hash, award, trouble));
    }

    /// Hears how payments end, until the cashier is gone.
    pub(super) async fn book(&self, mut changes: broadcast::Receiver<Change>) {
        loop {
            match changes.recv().await {
                Ok(change) if change.intent.direction == Direction::Incoming => {
                    self.paid_back(&change.intent.counterparty).await;
                }
                Ok(change) => self.changed(&change),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    tracing::warn!("so many payments at a time that some were not heard of");
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn changed(&self, change: &Change) {
        let Change {
            intent,
            amount,
            fee,
        } = change;
        let Some(hash) = intent.hash() else { return };
        let about = intent.award;
        self.with(&intent.counterparty, |tab| match intent.standing {
            Standing::Settled => tab.settle(self, hash, *amount, *fee, about),
            Standing::Failed => tab.fail(self, hash, about, no_route()),
            Standing::Planned | Standing::UnderWay | Standing::Held => {}
        });
    }

    /// A refund has come, which nobody waits for any more.
    async fn paid_back(&self, provider: &PublicKey) {
        let ledger = self.shared.books.ledger();
        let Ok(carried) = ledger.carried(provider, ReceiptSide::Buyer).await else {
            return;
        };
        self.with(provider, |tab| tab.refund_down_to(self, carried.paid));
    }

    /// Checks that an invoice is for money on the wallet's chain.
    pub async fn is_payable_here(&self, invoice: &Invoice) -> Result<(), Flaw> {
        let ours = self.shared.books.chain(|| self.probe()).await;
        is_on(ours, invoice)
    }

    /// The chain of the wallet, as an invoice of its own shows it; none if it makes no invoices.
    async fn probe(&self) -> Result<Option<String>, rail::Error> {
        let ask = Ask {
            amount: Msat(1_000),
            description: "shows which chain the wallet is on".into(),
            expiry: PROBE_EXPIRY,
        };
        match self.shared.cashier.rail().make_invoice(&ask).await {
            Ok(invoice) => Ok(Some(chain(&invoice))),
            Err(error) => {
                tracing::debug!(%error, "the wallet's chain is not known");
                match error.is_temporary() {
                    true => Err(error),
                    false => Ok(None),
                }
            }
        }
    }

    /// Whether the wallet answers.
    pub async fn wallet_answers(&self) -> bool {
        self.shared.cashier.rail().balance().await.is_ok()
    }

    /// What was paid during an award, and whether more is under way.
    pub(super) async fn payments(&self, award: &EventId) -> Result<Payments, Error> {
        let intents = self.shared.books.ledger().intents_about(award).await?;
        let mut payments = Payments::default();
        for intent in intents {
            match (intent.direction, intent.standing, intent.hash()) {
                (Direction::Outgoing, Standing::Settled, Some(hash)) => {
                    payments.paid = Msat(payments.paid.0.saturating_add(intent.amount.0));
                    payments.hashes.push(hash);
                }
                (Direction::Outgoing, Standing::Planned | Standing::UnderWay, _) => {
                    payments.is_going_on = true;
                }
                _ => {}
            }
        }
        Ok(payments)
    }
}

/// What was paid during an award.
#[derive(Debug, Default)]
pub(super) struct Payments {
    pub paid: Msat,
    pub hashes: Vec<PaymentHash>,
    /// Whether one may still be done.
    pub is_going_on: bool,
}

fn no_route() -> Trouble {
    Trouble {
        why: "the wallet found no way to the provider, or the provider's wallet refused".into(),
        is_temporary: true,
    }
}
