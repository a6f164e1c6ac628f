//! What many verdicts on one provider say together.

use serde::{Deserialize, Serialize};

use super::{Texts, Thresholds};

/// Evidence at which a provider is rejected: ln 100,000. An honest one, whose mean margin
/// is not above [`super::Margins::pooled`], comes to it no sooner than after 100,000
/// stretches of [`super::JUDGED_TOKENS`] tokens, on average.
pub const POOL_LIMIT: f64 = 11.512_925_464_970_229;

/// What the answers of one (provider, model) say together. An answer
/// that is a little worse than it should be proves nothing; hundreds do.
///
/// Each stretch of [`super::JUDGED_TOKENS`] tokens is a bet of half of what one has, that
/// its mean margin is above the greatest that honest providers have. Evidence is the
/// logarithm of what the bets have made of 1, and never below 0: one that was honest
/// for long cannot cheat on the credit of that (the CUSUM rule; as a bet, Shin, Ramdas
/// and Rinaldo, "E-detectors", arXiv 2203.03532).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Pool {
    /// Results.
    pub results: u64,
    /// Tokens of their answers.
    pub tokens: u64,
    /// Sum of their margins.
    pub margin_sum: f64,
    /// The evidence.
    pub evidence: f64,
}

impl Pool {
    /// The pool with one result more. One whose figures do not hold together adds
    /// nothing.
    #[must_use]
    pub fn with(mut self, texts: &Texts, thresholds: &Thresholds) -> Self {
        if !texts.hold_together(thresholds) {
            return self;
        }
        self.results = self.results.saturating_add(1);
        self.tokens = self.tokens.saturating_add(texts.tokens());
        self.margin_sum += texts.sampled.margin_sum + texts.greedy.margin_sum;
        self.evidence = (self.evidence + texts.evidence).max(0.0);
        self
    }

    /// Whether its provider is rejected.
    pub fn is_rejected(&self) -> bool {
        self.evidence >= POOL_LIMIT
    }
}
