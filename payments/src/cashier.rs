//! Pays and gets paid, so that no crash loses or doubles anything.
//!
//! A payment goes through three steps, each written to the ledger before the next begins: the intent is *planned*;
//! it is *under way* from before the wallet is told; and it is *settled*, with its posting in the same change, once
//! the wallet says so. Whatever happens in between, [`Cashier::resume`] asks the wallet how each open intent stands,
//! and books what it says:
//!
//! - planned: the wallet was never told. It is given up; nobody waits for it after a restart.
//! - under way: the wallet may have been told. It is settled or failed when the wallet says so. A wallet that has
//!   never heard of it may still do so while the request or the invoice lives, so only then has it failed.
//! - failed: what we were told. Should the money move all the same, it is booked.

use std::sync::Arc;
use std::time::Duration;

use infernet_protocol::money::Msat;
use nostr::Timestamp;
use tokio::sync::broadcast;

use crate::ledger::{self, Budget, Caps, Due, Intent, Ledger, Planned, Report, Standing};
use crate::rail::{Ask, Direction, Notice, Notices, Order, Payment, PaymentRail, State};
use crate::{Invoice, PaymentHash, rail};

/// How long a request to the wallet may be on its way, with room for clocks that differ.
const REQUEST_LIFE: Duration = Duration::from_secs(180);

/// Changes that may wait for a slow reader; one who misses some asks the ledger.
const MAX_UNREAD: usize = 1_024;

/// Why the cashier did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger cannot be written: stop, for nothing may be paid that is not written down.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The wallet did not do it; nothing is under way.
    #[error(transparent)]
    Rail(#[from] rail::Error),
}

/// An intent that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The intent, as it stands now.
    pub intent: Intent,
    /// What came or went, if it is settled.
    pub amount: Msat,
    /// What routing cost us.
    pub fee: Msat,
}

/// Pays and gets paid. Clones are cheap and share the ledger and the wallet.
#[derive(Debug, Clone)]
pub struct Cashier {
    rail: Arc<dyn PaymentRail>,
    ledger: Ledger,
    changes: broadcast::Sender<Change>,
}

impl Cashier {
    /// A cashier for this wallet and this ledger.
    pub fn new(rail: Arc<dyn PaymentRail>, ledger: Ledger) -> Self {
        Self {
            rail,
            ledger,
            changes: broadcast::channel(MAX_UNREAD).0,
        }
    }

    /// The ledger.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The wallet.
    pub fn rail(&self) -> &Arc<dyn PaymentRail> {
        &self.rail
    }

    /// Follows what settles and fails from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Pays an invoice; the same one again answers how that stands, and pays nothing.
    ///
    /// # Errors
    /// [`ledger::Error::OverBudget`]; what the wallet refuses.
    pub async fn pay(
        &self,
        due: &Due,
        invoice: &Invoice,
        max_fee: Msat,
        budget: Option<Budget>,
        now: Timestamp,
    ) -> Result<Intent, Error> {
        let planned = self
            .ledger
            .plan_payment(due, invoice, max_fee, budget, now)
            .await?;
        let intent = match planned {
            Planned::Now(intent) => intent,
            Planned::Before(intent) => return Ok(intent),
        };
        if !self
            .step(&intent, Standing::Planned, Standing::UnderWay, now)
            .await?
        {
            return self.reread(intent).await;
        }
        let order = Order {
            key: intent.key,
            invoice: invoice.clone(),
            max_fee,
        };
        match self.rail.pay(&order).await {
            Ok(payment) => {
                self.book(&intent, &payment, now).await?;
                self.reread(intent).await
            }
            Err(error) => {
                self.fail(&intent, Standing::UnderWay, now).await?;
                Err(error.into())
            }
        }
    }

    /// Asks for a payment: the invoice is written down before anybody sees it.
    ///
    /// # Errors
    /// [`ledger::Error::TooManyInvoices`]; what the wallet refuses.
    pub async fn invoice(
        &self,
        due: &Due,
        ask: &Ask,
        caps: Caps,
        now: Timestamp,
    ) -> Result<Invoice, Error> {
        let planned = self.ledger.plan_invoice(due, ask.amount, caps, now);
        let intent = planned.await?;
        let invoice = match self.rail.make_invoice(ask).await {
            Ok(invoice) => invoice,
            Err(error) => {
                self.fail(&intent, Standing::Planned, now).await?;
                return Err(error.into());
            }
        };
        match self.ledger.invoiced(&intent.key, &invoice, now).await? {
            true => Ok(invoice),
            false => Err(rail::Error::Refused("the invoice came too late".to_owned()).into()),
        }
    }

    /// Books what a notice says; after a gap, asks for everything that is open.
    ///
    /// # Errors
    /// [`Error::Ledger`]. A wallet that cannot be asked is asked again with the next call.
    pub async fn hear(&self, notice: &Notice, now: Timestamp) -> Result<(), Error> {
        let payment = match notice {
            Notice::Changed(payment) => payment,
            Notice::Gap => return self.look(now).await,
        };
        let intent = self.ledger.intent(payment.direction, &payment.hash).await?;
        match intent {
            Some(intent) => self.book(&intent, payment, now).await,
            None => Ok(()),
        }
    }

    /// Takes up after a restart: gives up what the wallet was never told, and asks for the rest.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn resume(&self, now: Timestamp) -> Result<(), Error> {
        for intent in self.ledger.open_intents().await? {
            if intent.standing == Standing::Planned {
                self.fail(&intent, Standing::Planned, now).await?;
            }
        }
        self.look(now).await
    }

    /// Asks the wallet how everything that is under way stands.
    ///
    /// # Errors
    /// [`Error::Ledger`]. A wallet that cannot be asked is asked again with the next call.
    pub async fn look(&self, now: Timestamp) -> Result<(), Error> {
        for intent in self.ledger.open_intents().await? {
            if intent.standing == Standing::UnderWay {
                self.ask_about(&intent, now).await?;
            }
        }
        Ok(())
    }

    /// Follows the wallet's notices, and looks every `often` besides, until dropped. `now` is the wall clock.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn follow(
        &self,
        mut notices: Notices,
        often: Duration,
        now: impl Fn() -> Timestamp,
    ) -> Result<(), Error> {
        let mut round = tokio::time::interval(often);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                notice = notices.next() => match notice {
                    Some(notice) => self.hear(&notice, now()).await?,
                    None => return Ok(()),
                },
                _ = round.tick() => self.look(now()).await?,
            }
        }
    }

    /// Compares the ledger with the wallet, after booking what is done.
    ///
    /// # Errors
    /// [`Error::Rail`] if the wallet cannot be asked.
    pub async fn reconcile(&self, now: Timestamp) -> Result<Report, Error> {
        self.look(now).await?;
        let payments = self.rail.list(Timestamp::from_secs(0)).await?;
        // What settled after all, though we were told otherwise.
        for payment in &payments {
            if matches!(payment.state, State::Settled { .. }) {
                self.hear(&Notice::Changed(payment.clone()), now).await?;
            }
        }
        let balance = self.rail.balance().await?;
        Ok(self.ledger.reconcile(&payments, balance).await?)
    }

    async fn ask_about(&self, intent: &Intent, now: Timestamp) -> Result<(), Error> {
        let Some(hash) = intent.hash() else {
            return Ok(());
        };
        match self.rail.look_up(intent.direction, &hash).await {
            Ok(Some(payment)) => self.book(intent, &payment, now).await,
            Ok(None) if is_hopeless(intent, now) => {
                self.fail(intent, Standing::UnderWay, now).await
            }
            Ok(None) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "the wallet cannot be asked about a payment");
                Ok(())
            }
        }
    }

    /// Writes down what the wallet says of an intent.
    async fn book(&self, intent: &Intent, payment: &Payment, now: Timestamp) -> Result<(), Error> {
        match payment.state {
            State::Pending | State::Held => Ok(()),
            State::Settled { at, fee, .. } => self.settle(intent, payment, fee, at).await,
            State::Failed | State::Expired if intent.standing == Standing::Failed => Ok(()),
            State::Failed | State::Expired => self.fail(intent, Standing::UnderWay, now).await,
        }
    }

    async fn settle(
        &self,
        intent: &Intent,
        payment: &Payment,
        fee: Msat,
        at: Timestamp,
    ) -> Result<(), Error> {
        if intent.direction == Direction::Outgoing && fee > intent.max_fee {
            tracing::warn!(payment = %payment.hash, %fee, "routing cost more than was allowed");
        }
        let is_new = self.ledger.settle(intent, payment.amount, fee, at).await?;
        if is_new {
            self.tell(intent, Standing::Settled, payment.amount, fee);
        }
        Ok(())
    }

    async fn fail(&self, intent: &Intent, from: Standing, now: Timestamp) -> Result<(), Error> {
        if self.step(intent, from, Standing::Failed, now).await? {
            self.tell(intent, Standing::Failed, Msat::ZERO, Msat::ZERO);
        }
        Ok(())
    }

    async fn step(
        &self,
        intent: &Intent,
        from: Standing,
        to: Standing,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let done = self.ledger.change_standing(&intent.key, from, to, now);
        Ok(done.await?)
    }

    fn tell(&self, intent: &Intent, standing: Standing, amount: Msat, fee: Msat) {
        let change = Change {
            intent: Intent {
                standing,
                ..intent.clone()
            },
            amount,
            fee,
        };
        // Nobody may be listening.
        let _ = self.changes.send(change);
    }

    /// An intent as it stands now.
    async fn reread(&self, intent: Intent) -> Result<Intent, Error> {
        let hash: Option<PaymentHash> = intent.hash();
        let Some(hash) = hash else { return Ok(intent) };
        let known = self.ledger.intent(intent.direction, &hash).await?;
        Ok(known.unwrap_or(intent))
    }
}

/// Whether an intent that the wallet has never heard of will never come to it: the request has died, and the
/// invoice with it.
fn is_hopeless(intent: &Intent, now: Timestamp) -> bool {
    let invoice = intent.invoice.as_ref();
    let is_expired = invoice.is_none_or(|invoice| invoice.is_expired(now));
    is_expired && now >= intent.changed_at + REQUEST_LIFE
}
