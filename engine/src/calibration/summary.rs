//! What many texts' figures come to.

use infernet_protocol::event::Judgement;
use infernet_protocol::verification::{TextFigures, Texts, Thresholds, judge_text};
use serde::Serialize;

/// Figures of some texts, each judged for itself.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Summary {
    /// How many texts.
    pub texts: usize,
    /// Their tokens.
    pub tokens: usize,
    /// The share of tokens that are the checker's too.
    pub exact: f64,
    /// The mean of all margins, in logits.
    pub mean: f64,
    /// The greatest mean over a text, in logits, as it is judged.
    pub worst_mean: f64,
    /// The greatest mean over a window, in logits, as it is judged.
    pub worst_window: f64,
    /// Of 128 numbers of activations how many have another exponent, on average.
    pub exponents: f64,
    /// The mean difference of mantissas, on average.
    pub mantissa_mean: f64,
    /// The greatest of a text, as it is judged.
    pub worst_mantissa_mean: f64,
    /// Texts that are rejected.
    pub rejected: usize,
    /// Texts of which nothing is said.
    pub inconclusive: usize,
}

impl Summary {
    /// Sums texts up.
    pub fn of(figures: &[TextFigures], thresholds: &Thresholds) -> Self {
        let mut summary = Self {
            texts: figures.len(),
            ..Self::default()
        };
        let (mut exact, mut sum, mut proven) = (0, 0.0, 0);
        for text in figures {
            let one = std::slice::from_ref(text);
            let found = Texts::of(one, thresholds);
            for drawn in [found.sampled, found.greedy] {
                summary.tokens += drawn.tokens as usize;
                exact += drawn.exact;
                sum += drawn.margin_sum;
                summary.worst_mean = summary.worst_mean.max(drawn.worst_mean);
                summary.worst_window = summary.worst_window.max(drawn.worst_window);
            }
            let activations = found.activations;
            proven += usize::from(activations.chunks > 0);
            summary.exponents += activations.exponents;
            summary.mantissa_mean += activations.mantissa_mean;
            let worst = summary.worst_mantissa_mean;
            summary.worst_mantissa_mean = worst.max(activations.mantissa_mean);
            match judge_text(one, thresholds) {
                Judgement::Rejected => summary.rejected += 1,
                Judgement::Inconclusive => summary.inconclusive += 1,
                Judgement::Accepted => {}
            }
        }
        let tokens = summary.tokens.max(1) as f64;
        (summary.exact, summary.mean) = (exact as f64 / tokens, sum / tokens);
        summary.exponents /= proven.max(1) as f64;
        summary.mantissa_mean /= proven.max(1) as f64;
        summary
    }
}
