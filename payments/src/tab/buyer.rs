//! The buyer's side of a tab: what it agrees to, and what it pays.

mod job;

use std::collections::{BTreeMap, BTreeSet};

use infernet_protocol::money::{Msat, Price};
use nostr::EventId;

use self::job::{Job, disagrees};
use super::{Carried, Disagreement, Totals, Unexpected};
use crate::PaymentHash;

/// What a buyer puts up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most that it pays ahead of what it has: one top-up. Where it is twice what the provider asks for at a
    /// time, the stream never stalls; where it is less, an invoice waits until more has come.
    pub risk: Msat,
    /// How much more the provider may charge for earlier jobs than we do, all of them together: of those that were
    /// cut short, what was on its way is theirs and not ours. It eats into the risk, so that what is left of that
    /// should still hold two top-ups.
    pub earlier_difference: Msat,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            risk: Msat(50_000),
            earlier_difference: Msat(25_000),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A job was awarded.
    Opened {
        /// The award.
        award: EventId,
        /// Its price.
        price: Price,
        /// More input tokens than this cannot be in it.
        max_input_tokens: u64,
        /// The most output it may have.
        max_output_tokens: u64,
        /// The most it may cost.
        budget: Msat,
    },
    /// So many output tokens of a job have come, in order and without a gap.
    Counted {
        /// The award.
        award: EventId,
        /// The running total.
        output_tokens: u64,
    },
    /// The provider has signed these totals.
    Claimed {
        /// The award.
        award: EventId,
        /// What it signed.
        totals: Totals,
    },
    /// The provider asks for a top-up, with an invoice that was checked.
    Invoiced {
        /// The invoice's payment.
        hash: PaymentHash,
        /// How much.
        amount: Msat,
    },
    /// A payment of ours is done.
    Settled {
        /// The payment.
        hash: PaymentHash,
    },
    /// A payment of ours came back.
    Failed {
        /// The payment.
        hash: PaymentHash,
    },
    /// The provider has paid so much back.
    Refunded {
        /// How much.
        amount: Msat,
    },
    /// A job is over. What its result says is claimed and counted before.
    Ended {
        /// The award.
        award: EventId,
        /// Whether its result has come.
        is_delivered: bool,
    },
    /// What an earlier job cost is not known yet: its result may still come. Until then nothing that the provider
    /// charges for earlier jobs is too much.
    Unclear {
        /// The award.
        award: EventId,
        /// What we have charged for it so far.
        charged: Msat,
    },
    /// What such a job cost is known.
    Cleared {
        /// The award.
        award: EventId,
        /// How much.
        amount: Msat,
    },
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Sign these totals and send them.
    Acknowledge {
        /// The award.
        award: EventId,
        /// What to sign.
        totals: Totals,
    },
    /// Pay the invoice.
    Pay {
        /// Its payment.
        hash: PaymentHash,
    },
    /// Leave the invoice unpaid.
    Refuse {
        /// Its payment.
        hash: PaymentHash,
        /// Why.
        why: Refusal,
    },
    /// Stop the job: the two sides do not agree.
    Stop {
        /// The award.
        award: EventId,
        /// About what.
        why: Disagreement,
    },
    /// Post what the job cost.
    Charge {
        /// The award.
        award: EventId,
        /// How much.
        amount: Msat,
    },
}

/// Why an invoice is not paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is for more than we would ever pay ahead.
    TooLarge,
    /// There is enough on the tab for all that runs.
    Needless,
    /// A newer one has come.
    Replaced,
}

/// One provider's tab, as its buyer keeps it.
#[derive(Debug)]
pub struct Tab {
    limits: Limits,
    carried: Carried,
    jobs: BTreeMap<EventId, Job>,
    /// Earlier jobs whose cost is not known yet, with what is charged for them in `carried`.
    unclear: BTreeMap<EventId, Msat>,
    /// Payments that may be done or not.
    under_way: BTreeMap<PaymentHash, Msat>,
    /// Those of an earlier process: its wallet may never have heard of them.
    unsure: BTreeSet<PaymentHash>,
    /// Payments that are done: what comes about them again changes nothing.
    settled: BTreeSet<PaymentHash>,
    /// Payments that came back, as we were told. Should one be done all the same, it counts.
    failed: BTreeMap<PaymentHash, Msat>,
    /// An invoice that will be paid once more has been received.
    waiting: Option<(PaymentHash, Msat)>,
}

impl Tab {
    /// A tab that carries on what the ledger says, with the payments that may still be done.
    pub fn new(
        limits: Limits,
        carried: Carried,
        under_way: impl IntoIterator<Item = (PaymentHash, Msat)>,
    ) -> Self {
        let under_way: BTreeMap<_, _> = under_way.into_iter().collect();
        Self {
            limits,
            carried,
            jobs: BTreeMap::new(),
            unclear: BTreeMap::new(),
            unsure: under_way.keys().copied().collect(),
            under_way,
            settled: BTreeSet::new(),
            failed: BTreeMap::new(),
            waiting: None,
        }
    }

    /// What we have paid and had nothing for, in msat, payments under way counted in; negative if we owe.
    pub fn at_risk_msat(&self) -> i128 {
        let under_way = total(self.under_way.values().copied());
        i128::from(self.carried.paid.0) + i128::from(under_way) - i128::from(self.received())
    }

    /// What was paid and charged, without what runs.
    pub const fn carried(&self) -> Carried {
        self.carried
    }

    /// What payments that may be done or not come to.
    pub fn under_way(&self) -> Msat {
        Msat(total(self.under_way.values().copied()))
    }

    /// The invoice that will be paid once more has come, if there is one.
    pub fn waiting(&self) -> Option<PaymentHash> {
        self.waiting.map(|(hash, _)| hash)
    }

    fn received(&self) -> u64 {
        let running = total(self.jobs.values().map(Job::received));
        self.carried.due.0.saturating_add(running)
    }

    /// Takes note of what happened.
    ///
    /// # Errors
    /// It makes no sense now: nothing has changed.
    pub fn step(&mut self, input: Input) -> Result<Vec<Effect>, Unexpected> {
        let mut effects = Vec::new();
        match input {
            Input::Opened { award, .. } if self.jobs.contains_key(&award) => {
                return Err(Unexpected("an award that is on the tab"));
            }
            Input::Opened {
                award,
                price,
                max_input_tokens,
                max_output_tokens,
                budget,
            } => {
                let job = Job {
                    price,
                    max_input_tokens,
                    max_output_tokens,
                    budget,
                    input_tokens: None,
                    counted: 0,
                    claimed: 0,
                    paid_before: self.carried.paid,
                    paid_claimed: Msat::ZERO,
                    acknowledged: None,
                    is_stopped: false,
                };
                self.jobs.insert(award, job);
            }
            Input::Counted {
                award,
                output_tokens,
            } => self.count(award, output_tokens, &mut effects)?,
            Input::Claimed { award, totals } => self.claim(award, &totals, &mut effects)?,
            Input::Invoiced { hash, amount } => self.invoice(hash, amount, &mut effects),
            Input::Settled { hash } => self.settle(hash)?,
            Input::Failed { hash } => {
                if let Some(amount) = self.under_way.remove(&hash) {
                    self.failed.insert(hash, amount);
                }
            }
            Input::Refunded { amount } => {
                let paid = self.carried.paid.checked_sub(amount);
                self.carried.paid = paid.unwrap_or(Msat::ZERO);
                for job in self.jobs.values_mut() {
                    job.paid_before = job.paid_before.min(self.carried.paid);
                }
            }
            Input::Ended {
                award,
                is_delivered,
            } => self.end(award, is_delivered, &mut effects)?,
            Input::Unclear { award, charged } => {
                self.unclear.insert(award, charged);
            }
            Input::Cleared { award, amount } => {
                let charged = self.unclear.remove(&award);
                let charged = charged.ok_or(Unexpected("the cost of a job that was clear"))?;
                let others = self.carried.due.0.saturating_sub(charged.0);
                self.carried.due = Msat(others.saturating_add(amount.0));
            }
        }
        self.pay_waiting(&mut effects);
        Ok(effects)
    }

    fn count(
        &mut self,
        award: EventId,
        output_tokens: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Unexpected> {
        let job = self.jobs.get_mut(&award);
        let job = job.ok_or(Unexpected("output of no open job"))?;
        job.counted = job.counted.max(output_tokens);
        if job.counted > job.max_output_tokens {
            stop(award, job, Disagreement::Output, effects);
        }
        self.acknowledge(award, effects);
        Ok(())
    }

    fn claim(
        &mut self,
        award: EventId,
        totals: &Totals,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Unexpected> {
        let earlier = self.disagrees_over_earlier(&award, totals);
        let job = self.jobs.get_mut(&award);
        let job = job.ok_or(Unexpected("word of no open job"))?;
        if let Some(why) = disagrees(job, totals).or(earlier) {
            stop(award, job, why, effects);
            return Ok(());
        }
        job.input_tokens = Some(totals.input_tokens);
        job.claimed = job.claimed.max(totals.output_tokens);
        // It may know sooner than we of a payment; a result that is claimed by our books does not take it back.
        let known = totals.tab_paid_msat.min(self.carried.paid);
        job.paid_claimed = job.paid_claimed.max(known);
        self.acknowledge(award, effects);
        Ok(())
    }

    /// Whether the provider keeps other books over what was before. Only one job at a time can be compared: the
    /// others' totals are on their way. So may be its wallet's word of a payment that ours has settled: what is
    /// missing counts only once it is more than we risk anyway.
    fn disagrees_over_earlier(&self, award: &EventId, totals: &Totals) -> Option<Disagreement> {
        let job = self.jobs.get(award)?;
        let known = totals.tab_paid_msat.0.saturating_add(self.limits.risk.0);
        // What it has signed before, it knows; an older statement may come later.
        let is_news = totals.output_tokens > job.claimed;
        let is_forgotten = is_news && totals.tab_paid_msat < job.paid_claimed;
        if is_forgotten || known < job.paid_before.0 {
            return Some(Disagreement::PaymentMissing);
        }
        let earlier = totals.tab_due_msat.0.checked_sub(totals.due_msat.0);
        let difference = earlier.map(|earlier| earlier.saturating_sub(self.carried.due.0));
        let is_alone = self.jobs.len() == 1 && self.unclear.is_empty();
        let agrees = difference.is_some_and(|one| one <= self.limits.earlier_difference.0);
        (is_alone && !agrees).then_some(Disagreement::Earlier)
    }

    /// Signs what we have counted, if the provider has said how long the input is and there is anything new.
    fn acknowledge(&mut self, award: EventId, effects: &mut Vec<Effect>) {
        let tab_due_msat = Msat(self.received());
        let Some(job) = self.jobs.get_mut(&award).filter(|job| !job.is_stopped) else {
            return;
        };
        let Some(input_tokens) = job.input_tokens else {
            return;
        };
        let output_tokens = job.counted.min(job.claimed);
        if job
            .acknowledged
            .is_some_and(|before| before >= output_tokens)
        {
            return;
        }
        job.acknowledged = Some(output_tokens);
        let totals = Totals {
            input_tokens,
            output_tokens,
            due_msat: job.cost(input_tokens, output_tokens),
            tab_due_msat,
            tab_paid_msat: self.carried.paid,
        };
        effects.push(Effect::Acknowledge { award, totals });
    }

    fn invoice(&mut self, hash: PaymentHash, amount: Msat, effects: &mut Vec<Effect>) {
        let is_known = self.under_way.contains_key(&hash)
            || self.settled.contains(&hash)
            || self.failed.contains_key(&hash);
        if is_known || self.waiting.is_some_and(|(waiting, _)| waiting == hash) {
            return;
        }
        // What pays a debt is not paid ahead.
        let would_be = self.at_risk_msat() + i128::from(amount.0);
        if amount > self.limits.risk && would_be > i128::from(self.limits.risk.0) {
            let why = Refusal::TooLarge;
            return effects.push(Effect::Refuse { hash, why });
        }
        if self.has_enough() {
            let why = Refusal::Needless;
            return effects.push(Effect::Refuse { hash, why });
        }
        if let Some((old, _)) = self.waiting.replace((hash, amount)) {
            let why = Refusal::Replaced;
            effects.push(Effect::Refuse { hash: old, why });
        }
    }

    /// Whether what is paid covers all that runs; what may never arrive is not relied on.
    fn has_enough(&self) -> bool {
        let running = self.jobs.values().filter(|job| !job.is_stopped);
        let ceiling = total(running.map(Job::ceiling));
        let stopped = self.jobs.values().filter(|job| job.is_stopped);
        let had = total(stopped.map(Job::received));
        let sure = self.under_way.iter();
        let sure = sure.filter(|(hash, _)| !self.unsure.contains(hash));
        let under_way = total(sure.map(|(_, amount)| *amount));
        let there_is = self.carried.paid.0.saturating_add(under_way);
        there_is
            >= self
                .carried
                .due
                .0
                .saturating_add(had)
                .saturating_add(ceiling)
    }

    /// Pays the invoice that waits, once it is within the limit.
    fn pay_waiting(&mut self, effects: &mut Vec<Effect>) {
        let Some((hash, amount)) = self.waiting else {
            return;
        };
        let would_be = self.at_risk_msat() + i128::from(amount.0);
        if would_be > i128::from(self.limits.risk.0) {
            return;
        }
        self.waiting = None;
        match self.has_enough() {
            true => effects.push(Effect::Refuse {
                hash,
                why: Refusal::Needless,
            }),
            false => {
                self.under_way.insert(hash, amount);
                effects.push(Effect::Pay { hash });
            }
        }
    }

    fn settle(&mut self, hash: PaymentHash) -> Result<(), Unexpected> {
        if self.settled.contains(&hash) {
            return Ok(());
        }
        let amount = self.under_way.remove(&hash);
        let amount = amount.or_else(|| self.failed.remove(&hash));
        let amount = amount.ok_or(Unexpected("a payment that was not begun"))?;
        self.settled.insert(hash);
        let paid = self.carried.paid.checked_add(amount);
        self.carried.paid = paid.ok_or(Unexpected("so much money"))?;
        Ok(())
    }

    fn end(
        &mut self,
        award: EventId,
        is_delivered: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Unexpected> {
        let job = self.jobs.get_mut(&award);
        let job = job.ok_or(Unexpected("the end of no open job"))?;
        if is_delivered && job.claimed > job.counted {
            stop(award, job, Disagreement::Output, effects);
        }
        let amount = job.charge(is_delivered);
        self.jobs.remove(&award);
        let due = self.carried.due.checked_add(amount);
        self.carried.due = due.unwrap_or(Msat::MAX);
        effects.push(Effect::Charge { award, amount });
        Ok(())
    }
}

fn total(amounts: impl Iterator<Item = Msat>) -> u64 {
    amounts.fold(0, |sum, amount| sum.saturating_add(amount.0))
}

fn stop(award: EventId, job: &mut Job, why: Disagreement, effects: &mut Vec<Effect>) {
    if !std::mem::replace(&mut job.is_stopped, true) {
        effects.push(Effect::Stop { award, why });
    }
}
