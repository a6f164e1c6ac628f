//! The provider's side of a tab: how much it may draw, and when to ask for money.

mod job;

use std::collections::BTreeMap;

use infernet_protocol::job::Millis;
use infernet_protocol::money::{Msat, Price};
use nostr::EventId;

use self::job::{Job, further, next_stretch};
use super::{Carried, Disagreement, MIN_PAYMENT, Totals, Unexpected};

/// What a provider asks of its buyers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The smallest top-up.
    pub min_top_up: Msat,
    /// The usual one.
    pub top_up: Msat,
    /// Output tokens that a buyer without credit pays ahead, besides the input.
    pub prepaid_output_tokens: u64,
    /// Output tokens that a job is allowed at a time, so that the engine never waits for a message.
    pub stretch_output_tokens: u64,
    /// Output tokens that the buyer may be behind in acknowledging.
    pub unacknowledged_output_tokens: u64,
    /// How much of what a buyer has paid and used is its credit, in thousandths.
    pub credit_per_mille: u64,
    /// The most credit that anybody has.
    pub max_credit: Msat,
    /// How long a job waits for money or an acknowledgement, in milliseconds.
    pub patience_ms: u64,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            min_top_up: MIN_PAYMENT,
            top_up: MIN_PAYMENT,
            prepaid_output_tokens: 64,
            stretch_output_tokens: 64,
            unacknowledged_output_tokens: 1_024,
            credit_per_mille: 100,
            max_credit: Msat(100_000),
            patience_ms: 60_000,
        }
    }
}

impl Terms {
    /// The credit of a buyer who has paid and used this much.
    pub fn credit(&self, carried: &Carried) -> Msat {
        let used = carried.paid.min(carried.due).0;
        let grown = u128::from(used) * u128::from(self.credit_per_mille) / 1_000;
        let grown = u64::try_from(grown).unwrap_or(u64::MAX);
        Msat(grown).min(self.max_credit)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A job was awarded. Its input has been counted and nothing computed yet.
    Opened {
        /// The award.
        award: EventId,
        /// Its price.
        price: Price,
        /// Tokens of input, the prefix counted in.
        input_tokens: u64,
        /// The most output it may have.
        max_output_tokens: u64,
    },
    /// The engine has drawn this many tokens of a job in all.
    Drawn {
        /// The award.
        award: EventId,
        /// The running total.
        output_tokens: u64,
    },
    /// The buyer has signed these totals.
    Acknowledged {
        /// The award.
        award: EventId,
        /// What it signed.
        totals: Totals,
    },
    /// A top-up has arrived.
    Paid {
        /// How much.
        amount: Msat,
    },
    /// The invoice that was asked for cannot be paid any more, or could not be made.
    Lapsed,
    /// A job is over: it is charged.
    Ended {
        /// The award.
        award: EventId,
    },
    /// The buyer wants this much back.
    RefundAsked {
        /// How much.
        amount: Msat,
    },
    /// A refund came to nothing.
    RefundFailed {
        /// How much it was.
        amount: Msat,
    },
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The job may draw up to this many output tokens in all; the first such effect lets it begin.
    Allow {
        /// The award.
        award: EventId,
        /// The total.
        output_tokens: u64,
    },
    /// Ask the buyer for a top-up.
    Ask {
        /// How much.
        amount: Msat,
    },
    /// Stop the job: deliver what there is, and end it.
    Stop {
        /// The award.
        award: EventId,
        /// Why.
        why: Why,
    },
    /// Post what the job cost.
    Charge {
        /// The award.
        award: EventId,
        /// How much.
        amount: Msat,
    },
    /// Pay so much back.
    Refund {
        /// How much.
        amount: Msat,
    },
    /// Tell the buyer that so much is not there, or that jobs are running.
    RefuseRefund,
}

/// Why a job is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody paid in time.
    Unpaid,
    /// The buyer acknowledged nothing in time.
    Silent,
    /// The buyer counts differently.
    Disagreement(Disagreement),
}

/// One buyer's tab, as its provider keeps it.
#[derive(Debug)]
pub struct Tab {
    terms: Terms,
    carried: Carried,
    jobs: BTreeMap<EventId, Job>,
    /// What was asked for and may still be paid.
    asked: Option<Msat>,
}

impl Tab {
    /// A tab that carries on what the ledger says; `asked` is an invoice that may still be paid.
    pub const fn new(terms: Terms, carried: Carried, asked: Option<Msat>) -> Self {
        Self {
            terms,
            carried,
            jobs: BTreeMap::new(),
            asked,
        }
    }

    /// What is left of what the buyer paid, in msat; negative if it owes.
    pub fn balance_msat(&self) -> i128 {
        let running = total(self.jobs.values().map(Job::due));
        i128::from(self.carried.paid.0) - i128::from(self.carried.due.0) - i128::from(running)
    }

    /// The buyer's credit now.
    pub fn credit(&self) -> Msat {
        self.terms.credit(&self.carried)
    }

    /// The totals of a job, to be signed and sent with its pieces.
    pub fn totals(&self, award: &EventId) -> Option<Totals> {
        let job = self.jobs.get(award)?;
        let due = job.cost(job.drawn);
        let others = self.jobs.iter().filter(|(other, _)| *other != award);
        let others = total(others.map(|(_, job)| job.due()));
        let tab_due = self.carried.due.0.saturating_add(others);
        Some(Totals {
            input_tokens: job.input_tokens,
            output_tokens: job.drawn,
            due_msat: Msat(due),
            tab_due_msat: Msat(tab_due.saturating_add(due)),
            tab_paid_msat: self.carried.paid,
        })
    }

    /// When to say [`Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Option<Millis> {
        let waiting = self.jobs.values().filter(|job| !job.is_stopped);
        let since = waiting.filter_map(|job| job.waits_since);
        since.min().map(|since| since.plus(self.terms.patience_ms))
    }

    /// Takes note of what happened.
    ///
    /// # Errors
    /// It makes no sense now: nothing has changed.
    pub fn step(&mut self, now: Millis, input: Input) -> Result<Vec<Effect>, Unexpected> {
        let mut effects = Vec::new();
        match input {
            Input::Opened {
                award,
                price,
                input_tokens,
                max_output_tokens,
            } => self.open(award, price, input_tokens, max_output_tokens)?,
            Input::Drawn {
                award,
                output_tokens,
            } => self.draw(&award, output_tokens)?,
            Input::Acknowledged { award, totals } => {
                effects.extend(self.acknowledge(award, &totals)?);
            }
            Input::Paid { amount } => {
                let paid = self.carried.paid.checked_add(amount);
                self.carried.paid = paid.ok_or(Unexpected("so much money"))?;
                self.asked = None;
            }
            Input::Lapsed => self.asked = None,
            Input::Ended { award } => effects.push(self.end(award)?),
            Input::RefundAsked { amount } => effects.push(self.refund(amount)),
            Input::RefundFailed { amount } => {
                let paid = self.carried.paid.checked_add(amount);
                self.carried.paid = paid.ok_or(Unexpected("so much money"))?;
            }
            Input::Tick => {}
        }
        self.allow(&mut effects);
        self.ask(&mut effects);
        self.wait(now, &mut effects);
        Ok(effects)
    }

    fn open(
        &mut self,
        award: EventId,
        price: Price,
        input_tokens: u64,
        max_output_tokens: u64,
    ) -> Result<(), Unexpected> {
        if self.jobs.contains_key(&award) {
            return Err(Unexpected("an award that is on the tab"));
        }
        if price.cost(input_tokens, max_output_tokens).is_none() {
            return Err(Unexpected("a job that costs more than there is"));
        }
        let job = Job {
            price,
            input_tokens,
            max_output_tokens,
            drawn: 0,
            allowed: None,
            acknowledged: 0,
            waits_since: None,
            is_stopped: false,
        };
        self.jobs.insert(award, job);
        Ok(())
    }

    fn draw(&mut self, award: &EventId, output_tokens: u64) -> Result<(), Unexpected> {
        let job = self.jobs.get_mut(award);
        let job = job.ok_or(Unexpected("work on no open job"))?;
        if output_tokens < job.drawn || job.allowed.is_none_or(|allowed| output_tokens > allowed) {
            return Err(Unexpected("work that was not allowed"));
        }
        job.drawn = output_tokens;
        Ok(())
    }

    fn acknowledge(
        &mut self,
        award: EventId,
        totals: &Totals,
    ) -> Result<Option<Effect>, Unexpected> {
        let job = self.jobs.get_mut(&award);
        let job = job.ok_or(Unexpected("word of no open job"))?;
        let disagreement = if totals.input_tokens != job.input_tokens {
            Some(Disagreement::Input)
        } else if totals.output_tokens > job.drawn {
            Some(Disagreement::Output)
        } else if totals.due_msat.0 != job.cost(totals.output_tokens) {
            Some(Disagreement::Cost)
        } else {
            None
        };
        let Some(disagreement) = disagreement else {
            // An older one may come later.
            job.acknowledged = job.acknowledged.max(totals.output_tokens);
            return Ok(None);
        };
        let is_new = !std::mem::replace(&mut job.is_stopped, true);
        Ok(is_new.then_some(Effect::Stop {
            award,
            why: Why::Disagreement(disagreement),
        }))
    }

    fn end(&mut self, award: EventId) -> Result<Effect, Unexpected> {
        let job = self.jobs.remove(&award);
        let job = job.ok_or(Unexpected("the end of no open job"))?;
        let amount = job.charge();
        let due = self.carried.due.checked_add(amount);
        self.carried.due = due.unwrap_or(Msat::MAX);
        Ok(Effect::Charge { award, amount })
    }

    fn refund(&mut self, amount: Msat) -> Effect {
        let left = self.carried.paid.0.saturating_sub(self.carried.due.0);
        if !self.jobs.is_empty() || amount == Msat::ZERO || amount.0 > left {
            return Effect::RefuseRefund;
        }
        self.carried.paid = Msat(self.carried.paid.0 - amount.0);
        Effect::Refund { amount }
    }

    /// What is not set aside for any job, the credit counted in.
    fn free(&self) -> u64 {
        let reserved = total(self.jobs.values().map(Job::reserved));
        let limit = self.carried.paid.0.saturating_add(self.credit().0);
        limit.saturating_sub(self.carried.due.0.saturating_add(reserved))
    }

    /// Lets jobs go on as far as there is money for them.
    fn allow(&mut self, effects: &mut Vec<Effect>) {
        let awards: Vec<EventId> = self.jobs.keys().copied().collect();
        for award in awards {
            let free = self.free();
            let Some(job) = self.jobs.get_mut(&award).filter(|job| !job.is_stopped) else {
                continue;
            };
            if let Some(output_tokens) = further(&self.terms, job, free) {
                job.allowed = Some(output_tokens);
                effects.push(Effect::Allow {
                    award,
                    output_tokens,
                });
            }
        }
    }

    /// Asks for money before it runs out, once at a time.
    fn ask(&mut self, effects: &mut Vec<Effect>) {
        if self.asked.is_some() {
            return;
        }
        let amount = self.wanted();
        if amount > 0 {
            let amount = Msat(amount.max(self.terms.min_top_up.0));
            self.asked = Some(amount);
            effects.push(Effect::Ask { amount });
        }
    }

    /// How much to ask for; nothing if there is enough.
    fn wanted(&self) -> u64 {
        let free = self.free();
        let running = || self.jobs.values().filter(|job| !job.is_stopped);
        let rest = |job: &Job| job.cost(job.max_output_tokens) - job.reserved();
        let needed = total(running().map(rest));
        let debt = self.carried.due.0.saturating_sub(self.carried.paid.0);
        if needed == 0 && debt >= self.terms.min_top_up.0 {
            return debt;
        }
        let next = |job: &Job| job.cost(next_stretch(&self.terms, job)) - job.reserved();
        let low = (self.terms.top_up.0 / 2).max(total(running().map(next)));
        if needed <= free || free >= low {
            return 0;
        }
        self.terms.top_up.0.max(low - free).min(needed - free)
    }

    /// Notes who waits, and stops who has waited too long.
    fn wait(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        for (award, job) in &mut self.jobs {
            if job.can_go_on() || job.is_stopped {
                job.waits_since = None;
                continue;
            }
            let since = *job.waits_since.get_or_insert(now);
            if now < since.plus(self.terms.patience_ms) {
                continue;
            }
            job.is_stopped = true;
            let behind = job.drawn - job.acknowledged;
            let why = match behind >= self.terms.unacknowledged_output_tokens {
                true => Why::Silent,
                false => Why::Unpaid,
            };
            effects.push(Effect::Stop { award: *award, why });
        }
    }
}

fn total(amounts: impl Iterator<Item = u64>) -> u64 {
    amounts.fold(0, u64::saturating_add)
}
