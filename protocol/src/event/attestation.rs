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
    /// The verdict on the result that the author goes by; must be there if the work was
    /// rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<EventId>,
    /// What the work was part of, if an aggregator bought it for a batch. Without it,
    /// the author bought it for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchShare>,
}

/// A job's share in a batch: for whom an aggregator bought it, and what it earned by
/// that. To deceive those who count its word, somebody has to pay this fee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchShare {
    /// The order.
    pub order: EventId,
    /// Who ordered it.
    pub buyer: PublicKey,
    /// The part of the aggregator's fee that this work has brought it.
    pub fee_msat: Msat,
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
    /// A valid result came, and a check found that it is not what the model says.
    Rejected,
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
        let more = more.chain(self.verdict);
        tags.extend(more.map(|id| tag(["e", &id.to_hex()])));
        tags
    }

    fn alt(&self) -> String {
        let how = match self.experience {
            Experience::Completed => "it was done",
            Experience::Failed => "the provider failed",
            Experience::Silent => "the provider fell silent",
            Experience::Invalid => "what came was not valid",
            Experience::Rejected => "a check rejected what came",
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
        let share = self.batch.map_or(Msat::ZERO, |batch| batch.fee_msat);
        at_most("fee_msat", share.0, Msat::MAX.0)?;
        self.validate_links()?;
        let buyer = self.batch.map(|batch| batch.buyer);
        match self.provider == *author || buyer == Some(*author) {
            true => Err(Refusal::Invalid("nobody rates itself or orders of itself")),
            false => Ok(()),
        }
    }
}

impl Attestation {
    /// What is said to have happened rests on what has to be there for it.
    fn validate_links(&self) -> Result<(), Refusal> {
        let came = matches!(
            self.experience,
            Experience::Completed | Experience::Rejected
        );
        if came && self.result.is_none() {
            return Err(Refusal::Invalid("a completed job has a result"));
        }
        if self.verdict.is_some() && !came {
            return Err(Refusal::Invalid("a verdict is on work that came"));
        }
        match self.experience == Experience::Rejected && self.verdict.is_none() {
            true => Err(Refusal::Invalid("who rejects work names the verdict")),
            false => Ok(()),
        }
    }
}
