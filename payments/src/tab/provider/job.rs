//! One job on a provider's tab.

use infernet_protocol::job::Millis;
use infernet_protocol::money::{Msat, Price};

use super::Terms;

#[derive(Debug)]
pub(super) struct Job {
    /// Which of the tab's jobs it is, in the order of their opening.
    pub(super) number: u64,
    pub(super) price: Price,
    pub(super) input_tokens: u64,
    pub(super) max_output_tokens: u64,
    pub(super) drawn: u64,
    /// What it may draw in all, once it may begin.
    pub(super) allowed: Option<u64>,
    pub(super) acknowledged: u64,
    /// Since when it cannot go on.
    pub(super) waits_since: Option<Millis>,
    pub(super) is_stopped: bool,
}

impl Job {
    /// What so much output costs, with the input.
    pub(super) fn cost(&self, output_tokens: u64) -> u64 {
        let cost = self.price.cost(self.input_tokens, output_tokens);
        cost.unwrap_or(Msat::MAX).0
    }

    /// What is set aside for it.
    pub(super) fn reserved(&self) -> u64 {
        self.allowed.map_or(0, |allowed| self.cost(allowed))
    }

    /// What it has cost.
    pub(super) fn due(&self) -> u64 {
        self.allowed.map_or(0, |_| self.cost(self.drawn))
    }

    /// What it costs once it is over. Work that has output costs nothing before the first of it: nobody could tell
    /// an input that was computed from one that was not.
    pub(super) fn charge(&self) -> Msat {
        match self.drawn == 0 && self.max_output_tokens > 0 {
            true => Msat::ZERO,
            false => Msat(self.due()),
        }
    }

    /// The most output that costs no more than this.
    pub(super) fn affordable(&self, budget: u64) -> u64 {
        let millionths = u128::from(budget) * 1_000_000;
        let input = u128::from(self.price.input_msat) * u128::from(self.input_tokens);
        let left = millionths.saturating_sub(input);
        match u128::from(self.price.output_msat) {
            0 => u64::MAX,
            price => u64::try_from(left / price).unwrap_or(u64::MAX),
        }
    }

    /// Its place among those that wait for money.
    pub(super) const fn turn(&self) -> (bool, u64) {
        (self.allowed.is_none(), self.number)
    }

    /// Whether the buyer has acknowledged too little.
    pub(super) const fn is_silent(&self, terms: &Terms) -> bool {
        self.drawn - self.acknowledged >= terms.unacknowledged_output_tokens
    }

    /// Whether it has begun, and waits for nothing but money.
    pub(super) const fn has_run_dry(&self, terms: &Terms) -> bool {
        self.allowed.is_some() && !self.can_go_on() && !self.is_stopped && !self.is_silent(terms)
    }

    pub(super) const fn can_go_on(&self) -> bool {
        match self.allowed {
            None => false,
            Some(allowed) => self.drawn < allowed || allowed == self.max_output_tokens,
        }
    }
}

/// The output that a job is to be allowed next, if there is money for it.
pub(super) fn next_stretch(terms: &Terms, job: &Job) -> u64 {
    let next = match job.allowed {
        None => terms.prepaid_output_tokens,
        Some(allowed) => allowed.saturating_add(terms.stretch_output_tokens),
    };
    next.min(job.max_output_tokens)
}

/// How much output a job may have now, if that is more than before.
pub(super) fn further(terms: &Terms, job: &Job, free: u64) -> Option<u64> {
    let Some(allowed) = job.allowed else {
        let first = next_stretch(terms, job);
        return (job.cost(first) <= free).then_some(first);
    };
    let stretch = job.drawn.saturating_add(terms.stretch_output_tokens);
    let window = job
        .acknowledged
        .saturating_add(terms.unacknowledged_output_tokens);
    let affordable = job.affordable(job.cost(allowed).saturating_add(free));
    let next = stretch
        .min(window)
        .min(affordable)
        .min(job.max_output_tokens);
    (next > allowed).then_some(next)
}
