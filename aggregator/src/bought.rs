//! What was bought from one provider, with what it takes to check it.

use std::fmt;

use infernet_protocol::event::{Award, JobResult, Signed};
use infernet_protocol::inference::{Dtype, ModelId};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Check, PayloadKey, Product, Work};
use nostr::{EventId, PublicKey};

/// One shard that a provider has done: the signed evidence and what is in it.
#[derive(Clone)]
pub struct Bought {
    /// The order that it was bought for.
    pub order: EventId,
    /// The order's buyer.
    pub buyer: PublicKey,
    /// The group of that order.
    pub group: u32,
    /// Who did it.
    pub provider: PublicKey,
    /// The model that ran.
    pub model: ModelId,
    /// What it is called.
    pub model_name: String,
    /// The award, signed by us.
    pub award: Signed<Award>,
    /// The result, signed by the provider, checked against the award.
    pub result: Signed<JobResult>,
    /// Key of the award's input.
    pub input_key: PayloadKey,
    /// Key of the result's output.
    pub output_key: PayloadKey,
    /// What was asked.
    pub work: Work,
    /// What came.
    pub product: Product,
    /// What the provider asks for it.
    pub cost: Msat,
}

impl Bought {
    /// The number format it was computed in.
    pub fn dtype(&self) -> Dtype {
        self.result.dtype
    }

    /// The provider's engine and its version.
    pub fn engine(&self) -> &str {
        &self.result.engine
    }

    /// What a checker is handed.
    pub fn check(&self) -> Check {
        Check {
            award: Box::new(self.award.event().clone()),
            result: Box::new(self.result.event().clone()),
            input_key: self.input_key,
            output_key: self.output_key,
        }
    }
}

impl fmt::Debug for Bought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bought({} by {})", self.result.id(), self.provider)
    }
}
