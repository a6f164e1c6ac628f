//! The figures of a result's texts, and how they are judged.

use std::collections::BTreeMap;

use super::{ChunkDistance, Fault, JUDGED_TOKENS, Margins, TextFigures, Thresholds, WINDOW};
use crate::event::Judgement;

/// What was measured of all texts of one result.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Texts {
    /// Of those drawn at a temperature above 0.
    pub sampled: Drawn,
    /// Of those drawn at temperature 0.
    pub greedy: Drawn,
    /// What they say together against a provider: see [`super::Pool`].
    pub evidence: f64,
    /// Of their proofs.
    pub activations: ActivationTotals,
    /// How many texts have which fault.
    pub faults: BTreeMap<Fault, u32>,
}

/// The margins of texts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Drawn {
    /// Texts.
    pub answers: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Tokens that are the checker's too.
    pub exact: u64,
    /// Sum of all margins.
    pub margin_sum: f64,
    /// The greatest mean over a text, and over those under [`JUDGED_TOKENS`] together.
    pub worst_mean: f64,
    /// The greatest mean over a [`WINDOW`] of a text.
    pub worst_window: f64,
}

/// Tokens whose activations are proven together.
const CHUNK: usize = 32;

/// The distances of proofs: means over all chunks of a result, which count by their
/// tokens. Of a result of fewer than [`JUDGED_TOKENS`] tokens those that are missing
/// count as matches.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ActivationTotals {
    /// Chunks in all.
    pub chunks: u64,
    /// Mean number of other exponents, out of 128.
    pub exponents: f64,
    /// The greatest number in one chunk.
    pub worst_exponents: f64,
    /// Mean of the mean differences of mantissas.
    pub mantissa_mean: f64,
    /// Mean of the median differences of mantissas.
    pub mantissa_median: f64,
}

impl Texts {
    /// Sums up what was measured of each text of a result.
    pub fn of(texts: &[TextFigures], thresholds: &Thresholds) -> Self {
        let (greedy, sampled): (Vec<_>, Vec<_>) = texts.iter().partition(|text| text.greedy);
        let greedy = Tally::of(&greedy, &thresholds.greedy);
        let sampled = Tally::of(&sampled, &thresholds.sampled);
        let mut faults = BTreeMap::new();
        for text in texts {
            if let Some(fault) = text.fault {
                *faults.entry(fault).or_insert(0) += 1;
            }
        }
        Self {
            sampled: sampled.drawn,
            greedy: greedy.drawn,
            evidence: sampled.evidence + greedy.evidence,
            activations: ActivationTotals::of(texts),
            faults,
        }
    }

    /// Tokens of all texts.
    pub fn tokens(&self) -> u64 {
        self.sampled.tokens.saturating_add(self.greedy.tokens)
    }

    /// Whether margins, means and evidence can belong to the same texts. Those of a
    /// checker that makes them up may not.
    pub(super) fn hold_together(&self, thresholds: &Thresholds) -> bool {
        let (sampled, greedy) = (&thresholds.sampled, &thresholds.greedy);
        // ln(1 + x) is at most x.
        let most = self.sampled.most_evidence(sampled) + self.greedy.most_evidence(greedy);
        self.sampled.holds_together(sampled)
            && self.greedy.holds_together(greedy)
            && self.evidence <= most + SLACK
    }

    pub(super) fn judge(&self, thresholds: &Thresholds) -> Judgement {
        if !self.faults.is_empty() || self.activations.exceed(thresholds) {
            return Judgement::Rejected;
        }
        let sampled = self.sampled.judge(&thresholds.sampled);
        let greedy = self.greedy.judge(&thresholds.greedy);
        match (sampled, greedy) {
            (Judgement::Rejected, _) | (_, Judgement::Rejected) => Judgement::Rejected,
            (Judgement::Accepted, Judgement::Accepted) => Judgement::Accepted,
            (Judgement::Inconclusive, _) | (_, Judgement::Inconclusive) => Judgement::Inconclusive,
        }
    }
}

/// How far sums of floats may differ.
const SLACK: f64 = 1e-6;

impl Drawn {
    fn most_evidence(&self, bounds: &Margins) -> f64 {
        self.margin_sum / (2.0 * JUDGED_TOKENS as f64 * bounds.pooled)
    }

    fn holds_together(&self, bounds: &Margins) -> bool {
        let inexact = self.tokens.saturating_sub(self.exact);
        let parts = [
            self.worst_mean * JUDGED_TOKENS as f64,
            self.worst_window * WINDOW as f64,
        ];
        self.exact <= self.tokens
            && self.margin_sum <= inexact as f64 * bounds.clip + SLACK
            && parts.iter().all(|part| *part <= self.margin_sum + SLACK)
    }

    /// Comparisons are so that what is no number is rejected.
    fn judge(&self, bounds: &Margins) -> Judgement {
        let bearable = self.worst_mean <= bounds.reject && self.worst_window <= bounds.window;
        match (bearable, self.worst_mean <= bounds.accept) {
            (false, _) => Judgement::Rejected,
            (true, true) => Judgement::Accepted,
            (true, false) => Judgement::Inconclusive,
        }
    }
}

impl ActivationTotals {
    fn of(texts: &[TextFigures]) -> Self {
        let mut totals = Self::default();
        let mut tokens = 0;
        for text in texts {
            for (number, chunk) in text.chunks.iter().enumerate() {
                let left = text.margins.len().saturating_sub(number * CHUNK);
                let weight = left.clamp(1, CHUNK);
                tokens += weight;
                totals.add(chunk, weight as f64);
            }
        }
        let tokens = tokens.max(JUDGED_TOKENS) as f64;
        totals.exponents /= tokens;
        totals.mantissa_mean /= tokens;
        totals.mantissa_median /= tokens;
        totals
    }

    fn add(&mut self, chunk: &ChunkDistance, weight: f64) {
        self.chunks += 1;
        self.exponents += f64::from(chunk.exponents) * weight;
        self.worst_exponents = self.worst_exponents.max(chunk.exponents.into());
        self.mantissa_mean += distance(chunk.mantissa_mean) * weight;
        self.mantissa_median += distance(chunk.mantissa_median) * weight;
    }

    fn exceed(&self, thresholds: &Thresholds) -> bool {
        let bounds = thresholds.activations;
        self.exponents > bounds.exponents
            || self.worst_exponents > bounds.worst_exponents
            || self.mantissa_mean > bounds.mantissa_mean
            || self.mantissa_median > bounds.mantissa_median
    }
}

/// The margins of texts as they are added up.
#[derive(Default)]
struct Tally {
    drawn: Drawn,
    evidence: f64,
    short_tokens: usize,
    short_sum: f64,
}

impl Tally {
    fn of(texts: &[&TextFigures], bounds: &Margins) -> Self {
        let mut tally = Self::default();
        for text in texts {
            tally.add(text, bounds);
        }
        let together = mean(tally.short_sum, tally.short_tokens);
        tally.drawn.worst_mean = tally.drawn.worst_mean.max(together);
        tally
    }

    fn add(&mut self, text: &TextFigures, bounds: &Margins) {
        let margins: Vec<f64> = text.margins.iter().map(|m| clipped(*m, bounds)).collect();
        let sum: f64 = margins.iter().sum();
        let drawn = &mut self.drawn;
        drawn.answers += 1;
        drawn.tokens += margins.len() as u64;
        drawn.exact += margins.iter().filter(|margin| **margin == 0.0).count() as u64;
        drawn.margin_sum += sum;
        drawn.worst_mean = drawn.worst_mean.max(mean(sum, margins.len()));
        drawn.worst_window = drawn.worst_window.max(worst_window(&margins));
        if margins.len() < JUDGED_TOKENS {
            self.short_tokens += margins.len();
            self.short_sum += sum;
        }
        let stretches = margins.chunks(JUDGED_TOKENS);
        self.evidence += stretches.map(|s| evidence(s, bounds.pooled)).sum::<f64>();
    }
}

/// What is no number counts as more than any two mantissas of seven bits differ by.
const fn distance(distance: f64) -> f64 {
    match distance.is_finite() {
        true => distance,
        false => 128.0,
    }
}

/// What is no number counts as the clip.
fn clipped(margin: f32, bounds: &Margins) -> f64 {
    match f64::from(margin) {
        margin if margin.is_nan() => bounds.clip,
        margin => margin.clamp(0.0, bounds.clip),
    }
}

/// A mean over so many tokens, those missing to [`JUDGED_TOKENS`] counting 0.
fn mean(sum: f64, tokens: usize) -> f64 {
    sum / tokens.max(JUDGED_TOKENS) as f64
}

fn worst_window(margins: &[f64]) -> f64 {
    let windows = margins.windows(WINDOW.min(margins.len()).max(1));
    let sums = windows.map(|window| window.iter().sum::<f64>());
    sums.fold(0.0, f64::max) / WINDOW as f64
}

/// What one stretch of at most [`JUDGED_TOKENS`] tokens says against its provider: the
/// logarithm of a bet, of half of what one has, that its mean is above the one that no
/// honest provider exceeds. An honest provider's bets win nothing on average.
fn evidence(stretch: &[f64], pooled: f64) -> f64 {
    let share = stretch.len() as f64 / JUDGED_TOKENS as f64;
    let above = stretch.iter().sum::<f64>() / JUDGED_TOKENS as f64 / pooled - share;
    (above / 2.0).ln_1p()
}
