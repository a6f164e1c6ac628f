//! Tabs are opened when the first job needs them, shared by all jobs of this process, and given back with the last.

use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use infernet_payments::ledger::{Reason, Signed, TabLock};
use infernet_payments::rail::Direction;
use infernet_payments::tab::{Carried, Statement, Totals, buyer};
use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::event::ReceiptSide;
use infernet_protocol::money::Msat;
use nostr::secp256k1::schnorr::Signature;
use nostr::{EventId, PublicKey};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::tab::{Job, Opened, Said, Tab, Told, Verdict};
use super::unclear::Unclear;
use super::{Error, Purse};

/// How often a tab that another process keeps is tried.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// How long the wallet has to say how open payments stand, before a tab is opened without its word.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

/// A tab of this process, or one that is being opened.
#[derive(Default)]
pub(super) struct Slot {
    pub tab: Option<Tab>,
    /// Leases on it.
    users: usize,
    /// Held by whoever opens it.
    opening: Arc<tokio::sync::Mutex<()>>,
}

/// What to do about a tab that another process keeps.
pub(super) enum Patience {
    /// Wait for it, after saying so.
    Waits(Box<dyn FnOnce() + Send>),
    /// Leave it.
    Tries,
}

/// The right to use a provider's tab. With the last one the tab is given back.
pub(crate) struct Lease {
    pub(super) purse: Purse,
    pub(super) provider: PublicKey,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut slots = self.purse.slots();
        let Some(slot) = slots.get_mut(&self.provider) else {
            return;
        };
        slot.users = slot.users.saturating_sub(1);
        if slot.users == 0 {
            slots.remove(&self.provider);
        }
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        self.purse.enter(self.provider)
    }
}

impl Purse {
    pub(super) fn enter(&self, provider: PublicKey) -> Lease {
        self.slots().entry(provider).or_default().users += 1;
        Lease {
            purse: self.clone(),
            provider,
        }
    }

    /// A lease on a tab of this process that is to pay this; nothing if the tab was given back meanwhile.
    pub(super) fn join(&self, provider: PublicKey, payment: &PaymentHash) -> Option<Lease> {
        {
            let mut slots = self.slots();
            let slot = slots.get_mut(&provider)?;
            slot.tab.as_ref().filter(|tab| tab.sees_to(payment))?;
            slot.users += 1;
        }
        Some(Lease {
            purse: self.clone(),
            provider,
        })
    }

    /// Opens the tab with a provider, if need be once another process is done with it: `waits` is called then.
    pub async fn open_tab(
        &self,
        provider: PublicKey,
        waits: impl FnOnce() + Send + 'static,
    ) -> Result<Lease, Error> {
        let patience = Patience::Waits(Box::new(waits));
        match self.try_open_tab(provider, patience).await? {
            Some(lease) => Ok(lease),
            None => Err(Error::TabTaken),
        }
    }

    /// Opens the tab with a provider; nothing if another process keeps it, and is not to be waited for.
    pub(super) async fn try_open_tab(
        &self,
        provider: PublicKey,
        patience: Patience,
    ) -> Result<Option<Lease>, Error> {
        let lease = self.enter(provider);
        let opening = {
            let slots = self.slots();
            slots.get(&provider).map(|slot| slot.opening.clone())
        };
        // A lease keeps its slot.
        let opening = opening.unwrap_or_default();
        let _alone = opening.lock().await;
        if lease.is_open() {
            return Ok(Some(lease));
        }
        let Some(lock) = self.lock(&provider, patience).await? else {
            return Ok(None);
        };
        let (tab, unclear) = self.take_up(&provider, lock).await?;
        if let Some(slot) = self.slots().get_mut(&provider) {
            slot.tab = Some(tab);
        }
        for one in unclear {
            self.clear_later(one);
        }
        Ok(Some(lease))
    }

    async fn lock(
        &self,
        provider: &PublicKey,
        patience: Patience,
    ) -> Result<Option<TabLock>, Error> {
        let ledger = self.shared.books.ledger();
        let taken = ledger.lock_tab(provider)?;
        let (None, Patience::Waits(waits)) = (&taken, patience) else {
            return Ok(taken);
        };
        waits();
        loop {
            tokio::time::sleep(TRY_EVERY).await;
            if let Some(lock) = ledger.lock_tab(provider)? {
                return Ok(Some(lock));
            }
        }
    }

    /// Ends what an earlier process left on a tab that is locked, and makes its machine from the ledger.
    async fn take_up(
        &self,
        provider: &PublicKey,
        lock: TabLock,
    ) -> Result<(Tab, Vec<Unclear>), Error> {
        self.look_now().await?;
        let unclear = self.end_unfinished(provider).await?;
        let ledger = self.shared.books.ledger();
        let opening = ledger.opening(provider, ReceiptSide::Buyer).await?;
        let mut under_way = Vec::new();
        for intent in opening.open {
            match (intent.direction, intent.reason, intent.hash()) {
                (Direction::Incoming, Reason::Refund, Some(_)) => {
                    return Err(Error::RefundUnderWay);
                }
                (Direction::Outgoing, Reason::TopUp, Some(hash)) => {
                    under_way.push((hash, intent.amount));
                }
                _ => {}
            }
        }
        let limits = self.shared.limits.of_a_tab();
        let mut carried = opening.carried;
        for one in &unclear {
            carried.due.0 = carried.due.0.saturating_add(one.signed.0);
        }
        let machine = buyer::Tab::new(limits, carried, under_way);
        let mut tab = Tab::new(*provider, machine, lock);
        for one in &unclear {
            tab.unclear(one.attempt.award, one.signed);
        }
        Ok((tab, unclear))
    }

    /// Asks the wallet how open payments stand, and goes on without its word if it is slow.
    pub(super) async fn look_now(&self) -> Result<(), Error> {
        let looking = self.shared.cashier.look(clock::now());
        match timeout(LOOK_PATIENCE, looking).await {
            Ok(looked) => looked?,
            Err(_) => tracing::info!("the wallet is slow; going on without its word"),
        }
        Ok(())
    }

    /// Does something with the tab of a provider, if this process keeps it.
    pub(super) fn with<T>(
        &self,
        provider: &PublicKey,
        act: impl FnOnce(&mut Tab) -> T,
    ) -> Option<T> {
        let mut slots = self.slots();
        let tab = slots.get_mut(provider)?.tab.as_mut()?;
        Some(act(tab))
    }
}

impl Lease {
    fn is_open(&self) -> bool {
        self.purse.with(&self.provider, |_| ()).is_some()
    }

    /// Does something with the tab.
    pub(super) fn with<T: Default>(&self, act: impl FnOnce(&mut Tab) -> T) -> T {
        let done = self.purse.with(&self.provider, act);
        // A lease is handed out once its tab is open.
        done.unwrap_or_default()
    }

    /// Puts a job on the tab; `ear` hears of its payments.
    pub fn begin(&self, opened: Opened, ear: mpsc::UnboundedSender<(EventId, Told)>) {
        self.with(|tab| tab.begin(opened, ear));
    }

    /// Writes a job down. It is awarded after that: whoever takes up the tab next then knows of it.
    pub fn written(&self, award: &EventId) -> impl Future<Output = Result<(), Error>> + use<> {
        let job = self.with(|tab| tab.job(award).map(Job::attempt));
        let purse = self.purse.clone();
        async move {
            match job {
                Some(job) => purse.is_written(&job).await,
                None => Ok(()),
            }
        }
    }

    /// The provider claims these totals.
    pub fn claim(&self, award: EventId, totals: Totals) -> Said {
        self.with(|tab| tab.claim(&self.purse, award, totals))
    }

    /// A result claims this usage.
    pub fn claim_usage(&self, award: EventId, input_tokens: u64, output_tokens: u64) -> Said {
        self.with(|tab| tab.claim_usage(&self.purse, award, input_tokens, output_tokens))
    }

    /// So much output has come.
    pub fn count(&self, award: EventId, output_tokens: u64) -> Said {
        self.with(|tab| tab.count(&self.purse, award, output_tokens))
    }

    /// The provider asks for a top-up.
    pub fn invoice(&self, award: EventId, invoice: Invoice) -> Verdict {
        let risk = self.purse.shared.limits.risk;
        let judged = self.purse.with(&self.provider, |tab| {
            tab.invoice(&self.purse, award, invoice, risk)
        });
        judged.unwrap_or(Verdict::Needless)
    }

    /// Whether anything on the tab has begun that may bring what was paid for.
    pub fn makes_room(&self) -> bool {
        self.with(|tab| tab.makes_room())
    }

    /// What can be paid now, if this invoice still waits for more to come.
    pub fn room_before(&self, invoice: &PaymentHash) -> Option<Msat> {
        let risk = self.purse.shared.limits.risk;
        self.with(|tab| tab.room_before(invoice, risk))
    }

    /// The job is over: what it costs.
    pub fn end(&self, award: EventId, is_delivered: bool) -> Msat {
        let said = self.with(|tab| tab.end(&self.purse, award, is_delivered));
        said.charge.unwrap_or_default()
    }

    /// Keeps what one side has signed, soon.
    pub fn keep(&self, statement: Statement, author: PublicKey, signature: Signature) {
        let signed = Signed {
            statement,
            author,
            signature,
        };
        let ledger = self.purse.shared.books.ledger();
        if let Err(error) = ledger.keep_soon(&signed) {
            tracing::error!(%error, "what was signed cannot be kept");
        }
    }

    /// What is left of what we paid, in msat.
    pub fn left_msat(&self) -> i64 {
        self.with(|tab| tab.left_msat())
    }

    /// What was charged and paid on the tab, without what runs.
    pub(super) fn totals(&self) -> Carried {
        self.with(|tab| tab.carried())
    }
}
