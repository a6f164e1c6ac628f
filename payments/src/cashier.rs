//! Pays and gets paid, so that no crash loses or doubles anything.
//!
//! A payment goes through three steps, each written to the ledger before the next begins: the intent is *planned*;
//! it is *under way* from before the wallet is told; and it is *settled*, with its posting in the same change, once
//! the wallet says so. Whatever happens in between, [`Cashier::look`] asks the wallet how each open intent stands,
//! and books what it says:
//!
//! - planned: the wallet was never told. Whoever pays that invoice goes on from there; if nobody does for a while, as
//!   after a crash, it is given up. Not at once: another process may be about to.
//! - under way: the wallet may have been told. It is settled or failed when the wallet says so. A wallet that has
//!   never heard of it may still do so while the request or the invoice lives, so only then has it failed. An
//!   invoice of ours that has run out has failed too.
//! - failed: what we were told. Should the money move all the same, it is booked.
//!
//! Several processes may share a ledger and a wallet. Each books what it hears of; who has begun a payment is told of
//! it, whoever has booked it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use infernet_node::mortality;
use infernet_protocol::money::Msat;
use nostr::{PublicKey, Timestamp};
use tokio::sync::{Mutex, Notify, broadcast};

use crate::ledger::{
    self, Budget, Caps, Due, Hold, Intent, Ledger, Planned, Reason, Report, Standing,
};
use crate::rail::{Ask, Direction, Notice, Notices, Order, OrderKey, Payment, PaymentRail, State};
use crate::{Invoice, PaymentHash, rail};

/// How long a request to the wallet, or the last payment of an invoice, may be on its way, with room for clocks that
/// differ.
pub(crate) const REQUEST_LIFE: Duration = Duration::from_secs(180);

/// Changes that may wait for a slow reader; one who misses some asks the ledger.
const MAX_UNREAD: usize = 1_024;

/// Questions to the wallet at a time: a hundred open invoices are not a hundred round trips, and a wallet behind a
/// small relay is not flooded.
const MAX_LOOKS: usize = 8;

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
    /// What we have begun and not told the end of. Held from booking an end to telling it, so that it is told once.
    awaited: Arc<Mutex<BTreeMap<OrderKey, Intent>>>,
}

impl Cashier {
    /// A cashier for this wallet and this ledger.
    pub fn new(rail: Arc<dyn PaymentRail>, ledger: Ledger) -> Self {
        Self {
            rail,
            ledger,
            changes: broadcast::channel(MAX_UNREAD).0,
            awaited: Arc::default(),
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

    /// Follows what settles and fails from now on, each once. One who lags, or begins after a crash, reads the
    /// ledger.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Pays an invoice; the same one again answers how that stands, and pays nothing. What has failed stays so:
    /// another try needs another invoice.
    ///
    /// # Errors
    /// [`ledger::Error::OverBudget`], [`ledger::Error::NotLeft`] and [`ledger::Error::Conflict`], as
    /// [`Ledger::plan_payment`] has them; what the wallet refuses.
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
            // Whoever planned it has died, or is as far as we are: one of us goes on.
            Planned::Before(intent) if intent.standing == Standing::Planned => intent,
            Planned::Before(intent) => return Ok(intent),
        };
        mortality::point(points(due.reason).0);
        if !self
            .step(&intent, Standing::Planned, Standing::UnderWay, now)
            .await?
        {
            return self.reread(intent).await;
        }
        let intent = self.await_end(intent, invoice, now).await;
        let order = Order {
            key: intent.key,
            invoice: invoice.clone(),
            max_fee: intent.max_fee,
        };
        if due.reason == Reason::TopUp {
            mortality::point("payment-under-way");
        }
        let answer = self.rail.pay(&order).await;
        mortality::point(points(due.reason).1);
        match answer {
            Ok(payment) => {
                self.book(&intent, &payment, now).await?;
                mortality::point(points(due.reason).2);
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
        mortality::point("invoice-planned");
        let invoice = match self.rail.make_invoice(ask).await {
            Ok(invoice) => invoice,
            Err(error) => {
                self.fail(&intent, Standing::Planned, now).await?;
                return Err(error.into());
            }
        };
        mortality::point("invoice-made");
        if !self.ledger.invoiced(&intent.key, &invoice, now).await? {
            self.fail(&intent, Standing::Planned, now).await?;
            let useless = "an invoice that came too late, or came before".to_owned();
            return Err(rail::Error::Nonsense(useless).into());
        }
        self.await_end(intent, &invoice, now).await;
        Ok(invoice)
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

    /// Takes up after a restart: asks the wallet how everything that is under way stands, as [`look`](Self::look).
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn resume(&self, now: Timestamp) -> Result<(), Error> {
        self.look(now).await
    }

    /// Gives up payments to a counterparty that were planned and never begun. For who keeps its tab alone
    /// ([`Ledger::lock_tab`]): whoever planned them has died, and nobody is about to go on with them.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn give_up_planned(
        &self,
        counterparty: &PublicKey,
        now: Timestamp,
    ) -> Result<(), Error> {
        for intent in self.ledger.open_intents().await? {
            let is_planned =
                (intent.direction, intent.standing) == (Direction::Outgoing, Standing::Planned);
            if is_planned && intent.counterparty == *counterparty {
                self.fail(&intent, Standing::Planned, now).await?;
            }
        }
        Ok(())
    }

    /// Asks the wallet how everything that is under way stands.
    ///
    /// # Errors
    /// [`Error::Ledger`]. A wallet that cannot be asked is asked again with the next call.
    pub async fn look(&self, now: Timestamp) -> Result<(), Error> {
        let mut all = self.ledger.open_intents().await?;
        all.extend(self.booked_elsewhere(&all).await);
        let is_away = AtomicBool::new(false);
        let is_away = &is_away;
        let looks = stream::iter(all).map(|intent| async move {
            // Nobody waits for a wallet that is away once for each payment.
            match is_away.load(Ordering::Relaxed) {
                true => Ok(()),
                false => self.look_at(&intent, now).await,
            }
        });
        // None is dropped half done, whatever comes of the others.
        let mut looks = looks.buffer_unordered(MAX_LOOKS);
        let mut outcome = Ok(());
        while let Some(looked) = looks.next().await {
            match passing_over(looked) {
                Ok(()) => {}
                Err(Error::Rail(error)) => {
                    tracing::debug!(%error, "the wallet cannot be asked about a payment");
                    is_away.fetch_or(error.is_temporary(), Ordering::Relaxed);
                }
                Err(error @ Error::Ledger(_)) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Follows the wallet's notices, and looks every `often` besides, until dropped. News is heard also while the
    /// wallet is being asked. `now` is the wall clock.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn follow(
        &self,
        mut notices: Notices,
        often: Duration,
        now: impl Fn() -> Timestamp,
    ) -> Result<(), Error> {
        let gap = Notify::new();
        let hearing = async {
            while let Some(notice) = notices.next().await {
                match notice {
                    Notice::Gap => gap.notify_one(),
                    Notice::Changed(_) => passing_over(self.hear(&notice, now()).await)?,
                }
            }
            Ok(())
        };
        let looking = async {
            let mut round = tokio::time::interval(often);
            round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = round.tick() => {}
                    () = gap.notified() => {}
                }
                self.look(now()).await?;
            }
        };
        tokio::select! {
            heard = hearing => heard,
            looked = looking => looked,
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

    async fn look_at(&self, intent: &Intent, now: Timestamp) -> Result<(), Error> {
        let hash = intent.hash();
        let Some(hash) = hash.filter(|_| intent.standing != Standing::Planned) else {
            return self.give_up(intent, now).await;
        };
        match self.rail.look_up(intent.direction, &hash).await? {
            Some(payment) => self.book(intent, &payment, now).await,
            None if is_hopeless(intent, now) => self.fail(intent, Standing::UnderWay, now).await,
            None => Ok(()),
        }
    }

    /// Gives up what was planned and never begun.
    async fn give_up(&self, intent: &Intent, now: Timestamp) -> Result<(), Error> {
        // Its invoice may have been made: whoever pursues it takes that back.
        if is_hold(intent) {
            return Ok(());
        }
        match now >= intent.changed_at + REQUEST_LIFE {
            true => self.fail(intent, Standing::Planned, now).await,
            false => Ok(()),
        }
    }

    /// What we have begun and is not open any more, though we have not told its end: another process has booked it.
    async fn booked_elsewhere(&self, open: &[Intent]) -> Vec<Intent> {
        let mut ours = self.awaited.lock().await.clone();
        for intent in open {
            ours.remove(&intent.key);
        }
        ours.into_values().collect()
    }

    /// Writes down what the wallet says of an intent.
    pub(crate) async fn book(
        &self,
        intent: &Intent,
        payment: &Payment,
        now: Timestamp,
    ) -> Result<(), Error> {
        match payment.state {
            State::Pending if has_run_out(intent, now) && !is_hold(intent) => {
                self.fail(intent, Standing::UnderWay, now).await
            }
            // Less than was asked for is no hold: whoever pursues it gives it back.
            State::Held if is_hold(intent) && payment.amount >= intent.amount => {
                self.held(intent, now).await
            }
            State::Pending | State::Held => Ok(()),
            State::Settled { at, fee, .. } => {
                // A wallet's clock is not ours.
                let at = at.min(now).max(intent.planned_at);
                self.settle(intent, payment, fee, at).await
            }
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
        let (amount, fee) = moved(intent, payment.amount, fee);
        if intent.direction == Direction::Outgoing && fee > intent.max_fee {
            tracing::warn!(payment = %payment.hash, %fee, "routing cost more than was allowed");
        }
        let mut awaited = self.awaited.lock().await;
        let is_top_up = intent.direction == Direction::Incoming && intent.reason == Reason::TopUp;
        if is_top_up {
            mortality::point("top-up-seen");
        }
        if is_hold(intent) {
            mortality::point("settled-seen");
        }
        let is_new = self.ledger.settle(intent, amount, fee, at).await?;
        if is_top_up {
            mortality::point("top-up-booked");
        }
        if is_hold(intent) {
            mortality::point("group-charged");
        }
        let is_awaited = awaited.remove(&intent.key).is_some();
        if is_new || is_awaited {
            self.tell(intent, Standing::Settled, amount, fee);
        }
        Ok(())
    }

    /// A hold has come to nothing.
    pub(crate) async fn end_hold(&self, hold: &Hold, now: Timestamp) -> Result<(), Error> {
        match &hold.intent {
            Some(intent) => self.fail(intent, intent.standing, now).await,
            None => Ok(()),
        }
    }

    async fn held(&self, intent: &Intent, now: Timestamp) -> Result<(), Error> {
        let _alone = self.awaited.lock().await;
        mortality::point("hold-seen");
        if self.ledger.held(&intent.key, now).await? {
            self.tell(intent, Standing::Held, intent.amount, Msat::ZERO);
        }
        Ok(())
    }

    pub(crate) async fn fail(
        &self,
        intent: &Intent,
        from: Standing,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut awaited = self.awaited.lock().await;
        let is_new = match is_hold(intent) {
            true => self.ledger.went_back(&intent.key, now).await?,
            false => self.step(intent, from, Standing::Failed, now).await?,
        };
        let is_failed = is_new || self.reread(intent.clone()).await?.standing == Standing::Failed;
        let is_awaited = is_failed && awaited.remove(&intent.key).is_some();
        if is_new || is_awaited {
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

    /// An intent is under way, by our doing: its end is told.
    async fn await_end(&self, intent: Intent, invoice: &Invoice, now: Timestamp) -> Intent {
        let intent = Intent {
            invoice: Some(invoice.clone()),
            standing: Standing::UnderWay,
            changed_at: now,
            ..intent
        };
        let mut awaited = self.awaited.lock().await;
        awaited.insert(intent.key, intent.clone());
        intent
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

/// One payment that the ledger knows otherwise keeps no others waiting: its owner has to look into it.
fn passing_over(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::Ledger(error @ ledger::Error::Conflict)) => {
            tracing::error!(%error, "a payment is not booked: compare the books with the wallet");
            Ok(())
        }
        outcome => outcome,
    }
}

/// The points of a payment at which tests kill us: planned, the wallet told, and booked.
const fn points(reason: Reason) -> (&'static str, &'static str, &'static str) {
    match reason {
        Reason::TopUp => ("payment-planned", "wallet-told", "payment-booked"),
        Reason::Refund => ("refund-planned", "refund-paid", "refund-booked"),
        Reason::Hold => (
            "hold-payment-planned",
            "hold-wallet-told",
            "hold-payment-booked",
        ),
        Reason::Payout => ("payout-planned", "payout-paid", "payout-booked"),
        Reason::Credit => ("credit-planned", "credit-paid", "credit-booked"),
    }
}

/// Whether an intent is a hold of ours, whose invoice we end ourselves: it may still be paid as long as the wallet
/// does not know better.
fn is_hold(intent: &Intent) -> bool {
    (intent.direction, intent.reason) == (Direction::Incoming, Reason::Hold)
}

/// What a payment has moved: what its payee has, and what it cost besides. What we pay arrives as invoiced; wallets
/// do not agree on whether the fee is in the amount.
fn moved(intent: &Intent, amount: Msat, fee: Msat) -> (Msat, Msat) {
    match intent.direction {
        Direction::Incoming => (amount, Msat::ZERO),
        Direction::Outgoing => {
            let gone = amount.checked_add(fee).unwrap_or(Msat::MAX);
            (intent.amount, Msat(gone.0.saturating_sub(intent.amount.0)))
        }
    }
}

/// Whether nobody can have paid our invoice: not every wallet says so.
fn has_run_out(intent: &Intent, now: Timestamp) -> bool {
    let invoice = intent.invoice.as_ref();
    let is_expired = invoice.is_some_and(|invoice| invoice.is_expired(now - REQUEST_LIFE));
    intent.direction == Direction::Incoming && is_expired
}

/// Whether an intent that the wallet has never heard of will never come to it: the request has died, and the
/// invoice with it.
fn is_hopeless(intent: &Intent, now: Timestamp) -> bool {
    let invoice = intent.invoice.as_ref();
    let is_expired = invoice.is_none_or(|invoice| invoice.is_expired(now));
    is_expired && now >= intent.changed_at + REQUEST_LIFE
}
