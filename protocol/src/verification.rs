//! How a result is checked, and what is made of it (`nips/verification.md`).
//!
//! A checker computes an answer again and measures how far it is from what the
//! provider says: [`TextFigures`] of each text, [`VectorFigures`] of vectors. The
//! figures of one result become [`Figures`], which go into its verdict, and from which
//! alone its judgement follows: anybody can judge again. [`Pool`] gathers what the
//! verdicts on one provider say together, [`Trust`] how much of its work is checked,
//! and [`Secret`] chooses which.

mod figures;
mod map;
mod pool;
mod secret;
mod texts;
mod thresholds;
mod trust;

pub use figures::{ChunkDistance, Fault, TextFigures, VectorFigures};
pub use pool::{POOL_LIMIT, Pool};
pub use secret::Secret;
pub use texts::{ActivationTotals, Drawn, Texts};
pub use thresholds::{Activations, Margins, Thresholds};
pub use trust::{PROBATION, Trust};

use crate::event::Judgement;

/// Tokens that a mean over an answer is taken over at least: of a shorter answer, the
/// tokens that are missing count as matches, so that few tokens never condemn.
pub const JUDGED_TOKENS: usize = 64;

/// Tokens of a window: a part of an answer that is judged for itself.
pub const WINDOW: usize = 32;

/// The method of verdicts on texts.
pub const METHOD_TEXTS: &str = "token-difr+toploc/1";

/// The method of verdicts on vectors.
pub const METHOD_VECTORS: &str = "cosine/1";

/// The method of verdicts on a provider's answers together ([`Pool`]).
pub const METHOD_POOLED: &str = "pooled-margins/1";

/// The figures of one result: what its verdict holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Figures {
    /// Of texts.
    Texts(Texts),
    /// Of vectors.
    Vectors(VectorFigures),
}

impl Figures {
    /// The judgement that follows from them.
    pub fn judge(&self, thresholds: &Thresholds) -> Judgement {
        match self {
            Self::Texts(texts) => texts.judge(thresholds),
            Self::Vectors(vectors) => judge_vectors(vectors, thresholds),
        }
    }

    /// Whether they can all belong to the same answers. Those of a checker that makes
    /// them up may not.
    pub fn hold_together(&self, thresholds: &Thresholds) -> bool {
        match self {
            Self::Texts(texts) => texts.hold_together(thresholds),
            Self::Vectors(_) => true,
        }
    }

    /// The method that measured them.
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Texts(_) => METHOD_TEXTS,
            Self::Vectors(_) => METHOD_VECTORS,
        }
    }
}

/// Judges the texts of one result together.
pub fn judge_text(texts: &[TextFigures], thresholds: &Thresholds) -> Judgement {
    Texts::of(texts, thresholds).judge(thresholds)
}

/// Judges the vectors of one result.
pub fn judge_vectors(vectors: &VectorFigures, thresholds: &Thresholds) -> Judgement {
    // So that what is no number is rejected.
    let is_close = vectors.least_cosine >= thresholds.least_cosine;
    match vectors.fault.is_none() && is_close {
        true => Judgement::Accepted,
        false => Judgement::Rejected,
    }
}
