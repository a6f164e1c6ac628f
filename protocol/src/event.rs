//! The market's signed events as typed, validated values.
//!
//! Each kind is a [`Body`]: its content is the JSON of the body itself, and the
//! tags that relays index mirror parts of it. A [`Signed`] value is a body with
//! the event it came in, and exists only if every check passed: inner code never
//! checks again.

mod aggregator;
mod announcement;
mod attestation;
mod award;
mod bid;
mod cancel;
mod embedded;
mod offer;
mod order;
mod private;
mod quote;
mod receipt;
mod result;
mod settlement;
mod talk;
mod thresholds;
mod verdict;
mod version;

use nostr::{Event, EventId, Kind, PublicKey, Tag, Tags, Timestamp, UnsignedEvent};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use aggregator::Aggregator;
pub(crate) use announcement::validate_name;
pub use announcement::{
    AnnouncedModel, Announcement, Capacity, DeviceKind, Hardware, Load, Promise, Status,
};
pub use attestation::{Attestation, BatchShare, Experience, Measured};
pub use award::{Agreed, Award, Basis};
pub use bid::Bid;
pub use cancel::{Cancel, CancelReason};
pub use offer::{Accepts, Checkers, Limits, Offer};
pub use order::Order;
pub use private::Private;
pub use quote::{Checking, Quote};
pub use receipt::{Receipt, ReceiptSide, TabTotals};
pub use result::{JobResult, Timing, Usage};
pub use settlement::{CheckedResult, SettledGroup, Settlement};
pub use talk::Talk;
pub use thresholds::ModelThresholds;
pub use verdict::{Judgement, Verdict};
pub use version::V1;

use crate::bounds::{MAX_EVENT_BYTES, MAX_TAGS};
use crate::kinds;

/// Why an event is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its kind is another one.
    #[error("kind {0} is not expected here")]
    Kind(u16),
    /// Its id or signature is wrong.
    #[error("the signature is wrong")]
    Signature,
    /// Its content is not the JSON of this kind.
    #[error("content: {0}")]
    Content(String),
    /// A tag that relays index does not say what the content says.
    #[error("the {0} tag is missing or differs from the content")]
    Tag(String),
    /// Something is longer than its bound.
    #[error("{what}: more than {max}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A number is higher than its bound.
    #[error("{what}: higher than {max}")]
    TooHigh {
        /// What.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// A text would disturb a terminal.
    #[error("{what}: has control characters")]
    ControlCharacters {
        /// What.
        what: &'static str,
    },
    /// The parts contradict each other.
    #[error("{0}")]
    Invalid(&'static str),
}

/// The body of one kind of event.
pub trait Body: Serialize + DeserializeOwned {
    /// The kind of the event that carries it.
    const KIND: u16;

    /// Bytes its content may have.
    const MAX_CONTENT_BYTES: usize;

    /// The tags that mirror it for relays' indexes, its `alt` text not among them.
    fn tags(&self) -> Vec<Tag>;

    /// What it says in one line, for clients that do not know the kind (NIP-31).
    fn alt(&self) -> String;

    /// Refuses what is out of bounds or contradicts itself.
    ///
    /// # Errors
    /// The first thing found.
    fn validate(&self, author: &PublicKey, created_at: Timestamp) -> Result<(), Refusal>;

    /// The event that carries it, to be signed by `author`.
    fn to_unsigned(&self, author: PublicKey, created_at: Timestamp) -> UnsignedEvent {
        let mut tags = self.tags();
        tags.push(tag(["alt", &self.alt()]));
        let content = serde_json::to_string(self).unwrap_or_default();
        UnsignedEvent::new(
            author,
            created_at,
            Kind::from(Self::KIND),
            Tags::from_list(tags),
            content,
        )
    }
}

/// A validated body with the event that carries it.
#[derive(Debug, Clone, PartialEq)]
pub struct Signed<B> {
    event: Event,
    body: B,
}

impl<B: Body> Signed<B> {
    /// Checks everything: signature, form, bounds.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(event: Event) -> Result<Self, Refusal> {
        event.verify().map_err(|_| Refusal::Signature)?;
        Self::from_verified(event)
    }

    /// The same for an event that comes embedded in others, time and again.
    fn verify_embedded(event: Event) -> Result<Self, Refusal> {
        embedded::verify(&event)?;
        Self::from_verified(event)
    }

    /// Checks form and bounds of an event whose signature was checked before.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_verified(event: Event) -> Result<Self, Refusal> {
        let body = parse(&event)?;
        Ok(Self { event, body })
    }

    /// The event.
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// The event, owned.
    pub fn into_event(self) -> Event {
        self.event
    }

    /// The event's id.
    pub const fn id(&self) -> EventId {
        self.event.id
    }

    /// Who signed it.
    pub const fn author(&self) -> PublicKey {
        self.event.pubkey
    }

    /// When it says it was made.
    pub const fn created_at(&self) -> Timestamp {
        self.event.created_at
    }
}

impl<B> std::ops::Deref for Signed<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.body
    }
}

/// Reads a body out of an event: kind, sizes, JSON, mirrored tags, bounds.
fn parse<B: Body>(event: &Event) -> Result<B, Refusal> {
    if event.kind.as_u16() != B::KIND {
        return Err(Refusal::Kind(event.kind.as_u16()));
    }
    crate::bounds::count("content bytes", event.content.len(), B::MAX_CONTENT_BYTES)?;
    crate::bounds::count("tags", event.tags.len(), MAX_TAGS)?;
    crate::bounds::instant("created_at", event.created_at)?;
    let body: B = serde_json::from_str(&event.content)
        .map_err(|e| Refusal::Content(shorten(&e.to_string())))?;
    body.validate(&event.pubkey, event.created_at)?;
    for expected in body.tags() {
        mirrored(event, &expected)?;
    }
    alt_of(event)?;
    Ok(body)
}

/// A tag counts as mirrored when its name and all values we wrote are there;
/// further values (a relay hint, say) are others' business.
fn mirrored(event: &Event, expected: &Tag) -> Result<(), Refusal> {
    let wanted = expected.as_slice();
    let found = event
        .tags
        .iter()
        .any(|tag| tag.as_slice().starts_with(wanted));
    match found {
        true => Ok(()),
        false => Err(Refusal::Tag(wanted[0].clone())),
    }
}

fn alt_of(event: &Event) -> Result<(), Refusal> {
    let has_alt = event
        .tags
        .iter()
        .any(|tag| tag.as_slice().first().is_some_and(|name| name == "alt"));
    match has_alt {
        true => Ok(()),
        false => Err(Refusal::Tag("alt".into())),
    }
}

/// serde's messages may quote the input; a refusal is read on a terminal.
fn shorten(message: &str) -> String {
    message
        .chars()
        .filter(|c| !c.is_control())
        .take(160)
        .collect()
}

/// A tag of these values.
pub(crate) fn tag<const N: usize>(values: [&str; N]) -> Tag {
    let [name, rest @ ..] = &values[..] else {
        unreachable!("every call names at least the tag")
    };
    Tag::custom(
        nostr::TagKind::from(*name),
        rest.iter().map(|value| (*value).to_owned()),
    )
}

/// The tag by which a relay drops an event after a time (NIP-40).
pub(crate) fn expiration(at: Timestamp) -> Tag {
    tag(["expiration", &at.as_secs().to_string()])
}

/// Checks an event of any of the market's kinds, but not its signature: the
/// relay has done that.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(event: &Event) -> Result<(), Refusal> {
    crate::bounds::count("event bytes", encoded_len(event), MAX_EVENT_BYTES)?;
    match event.kind.as_u16() {
        kinds::ANNOUNCEMENT => parse::<Announcement>(event).map(drop),
        kinds::OFFER => parse::<Offer>(event).map(drop),
        kinds::BID => parse::<Bid>(event).map(drop),
        kinds::AWARD => parse::<Award>(event).map(drop),
        kinds::RESULT => parse::<JobResult>(event).map(drop),
        kinds::RECEIPT => parse::<Receipt>(event).map(drop),
        kinds::VERDICT => parse::<Verdict>(event).map(drop),
        kinds::ATTESTATION => parse::<Attestation>(event).map(drop),
        kinds::CANCEL => parse::<Cancel>(event).map(drop),
        kinds::PROGRESS | kinds::CONTROL => Private::parse(event).map(drop),
        kinds::AGGREGATOR => parse::<Aggregator>(event).map(drop),
        kinds::QUOTE => parse::<Quote>(event).map(drop),
        kinds::ORDER => parse::<Order>(event).map(drop),
        kinds::SETTLEMENT => parse::<Settlement>(event).map(drop),
        kinds::TALK => Talk::parse(event).map(drop),
        kinds::THRESHOLDS => parse::<ModelThresholds>(event).map(drop),
        other => Err(Refusal::Kind(other)),
    }
}

/// Bytes of an event as JSON.
pub fn encoded_len(event: &Event) -> usize {
    serde_json::to_vec(event).map_or(usize::MAX, |json| json.len())
}
