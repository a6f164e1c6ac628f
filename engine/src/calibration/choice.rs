//! Thresholds from honest answers.

use infernet_protocol::verification::{
    Activations, Drawn, Margins, TextFigures, Texts, Thresholds,
};

use super::CLIP;

/// How much further than the worst of all that were measured an honest text may be.
const ROOM: f64 = 2.0;
/// The same where a text's chunks bring the noise of many tokens together.
const ROOM_OF_CHUNKS: f64 = 1.5;
/// How many standard deviations (of logarithms) above its mean a bound is that few
/// honest texts must reach: with a normal distribution 3 in 100,000.
const DEVIATIONS: f64 = 4.0;
/// A margin that no rounding makes is so many times the greatest one measured.
const CLIP_ROOM: f64 = 3.0;
/// The least clip, in logits: a model that was measured on few answers is not to be
/// judged by less.
const LEAST_CLIP: f64 = 1.0;
/// The least mean margin that providers are held to, in logits.
const LEAST_POOLED: f64 = 1e-4;
/// How much above the greatest mean of a pair of machines the pooled bound is.
const POOLED_ROOM: f64 = 1.5;

/// Chooses what texts are judged by from the figures of honest ones, those of each pair
/// of machines apart; they were measured with [`CLIP`].
pub fn thresholds_of_texts(pairs: &[Vec<TextFigures>]) -> Thresholds {
    let mut thresholds = Thresholds {
        sampled: clipped(pairs, false),
        greedy: clipped(pairs, true),
        activations: Activations {
            exponents: 128.0,
            worst_exponents: 128.0,
            mantissa_mean: 128.0,
            mantissa_median: 128.0,
        },
        least_cosine: 0.0,
    };
    let texts: Vec<Vec<Texts>> = pairs
        .iter()
        .map(|pair| {
            let one = |text: &TextFigures| Texts::of(std::slice::from_ref(text), &thresholds);
            pair.iter().map(one).collect()
        })
        .collect();
    bound(&mut thresholds.sampled, &texts, |texts| &texts.sampled);
    bound(&mut thresholds.greedy, &texts, |texts| &texts.greedy);
    let all = || texts.iter().flatten().map(|text| &text.activations);
    let greatest = |of: Vec<f64>| of.into_iter().fold(0.0, f64::max);
    let exponents = greatest(all().map(|a| a.exponents).collect());
    let worst = greatest(all().map(|a| a.worst_exponents).collect());
    let median = greatest(all().map(|a| a.mantissa_median).collect());
    thresholds.activations = Activations {
        exponents: (exponents * ROOM_OF_CHUNKS).max(1.0),
        worst_exponents: (worst * ROOM_OF_CHUNKS).max(1.0),
        mantissa_mean: far_above(&all().map(|a| a.mantissa_mean).collect::<Vec<_>>()),
        mantissa_median: (median * ROOM_OF_CHUNKS).max(1.0),
    };
    thresholds
}

/// What vectors are judged by: the least cosine of all that were measured.
pub fn thresholds_of_vectors(least_cosine: f64) -> Thresholds {
    // It writes no text.
    let none = Margins {
        clip: LEAST_CLIP,
        accept: 0.0,
        reject: 0.0,
        window: 0.0,
        pooled: LEAST_POOLED,
    };
    Thresholds {
        sampled: none,
        greedy: none,
        activations: Activations {
            exponents: 0.0,
            worst_exponents: 0.0,
            mantissa_mean: 0.0,
            mantissa_median: 0.0,
        },
        least_cosine: (1.0 - 4.0 * (1.0 - least_cosine)).clamp(0.0, 1.0),
    }
}

/// Margins with a clip, and no bounds yet.
fn clipped(pairs: &[Vec<TextFigures>], greedy: bool) -> Margins {
    let texts = pairs.iter().flatten().filter(|text| text.greedy == greedy);
    let margins = texts.flat_map(|text| &text.margins).map(|&m| f64::from(m));
    let greatest = margins.filter(|margin| *margin < CLIP).fold(0.0, f64::max);
    Margins {
        // To halves, so that nobody takes it for exact.
        clip: ((greatest * CLIP_ROOM * 2.0).ceil() / 2.0).clamp(LEAST_CLIP, CLIP),
        accept: 0.0,
        reject: 0.0,
        window: 0.0,
        pooled: LEAST_POOLED,
    }
}

fn bound(margins: &mut Margins, pairs: &[Vec<Texts>], of: fn(&Texts) -> &Drawn) {
    let all = || pairs.iter().flatten().map(of);
    let worst_mean = all().map(|drawn| drawn.worst_mean).fold(0.0, f64::max);
    let worst_window = all().map(|drawn| drawn.worst_window).fold(0.0, f64::max);
    let means = pairs.iter().map(|pair| {
        let sum: f64 = pair.iter().map(|texts| of(texts).margin_sum).sum();
        let tokens: u64 = pair.iter().map(|texts| of(texts).tokens).sum();
        sum / (tokens as f64).max(1.0)
    });
    let mean = means.fold(0.0, f64::max);
    margins.accept = worst_mean;
    margins.reject = worst_mean * ROOM;
    margins.window = worst_window * ROOM;
    margins.pooled = (mean * POOLED_ROOM).max(LEAST_POOLED);
}

/// What few of those exceed of whom these are some.
fn far_above(numbers: &[f64]) -> f64 {
    let logs: Vec<f64> = numbers
        .iter()
        .filter(|n| **n > 0.0)
        .map(|n| n.ln())
        .collect();
    let count = (logs.len() as f64).max(1.0);
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / count;
    let greatest = numbers.iter().copied().fold(0.0, f64::max);
    (mean + DEVIATIONS * variance.sqrt()).exp().max(greatest)
}
