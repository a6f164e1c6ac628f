//! Kind 8603: a provider's signed commitment to an output.

use nostr::{EventId, PublicKey, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::announcement::validate_name;
use super::{Body, Refusal, V1, tag};
use crate::bounds::{
    MAX_DURATION_MS, MAX_EVENT_BYTES, MAX_REASON_BYTES, MAX_SAFE_INTEGER, at_most, attempt, text,
};
use crate::inference::{Dtype, EndReason, ModelId};
use crate::kinds;
use crate::money::Msat;
use crate::seal::{Digest, Sealed};

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// The protocol's version.
    pub v: V1,
    /// The job.
    pub job: EventId,
    /// The award it fulfils.
    pub award: EventId,
    /// The attempt's number.
    pub attempt: u32,
    /// The award's author.
    pub buyer: PublicKey,
    /// Why the work ended.
    pub ended: EndReason,
    /// What went wrong, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The model that ran.
    pub model: ModelId,
    /// The number format it was computed in.
    pub dtype: Dtype,
    /// Engine and version.
    pub engine: String,
    /// How much was done.
    pub usage: Usage,
    /// How long it took.
    pub timing: Timing,
    /// What the provider asks for this attempt.
    pub due_msat: Msat,
    /// Salted hash of the output ([`crate::seal::Domain::Output`], about the award).
    pub output_hash: Digest,
    /// The output, for the buyer alone.
    pub output: Sealed,
}

/// How much an attempt did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of an earlier attempt's answer that it went on behind; billed as
    /// input.
    pub prefix_tokens: u64,
    /// Tokens it drew itself.
    pub output_tokens: u64,
}

/// How long an attempt took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timing {
    /// Milliseconds it waited.
    pub queued_ms: u64,
    /// Milliseconds from the award's arrival to the first token, or to the end
    /// if there was none.
    pub first_token_ms: u64,
    /// Milliseconds from the award's arrival to the end.
    pub total_ms: u64,
}

impl Body for JobResult {
    const KIND: u16 = kinds::RESULT;
    const MAX_CONTENT_BYTES: usize = MAX_EVENT_BYTES;

    fn tags(&self) -> Vec<Tag> {
        vec![
            tag(["e", &self.job.to_hex()]),
            tag(["e", &self.award.to_hex()]),
            tag(["p", &self.buyer.to_hex()]),
            tag(["m", &self.model.to_string()]),
        ]
    }

    fn alt(&self) -> String {
        format!(
            "The result of attempt {} of a job: {} tokens",
            self.attempt, self.usage.output_tokens
        )
    }

    fn validate(&self, _author: &PublicKey, _created_at: Timestamp) -> Result<(), Refusal> {
        attempt(self.attempt)?;
        if let Some(error) = &self.error {
            text("error", error, MAX_REASON_BYTES)?;
        }
        if self.error.is_some() != (self.ended == EndReason::Failed) {
            return Err(Refusal::Invalid(
                "an error goes with a failure, and only with one",
            ));
        }
        validate_name("engine", &self.engine)?;
        self.usage.validate()?;
        at_most("queued_ms", self.timing.queued_ms, MAX_DURATION_MS)?;
        at_most(
            "first_token_ms",
            self.timing.first_token_ms,
            MAX_DURATION_MS,
        )?;
        at_most("total_ms", self.timing.total_ms, MAX_DURATION_MS)?;
        at_most("due_msat", self.due_msat.0, Msat::MAX.0)?;
        match self.output.is_bounded() {
            true => Ok(()),
            false => Err(Refusal::Invalid("the sealed output is too large")),
        }
    }
}

impl Usage {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        at_most("input_tokens", self.input_tokens, MAX_SAFE_INTEGER)?;
        at_most("prefix_tokens", self.prefix_tokens, MAX_SAFE_INTEGER)?;
        at_most("output_tokens", self.output_tokens, MAX_SAFE_INTEGER)
    }
}
