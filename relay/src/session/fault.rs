//! Why a message is refused: by the rules ([`Refusal`]), or before these are asked.

use nostr::EventId;

use super::asking::MAX_OPEN;
use super::message::{MAX_FILTERS, MAX_SUBSCRIPTION_ID, Unreadable};
use super::publishing::MAX_TAGS;
use super::say;
use crate::admission::Refusal;
use crate::metrics::Metrics;
use crate::store;

/// Why an event or a request is refused. It reads `prefix: words` (NIP-01).
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The rules refuse it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error("error: the store failed; try again")]
    Store(#[from] store::Error),
    /// It is there already, which is no fault of anybody.
    #[error("duplicate: this event is known already")]
    Duplicate,
    /// It is no event, or no filter.
    #[error("invalid: {0}")]
    Unreadable(#[from] Unreadable),
    /// Its id is not that of its content.
    #[error("invalid: the id is not that of this event")]
    Id,
    /// Its signature is wrong.
    #[error("invalid: the signature is wrong")]
    Signature,
    /// It has too many tags.
    #[error("invalid: this event has {0} tags, more than {MAX_TAGS}")]
    Tags(usize),
    /// It is for the relay alone.
    #[error("invalid: kind 22242 is sent as AUTH, not as EVENT")]
    Misplaced,
    /// The id of a subscription is too long.
    #[error("invalid: an id has {MAX_SUBSCRIPTION_ID} characters at most")]
    LongId,
    /// A request has too many filters.
    #[error("invalid: a request has {MAX_FILTERS} filters at most")]
    Filters,
    /// A filter asks for too many combinations.
    #[error("invalid: too many authors, kinds and tags at once: ask in parts")]
    TooBroad,
    /// A filter searches (NIP-50).
    #[error("unsupported: this relay does not search")]
    Search,
    /// The connection has too many subscriptions.
    #[error("rate-limited: {0} subscriptions at a time are the most; close one first")]
    Subscriptions(usize),
    /// The filters of the connection's subscriptions are too many, or too long.
    #[error(
        "rate-limited: the subscriptions of one connection have {} filters, {} values in these, and {} bytes at most",
        MAX_OPEN.filters, MAX_OPEN.values, MAX_OPEN.bytes
    )]
    OpenFilters,
}

impl Fault {
    /// The word for machines (NIP-01), without its colon.
    pub fn prefix(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.prefix(),
            Self::Store(_) => "error",
            Self::Duplicate => "duplicate",
            Self::Unreadable(_)
            | Self::Id
            | Self::Signature
            | Self::Tags(_)
            | Self::Misplaced
            | Self::LongId
            | Self::Filters
            | Self::TooBroad => "invalid",
            Self::Search => "unsupported",
            Self::Subscriptions(_) | Self::OpenFilters => "rate-limited",
        }
    }

    /// The answer to an event, which is counted.
    pub fn answer(&self, id: &EventId, metrics: &Metrics) -> String {
        metrics.refused(self.prefix());
        if let Self::Store(error) = self {
            tracing::debug!(%error, "the store failed");
        }
        let is_there = matches!(self, Self::Duplicate);
        say::ok(id, is_there, &self.to_string())
    }
}
