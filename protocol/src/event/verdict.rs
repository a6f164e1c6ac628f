//! Kind 8605: a checker's judgement of a result.

use std::collections::BTreeMap;

use nostr::{EventId, PublicKey, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::announcement::validate_name;
use super::{Body, Refusal, V1, tag};
use crate::bounds::{MAX_FIGURES, MAX_RECORD_BYTES, count};
use crate::inference::{Dtype, ModelId};
use crate::kinds;

/// What a check of a result found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The protocol's version.
    pub v: V1,
    /// The job.
    pub job: EventId,
    /// The award.
    pub award: EventId,
    /// The result that was checked.
    pub result: EventId,
    /// Whose result it is.
    pub provider: PublicKey,
    /// The model it claims.
    pub model: ModelId,
    /// The judgement.
    pub judgement: Judgement,
    /// How it was checked.
    pub method: String,
    /// The figures that the method judged by.
    pub figures: BTreeMap<String, f64>,
    /// The number format of the checker's model.
    pub dtype: Dtype,
    /// The checker's engine and version.
    pub engine: String,
}

/// A judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    /// Honest work.
    Accepted,
    /// The figures do not tell.
    Inconclusive,
    /// Not what the model would have said.
    Rejected,
}

impl Body for Verdict {
    const KIND: u16 = kinds::VERDICT;
    const MAX_CONTENT_BYTES: usize = MAX_RECORD_BYTES;

    fn tags(&self) -> Vec<Tag> {
        vec![
            tag(["e", &self.job.to_hex()]),
            tag(["e", &self.award.to_hex()]),
            tag(["e", &self.result.to_hex()]),
            tag(["p", &self.provider.to_hex()]),
            tag(["m", &self.model.to_string()]),
        ]
    }

    fn alt(&self) -> String {
        let judgement = match self.judgement {
            Judgement::Accepted => "accepted",
            Judgement::Inconclusive => "inconclusive",
            Judgement::Rejected => "rejected",
        };
        format!("A checker's verdict on a result: {judgement}")
    }

    fn validate(&self, author: &PublicKey, _created_at: Timestamp) -> Result<(), Refusal> {
        validate_name("method", &self.method)?;
        validate_name("engine", &self.engine)?;
        validate_figures(&self.figures)?;
        match self.provider == *author {
            true => Err(Refusal::Invalid("nobody judges its own work")),
            false => Ok(()),
        }
    }
}

/// Refuses too many numbers, or what is none.
pub(super) fn validate_figures(figures: &BTreeMap<String, f64>) -> Result<(), Refusal> {
    count("figures", figures.len(), MAX_FIGURES)?;
    for (name, figure) in figures {
        validate_name("figure", name)?;
        if !figure.is_finite() {
            return Err(Refusal::Invalid("a figure is not a number"));
        }
    }
    Ok(())
}
