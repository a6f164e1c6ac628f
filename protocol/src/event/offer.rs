//! Kind 8600: a buyer asks for bids. Says everything but the prompt.

use nostr::{PublicKey, RelayUrl, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::announcement::{AnnouncedModel, validate_name, validate_price, validate_relays};
use super::{Body, Refusal, V1, expiration, tag};
use crate::bounds::{
    MAX_ACCEPTED_MODELS, MAX_CONTEXT_TOKENS, MAX_OUTPUT_TOKENS, MAX_SAFE_INTEGER, MAX_TERMS_BYTES,
    at_most, count, instant,
};
use crate::inference::{ModelId, Task};
use crate::kinds;
use crate::money::{Msat, PaymentKind, Price};

/// What a buyer wants done, without the prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The protocol's version.
    pub v: V1,
    /// A random number: without it, a buyer's two equal offers of the same
    /// second would be one event, and so one job.
    pub nonce: u64,
    /// The kind of work.
    pub task: Task,
    /// The models that will do.
    pub accepts: Vec<Accepts>,
    /// The size of the work.
    pub limits: Limits,
    /// The highest price.
    pub max_price: Price,
    /// The most the whole job may cost.
    pub budget_msat: Msat,
    /// The ways of paying the buyer accepts.
    pub terms: Vec<PaymentKind>,
    /// Who may see the work to check it.
    pub checkers: Checkers,
    /// When the bidding ends, in Unix seconds; an award may come before.
    pub bids_until: Timestamp,
    /// When the job must be done, in Unix seconds.
    pub deadline: Timestamp,
    /// Where the buyer listens; at least two where it has them.
    pub relays: Vec<RelayUrl>,
}

/// A model that will do: exactly one manifest, or anything of a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accepts {
    /// The model with this manifest.
    Model(ModelId),
    /// Any model that goes by this name.
    Name(String),
}

impl Accepts {
    /// Whether this model will do.
    pub fn includes(&self, model: &AnnouncedModel) -> bool {
        match self {
            Self::Model(id) => *id == model.model,
            Self::Name(name) => model.answers_to(name),
        }
    }
}

/// The size of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// About how many tokens the input has, as the buyer guesses.
    pub input_tokens: u32,
    /// How many tokens the output may have.
    pub output_tokens: u32,
}

/// Who may see a job's work to check it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checkers {
    /// Nobody.
    Nobody,
    /// The aggregator that placed it.
    Aggregator,
    /// Any provider of the task `verify`.
    Market,
}

impl Limits {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        at_most(
            "input_tokens",
            self.input_tokens.into(),
            MAX_CONTEXT_TOKENS.into(),
        )?;
        at_most(
            "output_tokens",
            self.output_tokens.into(),
            MAX_OUTPUT_TOKENS.into(),
        )
    }
}

impl Body for Offer {
    const KIND: u16 = kinds::OFFER;
    const MAX_CONTENT_BYTES: usize = MAX_TERMS_BYTES;

    fn tags(&self) -> Vec<Tag> {
        let mut tags = vec![tag(["t", self.task.as_str()])];
        tags.extend(self.accepts.iter().filter_map(|accepted| match accepted {
            Accepts::Model(id) => Some(tag(["m", &id.to_string()])),
            Accepts::Name(_) => None,
        }));
        tags.push(expiration(self.deadline));
        tags
    }

    fn alt(&self) -> String {
        format!(
            "Asks for bids: {}, up to {} tokens",
            self.task, self.limits.output_tokens
        )
    }

    fn validate(&self, _author: &PublicKey, created_at: Timestamp) -> Result<(), Refusal> {
        count("accepted models", self.accepts.len(), MAX_ACCEPTED_MODELS)?;
        for accepted in &self.accepts {
            if let Accepts::Name(name) = accepted {
                validate_name("model name", name)?;
            }
        }
        at_most("nonce", self.nonce, MAX_SAFE_INTEGER)?;
        self.limits.validate()?;
        validate_price(&self.max_price)?;
        at_most("budget_msat", self.budget_msat.0, Msat::MAX.0)?;
        count("terms", self.terms.len(), MAX_ACCEPTED_MODELS)?;
        validate_relays(&self.relays)?;
        if self.accepts.is_empty() || self.terms.is_empty() {
            return Err(Refusal::Invalid("it accepts no model or no terms"));
        }
        instant("deadline", self.deadline)?;
        if self.deadline <= created_at || self.bids_until > self.deadline {
            return Err(Refusal::Invalid("its times are not in order"));
        }
        Ok(())
    }
}
