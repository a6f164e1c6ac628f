//! Kind 8602: a buyer gives an attempt of a job to one provider.

use nostr::{Event, EventId, PublicKey, RelayUrl, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::announcement::validate_relays;
use super::{
    AnnouncedModel, Announcement, Bid, Body, Checkers, Limits, Offer, Refusal, Signed, V1, tag,
};
use crate::bounds::{MAX_EVENT_BYTES, at_most, attempt, instant};
use crate::inference::{Dtype, ModelId, Task};
use crate::kinds;
use crate::money::{Msat, PaymentKind, Price};
use crate::seal::{Digest, Sealed};
use crate::tensor::Interface;

/// One attempt of a job, given to one provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Award {
    /// The protocol's version.
    pub v: V1,
    /// The job: its offer's id, or its first award's where there is no offer.
    /// Absent only in such a first award.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<EventId>,
    /// The attempt's number, from 1. A higher one supersedes all lower ones.
    pub attempt: u32,
    /// Who is to do it.
    pub provider: PublicKey,
    /// What was agreed, whole, so that anybody can check it later.
    pub basis: Basis,
    /// The kind of work.
    pub task: Task,
    /// The model to run.
    pub model: ModelId,
    /// The agreed price.
    pub price: Price,
    /// The most this attempt may cost.
    pub budget_msat: Msat,
    /// The agreed way of paying.
    pub terms: PaymentKind,
    /// The size of the work.
    pub limits: Limits,
    /// Who may see the work to check it.
    pub checkers: Checkers,
    /// When the job must be done, in Unix seconds.
    pub deadline: Timestamp,
    /// Where the buyer listens.
    pub relays: Vec<RelayUrl>,
    /// Salted hash of the input ([`crate::seal::Domain::Input`], about the bid or
    /// announcement).
    pub input_hash: Digest,
    /// The input, for the provider alone.
    pub input: Sealed,
}

/// What an award rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// An offer of the buyer's and the provider's bid on it.
    Auction {
        /// The offer.
        offer: Box<Event>,
        /// The bid.
        bid: Box<Event>,
    },
    /// The provider's announcement, as a standing bid.
    Direct {
        /// The announcement.
        announcement: Box<Event>,
    },
}

impl Basis {
    /// The provider's own word in it: the bid, or the announcement. An award's
    /// input hash is about this event.
    pub fn word(&self) -> &Event {
        match self {
            Self::Auction { bid, .. } => bid,
            Self::Direct { announcement } => announcement,
        }
    }
}

impl Signed<Award> {
    /// The job's id.
    pub fn job_id(&self) -> EventId {
        self.job.unwrap_or_else(|| self.id())
    }

    /// What the provider's word says of the model that the award names. `None`
    /// never comes from a valid award, whose word says something of it.
    pub fn agreed(&self) -> Option<Agreed> {
        let word = &self.basis.word().content;
        match &self.basis {
            Basis::Auction { .. } => {
                let bid: Bid = serde_json::from_str(word).ok()?;
                Some(Agreed {
                    dtype: bid.dtype,
                    context: bid.context,
                    interface: None,
                })
            }
            Basis::Direct { .. } => {
                let announcement: Announcement = serde_json::from_str(word).ok()?;
                let model = announcement.models.iter().find(|model| self.names(model))?;
                Some(Agreed {
                    dtype: model.dtype,
                    context: model.context,
                    interface: model.interface.clone(),
                })
            }
        }
    }
}

/// What a provider's word says of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The number format it is computed in.
    pub dtype: Dtype,
    /// Tokens of its context, input and output together.
    pub context: u32,
    /// What a module takes and gives, if its announcement was the word.
    pub interface: Option<Interface>,
}

impl Award {
    /// Bid and offer belong together, to these two parties, and say what the
    /// award says.
    fn validate_auction(
        &self,
        buyer: &PublicKey,
        offer: &Event,
        bid: &Event,
    ) -> Result<(), Refusal> {
        let offer = Signed::<Offer>::verify_embedded(offer.clone())?;
        let bid = Signed::<Bid>::verify_embedded(bid.clone())?;
        if offer.author() != *buyer || self.job != Some(offer.id()) {
            return Err(Refusal::Invalid(
                "the offer is not this buyer's or not this job's",
            ));
        }
        if bid.author() != self.provider || bid.offer != offer.id() {
            return Err(Refusal::Invalid(
                "the bid is not this provider's or not on this offer",
            ));
        }
        if bid.model != self.model || bid.price != self.price || bid.terms.kind() != self.terms {
            return Err(Refusal::Invalid("model, price or terms are not the bid's"));
        }
        if self.task != offer.task || !self.price.is_within(&offer.max_price) {
            return Err(Refusal::Invalid("task or price is not within the offer"));
        }
        Ok(())
    }

    /// Whether the award is on this entry of an announcement. A model that is also
    /// checked with is there twice.
    fn names(&self, announced: &AnnouncedModel) -> bool {
        (announced.model, announced.task, announced.price) == (self.model, self.task, self.price)
    }

    /// The announcement is this provider's and says what the award says.
    fn validate_direct(&self, announcement: &Event) -> Result<(), Refusal> {
        let announcement = Signed::<Announcement>::verify_embedded(announcement.clone())?;
        if announcement.author() != self.provider || !announcement.direct {
            return Err(Refusal::Invalid("the provider announced no direct awards"));
        }
        if !announcement.models.iter().any(|model| self.names(model)) {
            return Err(Refusal::Invalid(
                "model, task or price is not the announcement's",
            ));
        }
        match announcement.terms.iter().any(|t| t.kind() == self.terms) {
            true => Ok(()),
            false => Err(Refusal::Invalid("the terms are not the announcement's")),
        }
    }
}

impl Body for Award {
    const KIND: u16 = kinds::AWARD;
    const MAX_CONTENT_BYTES: usize = MAX_EVENT_BYTES;

    fn tags(&self) -> Vec<Tag> {
        let mut tags = vec![
            tag(["p", &self.provider.to_hex()]),
            tag(["t", self.task.as_str()]),
            tag(["m", &self.model.to_string()]),
        ];
        tags.extend(self.job.map(|job| tag(["e", &job.to_hex()])));
        tags
    }

    fn alt(&self) -> String {
        format!("Gives attempt {} of a job to a provider", self.attempt)
    }

    fn validate(&self, author: &PublicKey, created_at: Timestamp) -> Result<(), Refusal> {
        attempt(self.attempt)?;
        if self.job.is_none() && self.attempt != 1 {
            return Err(Refusal::Invalid("a later attempt names its job"));
        }
        self.limits.validate()?;
        at_most("budget_msat", self.budget_msat.0, Msat::MAX.0)?;
        validate_relays(&self.relays)?;
        instant("deadline", self.deadline)?;
        if self.deadline <= created_at {
            return Err(Refusal::Invalid("its deadline is over before it is made"));
        }
        if !self.input.is_bounded() {
            return Err(Refusal::Invalid("the sealed input is too large"));
        }
        if self.terms == PaymentKind::Free && !self.price.is_free() {
            return Err(Refusal::Invalid("free terms with a price"));
        }
        match &self.basis {
            Basis::Auction { offer, bid } => self.validate_auction(author, offer, bid),
            Basis::Direct { announcement } => self.validate_direct(announcement),
        }
    }
}
