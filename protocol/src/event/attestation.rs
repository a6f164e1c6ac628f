//! Kind 8606: how one job went with one provider, as its buyer saw it.

use nostr::{EventId, PublicKey, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Body, Promise, Refusal, V1, tag};
use crate::bounds::{MAX_DURATION_MS, MAX_RECORD_BYTES, MAX_SAFE_INTEGER, at_most};
use crate::inference::ModelId;
use crate::kinds;
use crate::money::Msat;

/// How one attempt went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attestation {
    /// The protocol's version.
    pub v: V1,
    /// The job.
    pub job: EventId,
    /// The award.
    pub award: EventId,
    /// The result, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<EventId>,
    /// The author's receipt, if money moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<EventId>,
    /// Who is rated.
    pub provider: PublicKey,
    /// The model it was to run.
    pub model: ModelId,
    /// What happened.
    pub experience: Experience,
    /// What was promised.
    pub promised: Promise,
    /// What was measured, if anything came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// What was paid.
    pub paid_msat: Msat,
}

/// What happened in an attempt, as its buyer saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Experience {
    /// A valid result came.
    Completed,
    /// The provider said that it failed.
    Failed,
    /// The provider was given the award and fell silent, or never answered.
    Silent,
    /// What came contradicts itself or its hash.
    Invalid,
}

/// What a buyer measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Milliseconds from the award to the first token.
    pub first_token_ms: u64,
    /// Tokens a second after that; 0 if there were fewer than two.
    pub tokens_per_s: f32,
    /// Tokens that came.
    pub output_tokens: u64,
}

impl Body for Attestation {
    const KIND: u16 = kinds::ATTESTATION;
    const MAX_CONTENT_BYTES: usize = MAX_RECORD_BYTES;

    fn tags(&self) -> Vec<Tag> {
        let mut tags = vec![
            tag(["e", &self.job.to_hex()]),
            tag(["e", &self.award.to_hex()]),
            tag(["p", &self.provider.to_hex()]),
            tag(["m", &self.model.to_string()]),
        ];
        let more = self.result.into_iter().chain(self.receipt);
        tags.extend(more.map(|id| tag(["e", &id.to_hex()])));
        tags
    }

    fn alt(&self) -> String {
        let how = match self.experience {
            Experience::Completed => "it was done",
            Experience::Failed => "the provider failed",
            Experience::Silent => "the provider fell silent",
            Experience::Invalid => "what came was not valid",
        };
        format!("A buyer tells how a job went: {how}")
    }

    fn validate(&self, author: &PublicKey, _created_at: Timestamp) -> Result<(), Refusal> {
        self.promised.validate()?;
        if let Some(measured) = &self.measured {
            at_most("first_token_ms", measured.first_token_ms, MAX_DURATION_MS)?;
            at_most("output_tokens", measured.output_tokens, MAX_SAFE_INTEGER)?;
            if !measured.tokens_per_s.is_finite() || measured.tokens_per_s < 0.0 {
                return Err(Refusal::Invalid("tokens_per_s is not a speed"));
            }
        }
        at_most("paid_msat", self.paid_msat.0, Msat::MAX.0)?;
        if self.experience == Experience::Completed && self.result.is_none() {
            return Err(Refusal::Invalid("a completed job has a result"));
        }
        match self.provider == *author {
            true => Err(Refusal::Invalid("nobody rates itself")),
            false => Ok(()),
        }
    }
}
