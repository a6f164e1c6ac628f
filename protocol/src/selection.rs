//! Whom a buyer asks first: price and waiting time, divided by reputation.

use crate::event::{Limits, Promise};
use crate::money::{Msat, Price};

/// What a second of waiting is worth to a buyer, in millisatoshis, unless it
/// says otherwise.
pub const DEFAULT_MSAT_PER_S: f64 = 10.0;

/// What a failed attempt costs a buyer, in seconds: noticing it, and beginning
/// anew. A promise is only as good as who gives it: without this, a promise of no
/// time at all would win against any record.
const FAILURE_S: f64 = 10.0;

/// What a provider would charge and how long it would take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quote {
    /// What it asks.
    pub price: Price,
    /// How fast it promises to be.
    pub promise: Promise,
    /// Attempts that run or wait at it for each of its slots.
    pub jobs_per_slot: f64,
    /// Its score from 0 to 1 ([`crate::reputation::standing`]).
    pub score: f64,
}

/// How much a buyer wants a provider: minus what the job costs and what the wait
/// is worth, a likely failure counted in, divided by the score. The highest is
/// asked first.
pub fn rank(quote: &Quote, limits: &Limits, msat_per_s: f64) -> f64 {
    let cost = quote
        .price
        .cost(limits.input_tokens.into(), limits.output_tokens.into())
        .unwrap_or(Msat::MAX);
    // A score of exactly 0 would make everything equally bad.
    let score = quote.score.max(0.001);
    let wait = seconds(quote, limits) + FAILURE_S * (1.0 - score);
    -(cost.0 as f64 + msat_per_s * wait) / score
}

/// How long the job would take, waiting for earlier ones counted in.
fn seconds(quote: &Quote, limits: &Limits) -> f64 {
    let first = quote.promise.first_token_ms as f64 / 1_000.0;
    let speed = f64::from(quote.promise.tokens_per_s).max(0.1);
    let work = first + f64::from(limits.output_tokens) / speed;
    work * (1.0 + quote.jobs_per_slot)
}
