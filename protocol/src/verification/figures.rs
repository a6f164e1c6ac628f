//! What a checker measures.

use serde::{Deserialize, Serialize};

/// How far one text is from what the checker's model would have said, its prompt and
/// the seed of its noise being given.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextFigures {
    /// One for each token of the answer, an end token included, in units of logits: by
    /// how much the checker's own draw is above it, noise counted in; 0 if it is the
    /// checker's draw; the clip if it is outside the checker's filters
    /// (Token-DiFR, arXiv 2511.20621). Clipped.
    pub margins: Vec<f32>,
    /// Whether it was drawn at temperature 0.
    pub greedy: bool,
    /// How far its proof is from the checker's activations, for each chunk; empty if
    /// no proof was asked for.
    pub chunks: Vec<ChunkDistance>,
    /// What is certainly wrong with it, if anything is.
    pub fault: Option<Fault>,
}

/// How far the activations of 32 tokens are from what their proof says (TOPLOC,
/// arXiv 2501.16007).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ChunkDistance {
    /// How many of the 128 values have another exponent.
    pub exponents: u32,
    /// Of the others: the mean difference of mantissas; 0 if there are no others.
    pub mantissa_mean: f64,
    /// Of the others: the median difference of mantissas; 0 if there are no others.
    pub mantissa_median: f64,
}

/// How far vectors are from the checker's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VectorFigures {
    /// How many there are.
    pub vectors: u32,
    /// The least cosine between one and the checker's.
    pub least_cosine: f64,
    /// What is certainly wrong with them, if anything is.
    pub fault: Option<Fault>,
}

/// What no honest provider sends, whatever its numbers round to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A token that the model does not have.
    UnknownToken,
    /// More tokens than were asked for.
    TooLong,
    /// `stop` without an end token or a stop string, or `length` before `max_tokens`.
    EndsFalsely,
    /// Tokens behind an end token or a stop string.
    GoesOnAfterEnd,
    /// The text is not that of the tokens.
    TextDiffers,
    /// The number of the prompt's tokens is wrong.
    InputMiscounted,
    /// A proof was asked for, and there is none, or none of the right size.
    NoProof,
    /// There is not one answer for each question.
    Missing,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::UnknownToken,
        Self::TooLong,
        Self::EndsFalsely,
        Self::GoesOnAfterEnd,
        Self::TextDiffers,
        Self::InputMiscounted,
        Self::NoProof,
        Self::Missing,
    ];

    /// Its name among a verdict's figures.
    pub const fn figure(self) -> &'static str {
        match self {
            Self::UnknownToken => "fault.unknown-token",
            Self::TooLong => "fault.too-long",
            Self::EndsFalsely => "fault.ends-falsely",
            Self::GoesOnAfterEnd => "fault.goes-on-after-end",
            Self::TextDiffers => "fault.text-differs",
            Self::InputMiscounted => "fault.input-miscounted",
            Self::NoProof => "fault.no-proof",
            Self::Missing => "fault.missing",
        }
    }
}
