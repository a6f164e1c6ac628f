//! How figures are judged, pooled and written down, and how much is checked.

mod choosing;
mod judging;
mod pooling;
mod worked;

use infernet_protocol::verification::{
    Activations, ChunkDistance, Margins, TextFigures, Thresholds,
};

/// Round numbers, near those of a small model.
pub(crate) const THRESHOLDS: Thresholds = Thresholds {
    sampled: MARGINS,
    greedy: Margins {
        reject: 0.5,
        ..MARGINS
    },
    activations: Activations {
        exponents: 32.0,
        worst_exponents: 48.0,
        mantissa_mean: 10.0,
        mantissa_median: 8.0,
    },
    least_cosine: 0.99,
};

const MARGINS: Margins = Margins {
    clip: 8.0,
    accept: 0.0625,
    reject: 0.25,
    window: 0.75,
    pooled: 0.015_625,
};

/// A text with these margins, drawn by noise.
pub(crate) fn drawn(margins: Vec<f32>) -> TextFigures {
    TextFigures {
        margins,
        ..TextFigures::default()
    }
}

/// So many tokens, each with this margin.
pub(crate) fn even(tokens: usize, margin: f32) -> TextFigures {
    drawn(vec![margin; tokens])
}

pub(crate) const fn chunk(exponents: u32) -> ChunkDistance {
    ChunkDistance {
        exponents,
        mantissa_mean: 4.0,
        mantissa_median: 3.0,
    }
}
