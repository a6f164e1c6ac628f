//! Rounds: who is let go, who is taken in, what is computed, what is said.

mod compute;
mod room;

use std::cmp::Ordering;

use crate::cache::{Blocks, Realm};
use crate::error::Error;
use crate::models::decoder::BLOCK_TOKENS;

use super::shares::Shares;
use super::{Network, Sequence, Text};

/// What one token of a prompt costs its customer's share, if one token of an answer
/// costs [`ANSWER_COST`]: prompts are computed many tokens at a time.
const PROMPT_COST: f64 = 1.0;
/// What one token of an answer costs.
const ANSWER_COST: f64 = 4.0;

/// How far a customer must be ahead of one that waits before it gives up a place:
/// a hundred tokens of an answer. Less would have them change places all the time.
const PATIENCE: f64 = 100.0 * ANSWER_COST;

/// How much is done at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Requests in one batch.
    pub(crate) slots: usize,
    /// Blocks of the cache.
    pub(crate) blocks: u32,
    /// Tokens of prompts in a round in which nobody's answer is under way.
    pub(crate) prompt_alone: usize,
    /// Tokens of prompts in a round that answers are waiting for.
    pub(crate) prompt_beside: usize,
    /// Threads that draw tokens.
    pub(crate) threads: usize,
    /// Whether a beginning is shared between customers.
    pub(crate) shares_prefixes: bool,
}

/// What came of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// Something was computed.
    Worked,
    /// All readers are behind.
    Waits,
    /// There is no request.
    Idle,
}

/// The requests of one model.
pub(crate) struct Scheduler<N> {
    network: N,
    text: Text,
    limits: Limits,
    blocks: Blocks,
    shares: Shares,
    /// They hold no blocks.
    waiting: Vec<Sequence>,
    running: Vec<Sequence>,
    arrived: u64,
}

impl<N: Network> Scheduler<N> {
    /// One without requests. A text's context fits into the blocks.
    pub(crate) fn new(network: N, text: Text, limits: Limits) -> Self {
        debug_assert!(text.context <= limits.blocks as usize * BLOCK_TOKENS);
        Self {
            network,
            text,
            limits,
            blocks: Blocks::new(limits.blocks),
            shares: Shares::default(),
            waiting: Vec::new(),
            running: Vec::new(),
            arrived: 0,
        }
    }

    /// What computes.
    pub(crate) fn network(&self) -> &N {
        &self.network
    }

    /// What its model says of text.
    pub(crate) fn text(&self) -> &Text {
        &self.text
    }

    /// Takes a request; it waits for its turn.
    pub(crate) fn take(&mut self, mut sequence: Sequence) {
        self.arrived += 1;
        sequence.number = self.arrived;
        sequence.realm = match self.limits.shares_prefixes {
            true => Realm::default(),
            false => sequence.standing.customer,
        };
        self.shares.enter(sequence.standing.customer);
        self.wait(sequence);
    }

    /// Does one round.
    pub(crate) fn round(&mut self) -> Round {
        self.sweep();
        self.admit();
        self.plan();
        match self.running.iter().any(|sequence| sequence.piece > 0) {
            true => self.compute(),
            false if self.running.is_empty() && self.waiting.is_empty() => return Round::Idle,
            false => return Round::Waits,
        }
        Round::Worked
    }

    /// Fails all that is left.
    pub(crate) fn stop(mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for sequence in waiting.into_iter().chain(std::mem::take(&mut self.running)) {
            sequence.fail(Error::Stopped);
        }
    }

    /// Lets go of what nobody wants any more.
    fn sweep(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = self.wanted(waiting);
        let running = std::mem::take(&mut self.running);
        self.running = self.wanted(running);
    }

    fn wanted(&mut self, sequences: Vec<Sequence>) -> Vec<Sequence> {
        let mut wanted = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            if sequence.steps.is_abandoned() {
                self.dismiss(sequence);
            } else if sequence.steps.is_cancelled() {
                let mut sequence = self.dismiss(sequence);
                sequence.start();
                sequence.end(infernet_protocol::inference::EndReason::Cancelled);
            } else {
                wanted.push(sequence);
            }
        }
        wanted
    }

    /// Takes back what a request has; it has left its list.
    fn dismiss(&mut self, mut sequence: Sequence) -> Sequence {
        sequence.release(&mut self.blocks);
        self.shares.leave(sequence.standing.customer);
        sequence
    }

    fn wait(&mut self, sequence: Sequence) {
        sequence.steps.set_waiting(true);
        self.waiting.push(sequence);
    }

    /// Orders by claim: by their customers' clocks, else as they came. Price has its say
    /// in the clocks; here it would let those who pay go before others forever.
    fn by_claim(&self, a: &Sequence, b: &Sequence) -> Ordering {
        let clock = |sequence: &Sequence| self.shares.clock(sequence.standing.customer);
        clock(a).total_cmp(&clock(b)).then(a.number.cmp(&b.number))
    }

    /// Charges a request's customer for a piece that is computed.
    fn charge(&mut self, sequence: &Sequence, highest: u64) {
        let row = sequence.row();
        let cost = match (row.tokens.len(), row.draws) {
            (1, true) => ANSWER_COST,
            (tokens, _) => PROMPT_COST * tokens as f64,
        };
        let weight = sequence.standing.weight(highest);
        self.shares
            .charge(sequence.standing.customer, cost / weight);
    }

    /// The highest price of all that are served.
    fn highest_price(&self) -> u64 {
        let all = self.running.iter().chain(&self.waiting);
        all.map(|sequence| sequence.standing.price)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
