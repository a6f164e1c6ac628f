//! Kind 8601: a provider's answer to an offer.

use nostr::{EventId, PublicKey, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::announcement::{validate_name, validate_price, validate_terms};
use super::{Body, Promise, Refusal, V1, expiration, tag};
use crate::bounds::{MAX_CONTEXT_TOKENS, MAX_TERMS_BYTES, at_most, instant};
use crate::inference::{Dtype, ModelId};
use crate::kinds;
use crate::money::{PaymentTerms, Price};

/// What a provider would do an offered job for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bid {
    /// The protocol's version.
    pub v: V1,
    /// The offer it answers.
    pub offer: EventId,
    /// The offer's author.
    pub buyer: PublicKey,
    /// The model it would run.
    pub model: ModelId,
    /// What people call that model.
    pub name: String,
    /// The number format it is computed in.
    pub dtype: Dtype,
    /// Tokens of its context, input and output together.
    pub context: u32,
    /// What it asks.
    pub price: Price,
    /// How fast it promises to be.
    pub promise: Promise,
    /// How it wants to be paid.
    pub terms: PaymentTerms,
    /// Whether it can go on behind another provider's tokens.
    pub continues: bool,
    /// Until when it stands, in Unix seconds.
    pub expires_at: Timestamp,
}

impl Body for Bid {
    const KIND: u16 = kinds::BID;
    const MAX_CONTENT_BYTES: usize = MAX_TERMS_BYTES;

    fn tags(&self) -> Vec<Tag> {
        vec![
            tag(["e", &self.offer.to_hex()]),
            tag(["p", &self.buyer.to_hex()]),
            tag(["m", &self.model.to_string()]),
            expiration(self.expires_at),
        ]
    }

    fn alt(&self) -> String {
        format!(
            "Bids on a job with {}: {} + {} msat per million tokens",
            self.name, self.price.input_msat, self.price.output_msat
        )
    }

    fn validate(&self, _author: &PublicKey, created_at: Timestamp) -> Result<(), Refusal> {
        validate_name("model name", &self.name)?;
        at_most("context", self.context.into(), MAX_CONTEXT_TOKENS.into())?;
        validate_price(&self.price)?;
        self.promise.validate()?;
        validate_terms(&self.terms)?;
        instant("expires_at", self.expires_at)?;
        if self.expires_at <= created_at {
            return Err(Refusal::Invalid("it expires before it is made"));
        }
        Ok(())
    }
}
