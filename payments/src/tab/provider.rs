//! The provider's side of a tab: how much it may draw, and when to ask for money.

mod job;

use std::collections::BTreeMap;

use infernet_protocol::job::Millis;
use infernet_protocol::money::{Msat, Price};
use nostr::EventId;

use self::job::{Job, further, next_stretch};
use super::{Carried, Disagreement, MIN_PAYMENT, Totals, Unexpected};

/// How many usual top-ups a tab is at most kept ahead of a stream that runs dry. A buyer who pays half of that on top
/// of the other half stays within the five that buyers usually risk.
const MAX_AHEAD: u64 = 4;

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
    /// The invoice that was asked for cannot be paid any more, or could not be made: another is asked for at once, so
    /// say this after a while where none can be made.
    Lapsed,
    /// The buyer pays no more than this at a time: what was asked for is asked anew, in parts.
    Limited {
        /// How much.
        most: Msat,
    },
    /// The same, of a buyer that was asked for no more than that, or for nothing: what was asked for stands.
    Bounded {
        /// How much.
        most: Msat,
    },
    /// A job is over: it is charged.
    Ended {
        /// The award.
        award: EventId,
    },
    /// A job is over and has brought nothing: it costs nothing.
    Dropped {
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
    /// How many jobs were opened: they have their turns in that order.
    opened: u64,
    /// What was asked for and may still be paid.
    asked: Option<Msat>,
    /// The most that the buyer pays at a time, once it has said so.
    most: Option<Msat>,
    /// No more than this is ever asked for at a time.
    ceiling: Msat,
    /// What there is to be for what runs, once a top-up has come, in msat. It grows when that was not enough.
    ahead: u64,
}

impl Tab {
    /// A tab that carries on what the ledger says; `asked` is an invoice that may still be paid.
    pub const fn new(terms: Terms, carried: Carried, asked: Option<Msat>) -> Self {
        Self {
            terms,
            carried,
            jobs: BTreeMap::new(),
            opened: 0,
            asked,
            most: None,
            ceiling: Msat::MAX,
            ahead: terms.top_up.0,
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

    /// Whether there is enough for a job to begin, but for what is set aside for others and not used yet.
    pub fn covers(&self, award: &EventId) -> bool {
        let first = self.jobs.get(award).map(|job| match job.allowed {
            None => job.cost(next_stretch(&self.terms, job)),
            Some(_) => 0,
        });
        let there_is = self.balance_msat() + i128::from(self.credit().0);
        first.is_some_and(|first| i128::from(first) <= there_is)
    }

    /// The most that may be asked for at a time, as far as the buyer has said.
    pub const fn ceiling(&self) -> Msat {
        self.ceiling
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
            Input::Paid { amount } => self.pay(amount)?,
            Input::Lapsed => self.asked = None,
            Input::Limited { most } => self.limit(most),
            Input::Bounded { most } => self.bound(most),
            Input::Ended { award } => effects.push(self.end(award)?),
            Input::Dropped { award } => self.drop_job(&award)?,
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
        self.opened += 1;
        let job = Job {
            number: self.opened,
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

    fn pay(&mut self, amount: Msat) -> Result<(), Unexpected> {
        let paid = self.carried.paid.checked_add(amount);
        self.carried.paid = paid.ok_or(Unexpected("so much money"))?;
        self.asked = None;
        // The engine was faster than the money: it is asked for earlier, and more of it.
        if self.jobs.values().any(|job| job.has_run_dry(&self.terms)) {
            let most = self.terms.top_up.0.saturating_mul(MAX_AHEAD);
            self.ahead = self.ahead.saturating_mul(2).min(most);
        }
        // Who pays is not late: jobs that wait for their turn have time again.
        if amount >= self.terms.min_top_up {
            for job in self.jobs.values_mut() {
                job.waits_since = job.waits_since.filter(|_| job.is_silent(&self.terms));
            }
        }
        Ok(())
    }

    /// Below the smallest top-up there is nothing to be asked for: the jobs wait in vain, and are stopped in time.
    fn limit(&mut self, most: Msat) {
        if most >= self.terms.min_top_up {
            (self.most, self.asked) = (Some(most), None);
            self.bound(most);
        }
    }

    /// Never asks for more than the buyer has said last, nor for more than usual because of that.
    fn bound(&mut self, most: Msat) {
        if most >= self.terms.min_top_up {
            self.ceiling = most;
            self.most = self.most.map(|_| most);
            self.ahead = self.ahead.min(most.0);
        }
    }

    fn end(&mut self, award: EventId) -> Result<Effect, Unexpected> {
        let job = self.jobs.remove(&award);
        let job = job.ok_or(Unexpected("the end of no open job"))?;
        let amount = job.charge();
        let due = self.carried.due.checked_add(amount);
        self.carried.due = due.unwrap_or(Msat::MAX);
        Ok(Effect::Charge { award, amount })
    }

    fn drop_job(&mut self, award: &EventId) -> Result<(), Unexpected> {
        let job = self.jobs.remove(award);
        job.map(drop).ok_or(Unexpected("the end of no open job"))
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

    /// Whose turn it is: what has begun goes on before anything else begins, the oldest first.
    fn turns(&self) -> Vec<EventId> {
        let running = self.jobs.iter().filter(|(_, job)| !job.is_stopped);
        let mut turns: Vec<_> = running.map(|(award, job)| (job.turn(), *award)).collect();
        turns.sort_unstable();
        turns.into_iter().map(|(_, award)| award).collect()
    }

    /// Lets jobs go on as far as there is money for them.
    fn allow(&mut self, effects: &mut Vec<Effect>) {
        let mut free = self.free();
        for award in self.turns() {
            let Some(job) = self.jobs.get_mut(&award) else {
                continue;
            };
            let Some(output_tokens) = further(&self.terms, job, free) else {
                continue;
            };
            let before = job.reserved();
            job.allowed = Some(output_tokens);
            free = free.saturating_sub(job.reserved() - before);
            effects.push(Effect::Allow {
                award,
                output_tokens,
            });
        }
    }

    /// Asks for money before it runs out, once at a time.
    fn ask(&mut self, effects: &mut Vec<Effect>) {
        if self.asked.is_some() {
            return;
        }
        let amount = self.wanted();
        if amount > 0 {
            let amount = amount.min(self.ceiling.0);
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
        let most = |otherwise: u64| self.most.map_or(otherwise, |most| most.0);
        let debt = self.carried.due.0.saturating_sub(self.carried.paid.0);
        if needed == 0 && debt >= self.terms.min_top_up.0 {
            return debt.min(most(debt));
        }
        let next = |job: &Job| job.cost(next_stretch(&self.terms, job)) - job.reserved();
        let low = (self.ahead / 2).max(total(running().map(next)));
        if needed <= free || free >= low {
            return 0;
        }
        // Many jobs need more at once than their buyer may be ready to risk, and an invoice that is too large stops
        // them all: unless we know what it pays, one job at a time is asked for.
        let lacking = running().filter(|job| next(job) > 0);
        let first = lacking.min_by_key(|job| job.turn());
        let lack = first.map_or(0, |job| next(job).saturating_sub(free));
        let top_up = self.terms.top_up.0.max(self.ahead / 2);
        let wanted = top_up.max(low - free).min(needed - free);
        wanted.min(most(top_up.max(lack)))
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
            let why = match job.is_silent(&self.terms) {
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
