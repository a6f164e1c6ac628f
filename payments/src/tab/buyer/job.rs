//! One job on a buyer's tab.

use infernet_protocol::money::{Msat, Price};

use crate::tab::{Disagreement, Totals};

#[derive(Debug)]
pub(super) struct Job {
    pub(super) price: Price,
    pub(super) max_input_tokens: u64,
    pub(super) max_output_tokens: u64,
    pub(super) budget: Msat,
    /// As first claimed.
    pub(super) input_tokens: Option<u64>,
    pub(super) counted: u64,
    /// The most output that the provider has claimed.
    pub(super) claimed: u64,
    /// What had been paid when it was opened.
    pub(super) paid_before: Msat,
    /// The most that the provider has signed to have been paid, as far as we knew of it.
    pub(super) paid_claimed: Msat,
    /// The output that was acknowledged last.
    pub(super) acknowledged: Option<u64>,
    pub(super) is_stopped: bool,
}

impl Job {
    pub(super) fn cost(&self, input_tokens: u64, output_tokens: u64) -> Msat {
        let cost = self.price.cost(input_tokens, output_tokens);
        cost.unwrap_or(Msat::MAX)
    }

    /// What we put on the tab for it: never more than was agreed on.
    pub(super) fn charged(&self, input_tokens: u64, output_tokens: u64) -> Msat {
        let output_tokens = output_tokens.min(self.max_output_tokens);
        self.cost(input_tokens, output_tokens).min(self.budget)
    }

    /// What we have had of it. The input counts from the first output on: before, there is nothing to show for it.
    pub(super) fn received(&self) -> Msat {
        match (self.counted, self.input_tokens) {
            (0, _) => Msat::ZERO,
            (counted, input) => self.charged(input.unwrap_or_default(), counted),
        }
    }

    /// What it costs once it is over.
    pub(super) fn charge(&self, is_delivered: bool) -> Msat {
        match self.input_tokens {
            // Work without output, like an embedding, is done with its result.
            Some(input) if is_delivered && self.max_output_tokens == 0 => self.charged(input, 0),
            _ => self.received(),
        }
    }

    /// The most that it can still cost in all.
    pub(super) fn ceiling(&self) -> Msat {
        let input = self.input_tokens.unwrap_or(self.max_input_tokens);
        self.cost(input, self.max_output_tokens).min(self.budget)
    }
}

pub(super) fn disagrees(job: &Job, totals: &Totals) -> Option<Disagreement> {
    let is_same_input = job
        .input_tokens
        .is_none_or(|input| input == totals.input_tokens);
    if !is_same_input || totals.input_tokens > job.max_input_tokens {
        return Some(Disagreement::Input);
    }
    if totals.output_tokens > job.max_output_tokens {
        return Some(Disagreement::Output);
    }
    let cost = job.price.cost(totals.input_tokens, totals.output_tokens);
    if cost != Some(totals.due_msat) {
        return Some(Disagreement::Cost);
    }
    (totals.due_msat > job.budget).then_some(Disagreement::OverBudget)
}
