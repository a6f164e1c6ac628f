//! Thresholds from honest answers.

use infernet_protocol::verification::{
    Activations, Drawn, JUDGED_TOKENS, Margins, TextFigures, Texts, Thresholds,
};

use super::CLIP;

/// How much further than the worst of all that were measured an honest text may be.
const ROOM: f64 = 2.0;
/// The same where a text's chunks bring the noise of many tokens together.
const ROOM_OF_CHUNKS: f64 = 1.5;
/// How many standard deviations (of logarithms) above its mean a bound is that few
/// honest texts must reach: with a normal distribution 2 in 10,000.
const DEVIATIONS: f64 = 3.5;
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
    // Of shorter ones what is missing counts as matches, which would spread them out.
    let long = || {
        let texts = texts.iter().flatten();
        texts.filter(|text| text.tokens() >= JUDGED_TOKENS as u64)
    };
    let mantissas: Vec<_> = long().map(|text| text.activations.mantissa_mean).collect();
    let exponents = greatest(all().map(|a| a.exponents).collect());
    let worst = greatest(all().map(|a| a.worst_exponents).collect());
    let mantissa = greatest(all().map(|a| a.mantissa_mean).collect());
    let median = greatest(all().map(|a| a.mantissa_median).collect());
    thresholds.activations = Activations {
        exponents: (exponents * ROOM_OF_CHUNKS).max(1.0),
        worst_exponents: (worst * ROOM_OF_CHUNKS).max(1.0),
        mantissa_mean: far_above(&mantissas).max(mantissa),
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

/// What few of those exceed of whom these are some: numbers above 0, whose logarithms are
/// taken to be spread normally.
fn far_above(numbers: &[f64]) -> f64 {
    let logs: Vec<f64> = numbers
        .iter()
        .filter(|number| **number > 0.0)
        .map(|number| number.ln())
        .collect();
    if logs.is_empty() {
        return 0.0;
    }
    let count = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / count;
    (mean + DEVIATIONS * variance.sqrt()).exp()
}

#[cfg(test)]
mod tests {
    use infernet_protocol::event::Judgement;
    use infernet_protocol::verification::{ChunkDistance, judge_text};

    use super::*;

    /// A text of so many tokens, every tenth a little off, with chunks this far.
    fn text(tokens: usize, margin: f32, mantissa: f64) -> TextFigures {
        let chunk = ChunkDistance {
            exponents: 2,
            mantissa_mean: mantissa,
            mantissa_median: 1.0,
        };
        let off = |at: usize| if at % 10 == 9 { margin } else { 0.0 };
        TextFigures {
            margins: (0..tokens).map(off).collect(),
            greedy: false,
            chunks: vec![chunk; tokens.div_ceil(32)],
            fault: None,
        }
    }

    #[test]
    fn honest_texts_are_accepted_and_farther_ones_are_not() {
        let spread = |number: usize| 1.2 + 0.02 * (number % 10) as f64;
        let honest = |tokens| (0..40).map(move |n| text(tokens, 0.05, spread(n)));
        let pairs: Vec<Vec<TextFigures>> = vec![honest(64).chain(honest(9)).collect()];
        let thresholds = thresholds_of_texts(&pairs);
        for honest in pairs.iter().flatten() {
            let judged = judge_text(std::slice::from_ref(honest), &thresholds);
            assert_eq!(judged, Judgement::Accepted);
        }
        assert_eq!(judge_text(&pairs[0], &thresholds), Judgement::Accepted);
        // Short ones, in which little counts, make nobody more lenient.
        assert!((1.38..1.7).contains(&thresholds.activations.mantissa_mean));
        for far in [text(64, 0.05, 1.8), text(64, 0.5, 1.2)] {
            assert_eq!(judge_text(&[far], &thresholds), Judgement::Rejected);
        }
    }

    #[test]
    fn what_the_filters_do_not_leave_makes_no_clip() {
        let mut outside = text(64, 0.25, 1.2);
        outside.margins[3] = CLIP as f32;
        let thresholds = thresholds_of_texts(&[vec![outside, text(64, 0.5, 1.2)]]);
        assert!((thresholds.sampled.clip - 1.5).abs() < 1e-9);
    }

    #[test]
    fn vectors_may_be_a_little_further_than_was_measured() {
        let thresholds = thresholds_of_vectors(0.999);
        assert!((thresholds.least_cosine - 0.996).abs() < 1e-9);
    }
}
