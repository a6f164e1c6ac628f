//! One tab that is open: its machine, the jobs on it, and what is to be done when the machine says so.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use infernet_payments::ledger::TabLock;
use infernet_payments::tab::buyer::{self, Effect, Input, Refusal};
use infernet_payments::tab::{Disagreement, Totals};
use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::money::{Msat, Price};
use nostr::{EventId, PublicKey};
use tokio::sync::{OnceCell, mpsc};
use tokio::time::Instant;

use super::paying::Trouble;
use super::unclear::Heard;
use super::{Attempt, Purse};

/// What a job on a tab is told while it runs.
#[derive(Debug)]
pub(crate) enum Told {
    /// A top-up has arrived.
    Paid {
        /// How much.
        amount: Msat,
        /// What routing cost.
        fee: Msat,
        /// What is left on the tab now.
        left_msat: i64,
    },
    /// A top-up came to nothing.
    Unpaid(Trouble),
}

/// A job that begins on a tab.
pub(crate) struct Opened {
    pub attempt: Attempt,
    pub max_input_tokens: u64,
    pub max_output_tokens: u64,
    pub budget: Msat,
}

/// What the tab answers to what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Said {
    /// Sign these and send them.
    pub acknowledge: Option<Totals>,
    /// Stop: the two do not agree.
    pub stop: Option<Disagreement>,
    /// What the job costs, now that it is over.
    pub charge: Option<Msat>,
}

/// What becomes of an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is being paid now.
    Paid,
    /// It will be paid once more has come.
    Waits,
    /// It waits, and nothing has begun yet that could make room for it.
    Never {
        /// What can be.
        most: Msat,
    },
    /// It is for more than we would ever pay ahead.
    TooLarge {
        /// What can be paid now.
        most: Msat,
    },
    /// There is enough on the tab, or it was shown before.
    Needless,
}

/// A job on an open tab.
pub(super) struct Job {
    attempt: Arc<Attempt>,
    /// That the attempt is written down.
    written: Arc<OnceCell<()>>,
    /// Whether anything has come of it.
    has_begun: bool,
    ear: mpsc::UnboundedSender<(EventId, Told)>,
}

impl Job {
    /// The attempt, and that it is written down.
    pub fn attempt(&self) -> (Arc<Attempt>, Arc<OnceCell<()>>) {
        (self.attempt.clone(), self.written.clone())
    }
}

/// A tab that this process keeps.
pub(super) struct Tab {
    provider: PublicKey,
    machine: buyer::Tab,
    jobs: HashMap<EventId, Job>,
    /// Invoices that are not paid yet, and what they are about.
    invoices: HashMap<PaymentHash, (EventId, Invoice)>,
    /// Payments that a task of ours is seeing to, or has: that one tells why they fail.
    seen_to: HashSet<PaymentHash>,
    /// Earlier attempts whose cost is not known yet.
    unclear: HashSet<EventId>,
    /// What the provider has said of all that was before, while there are such.
    heard: Option<Heard>,
    _lock: TabLock,
}

impl Tab {
    pub fn new(provider: PublicKey, machine: buyer::Tab, lock: TabLock) -> Self {
        Self {
            provider,
            machine,
            jobs: HashMap::new(),
            invoices: HashMap::new(),
            seen_to: HashSet::new(),
            unclear: HashSet::new(),
            heard: None,
            _lock: lock,
        }
    }

    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    pub fn carried(&self) -> infernet_payments::tab::Carried {
        self.machine.carried()
    }

    /// What is left of what we paid, in msat; negative if we owe. What runs is counted in.
    pub fn left_msat(&self) -> i64 {
        let under_way = self.machine.under_way().0;
        let left = self.machine.at_risk_msat() - i128::from(under_way);
        i64::try_from(left).unwrap_or(i64::MAX)
    }

    pub fn begin(&mut self, opened: Opened, ear: mpsc::UnboundedSender<(EventId, Told)>) {
        let award = opened.attempt.award;
        let input = Input::Opened {
            award,
            price: opened.attempt.price,
            max_input_tokens: opened.max_input_tokens,
            max_output_tokens: opened.max_output_tokens,
            budget: opened.budget,
        };
        self.jobs.insert(
            award,
            Job {
                attempt: Arc::new(opened.attempt),
                written: Arc::default(),
                has_begun: false,
                ear,
            },
        );
        // A new award is on no tab, and nothing waits that could be paid for it.
        self.step(input);
    }

    pub fn job(&self, award: &EventId) -> Option<&Job> {
        self.jobs.get(award)
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        self.machine.step(input).unwrap_or_else(|unexpected| {
            tracing::error!(%unexpected, "the tab and its driver disagree");
            Vec::new()
        })
    }

    /// What an earlier attempt cost is not known yet; so much is charged for it so far.
    pub fn unclear(&mut self, award: EventId, charged: Msat) {
        self.unclear.insert(award);
        self.heard = None;
        self.step(Input::Unclear { award, charged });
    }

    /// What it cost is known.
    pub fn cleared(&mut self, purse: &Purse, award: EventId, amount: Msat) {
        if self.unclear.remove(&award) {
            self.tell(purse, Input::Cleared { award, amount });
        }
    }

    /// What the provider has said of all that was before, since something is unclear.
    pub const fn heard(&self) -> Option<Heard> {
        self.heard
    }

    fn hear(&mut self, totals: &Totals) {
        if self.unclear.is_empty() {
            return;
        }
        let earlier = totals.tab_due_msat.0.saturating_sub(totals.due_msat.0);
        let since = self.heard.map_or_else(Instant::now, |heard| heard.since);
        let agrees = self.jobs.len() == 1 && earlier <= self.machine.carried().due.0;
        self.heard = Some(Heard { since, agrees });
    }

    /// What the provider has signed.
    pub fn claim(&mut self, purse: &Purse, award: EventId, totals: Totals) -> Said {
        self.hear(&totals);
        self.claimed(purse, award, totals)
    }

    fn claimed(&mut self, purse: &Purse, award: EventId, totals: Totals) -> Said {
        self.tell(purse, Input::Claimed { award, totals })
    }

    /// What a result claims, which is signed without the tab's totals.
    pub fn claim_usage(
        &mut self,
        purse: &Purse,
        award: EventId,
        input_tokens: u64,
        output_tokens: u64,
    ) -> Said {
        let price = self
            .job(&award)
            .map_or(Price::FREE, |job| job.attempt.price);
        let due_msat = price.cost(input_tokens, output_tokens);
        let due_msat = due_msat.unwrap_or(Msat::MAX);
        let carried = self.machine.carried();
        let totals = Totals {
            input_tokens,
            output_tokens,
            due_msat,
            tab_due_msat: Msat(carried.due.0.saturating_add(due_msat.0)),
            tab_paid_msat: carried.paid,
        };
        self.claimed(purse, award, totals)
    }

    pub fn count(&mut self, purse: &Purse, award: EventId, output_tokens: u64) -> Said {
        if let Some(job) = self.jobs.get_mut(&award) {
            job.has_begun |= output_tokens > 0;
        }
        let counted = Input::Counted {
            award,
            output_tokens,
        };
        self.tell(purse, counted)
    }

    pub fn end(&mut self, purse: &Purse, award: EventId, is_delivered: bool) -> Said {
        let ended = Input::Ended {
            award,
            is_delivered,
        };
        let said = self.tell(purse, ended);
        self.jobs.remove(&award);
        said
    }

    pub fn invoice(
        &mut self,
        purse: &Purse,
        award: EventId,
        invoice: Invoice,
        risk: Msat,
    ) -> Verdict {
        let (hash, amount) = (invoice.hash(), invoice.amount());
        self.invoices.insert(hash, (award, invoice));
        let effects = self.step(Input::Invoiced { hash, amount });
        let is_paid = effects.contains(&Effect::Pay { hash });
        let too_large = Effect::Refuse {
            hash,
            why: Refusal::TooLarge,
        };
        let is_too_large = effects.contains(&too_large);
        self.obey(purse, effects);
        let most = self.room(risk);
        match self.machine.waiting() == Some(hash) {
            _ if is_paid => Verdict::Paid,
            _ if is_too_large => Verdict::TooLarge { most },
            true if self.makes_room() => Verdict::Waits,
            true => Verdict::Never { most },
            false => {
                // One that was shown before is not kept for ever.
                self.invoices.remove(&hash);
                Verdict::Needless
            }
        }
    }

    /// What can be paid now.
    fn room(&self, risk: Msat) -> Msat {
        let room = i128::from(risk.0) - self.machine.at_risk_msat().max(0);
        Msat(u64::try_from(room).unwrap_or(0))
    }

    /// What can be paid now, if this invoice still waits for more.
    pub fn room_before(&self, hash: &PaymentHash, risk: Msat) -> Option<Msat> {
        (self.machine.waiting() == Some(*hash)).then(|| self.room(risk))
    }

    /// Whether anything runs that may bring what was paid for.
    pub fn makes_room(&self) -> bool {
        self.jobs.len() > 1 || self.jobs.values().any(|job| job.has_begun)
    }

    /// A payment is done.
    pub fn settle(
        &mut self,
        purse: &Purse,
        hash: PaymentHash,
        amount: Msat,
        fee: Msat,
        about: Option<EventId>,
    ) {
        // One that was counted when the tab was opened is told of once more.
        let Ok(effects) = self.machine.step(Input::Settled { hash }) else {
            return;
        };
        self.obey(purse, effects);
        let paid = Told::Paid {
            amount,
            fee,
            left_msat: self.left_msat(),
        };
        self.hint(about, paid);
    }

    /// A payment came back: the job is told why, once.
    pub fn fail(&mut self, purse: &Purse, hash: PaymentHash, about: Option<EventId>, why: Trouble) {
        let effects = self.step(Input::Failed { hash });
        self.obey(purse, effects);
        if !self.seen_to.contains(&hash) {
            self.hint(about, Told::Unpaid(why));
        }
    }

    /// Whether a task of ours is seeing to this payment.
    pub fn sees_to(&self, hash: &PaymentHash) -> bool {
        self.seen_to.contains(hash)
    }

    /// A payment's task is over, and leaves it to the wallet's news.
    pub fn leaves(&mut self, hash: &PaymentHash) {
        self.seen_to.remove(hash);
    }

    /// A payment's task is over, and knows why it has failed.
    pub fn gives_up(&mut self, purse: &Purse, hash: PaymentHash, about: EventId, why: Trouble) {
        let effects = self.step(Input::Failed { hash });
        self.obey(purse, effects);
        self.hint(Some(about), Told::Unpaid(why));
    }

    /// By the ledger so much was paid, less what was paid back.
    pub fn refund_down_to(&mut self, purse: &Purse, paid: Msat) {
        let back = self.machine.carried().paid.checked_sub(paid);
        if let Some(amount) = back.filter(|back| *back > Msat::ZERO) {
            let effects = self.step(Input::Refunded { amount });
            self.obey(purse, effects);
        }
    }

    /// Tells the job that a payment was about or, if it is over, another one that may wait for it.
    pub fn hint(&self, about: Option<EventId>, told: Told) {
        let job = about.and_then(|award| self.jobs.get(&award));
        if let Some(job) = job.or_else(|| self.jobs.values().next()) {
            // Its driver may be gone.
            let _ = job.ear.send((job.attempt.award, told));
        }
    }

    fn tell(&mut self, purse: &Purse, input: Input) -> Said {
        let effects = self.step(input);
        self.obey(purse, effects)
    }

    fn obey(&mut self, purse: &Purse, effects: Vec<Effect>) -> Said {
        let mut said = Said::default();
        for effect in effects {
            match effect {
                Effect::Acknowledge { totals, .. } => said.acknowledge = Some(totals),
                Effect::Stop { why, .. } => said.stop = Some(why),
                Effect::Charge { amount, .. } => said.charge = Some(amount),
                Effect::Pay { hash } => self.pay(purse, hash),
                Effect::Refuse { hash, .. } => {
                    self.invoices.remove(&hash);
                }
            }
        }
        said
    }

    fn pay(&mut self, purse: &Purse, hash: PaymentHash) {
        let Some((award, invoice)) = self.invoices.remove(&hash) else {
            return;
        };
        self.seen_to.insert(hash);
        let job = self.jobs.get(&award);
        let attempt = job.map(Job::attempt);
        purse.pay(self.provider, award, invoice, attempt);
    }
}
