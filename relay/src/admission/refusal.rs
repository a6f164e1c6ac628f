//! Why something is refused, in the words of NIP-01: one for machines, the rest for people.

use infernet_protocol::bounds::MAX_EVENT_BYTES;
use nostr::{EventId, Kind, PublicKey, Timestamp};

use super::{MAX_AHEAD_SECS, MAX_IDENTIFIER_BYTES};

/// Why an event or a request is refused. It reads `prefix: words`; `nips/relay.md` says what clients may make of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has too many bytes.
    #[error("invalid: this event has {0} bytes as JSON, more than {MAX_EVENT_BYTES}")]
    TooLarge(usize),
    /// It comes from the future.
    #[error("invalid: created_at lies {0} s ahead, more than {MAX_AHEAD_SECS}: check your clock")]
    FromFuture(u64),
    /// It has expired (NIP-40).
    #[error("invalid: this event expired at {0}")]
    Expired(Timestamp),
    /// Evidence would go away by itself.
    #[error("invalid: kind {0} is evidence: it carries no expiration")]
    PassingEvidence(Kind),
    /// Its address, or one that it deletes, is too long.
    #[error(
        "invalid: the identifier (d) of an address has {0} bytes, more than {MAX_IDENTIFIER_BYTES}"
    )]
    LongIdentifier(usize),
    /// It is no valid event of the market.
    #[error("invalid: kind {0}: {1}")]
    Malformed(Kind, String),
    /// A newer version is stored.
    #[error("invalid: a newer version of this event is stored: {0}")]
    Superseded(EventId),
    /// A deletion names somebody else's event.
    #[error("invalid: {0} is not yours to delete")]
    DeletesForeign(String),
    /// A deletion names evidence.
    #[error(
        "blocked: {0} is evidence (kind {1}), which this relay keeps: leave it out of the deletion"
    )]
    DeletesEvidence(EventId, Kind),
    /// Its author has deleted it.
    #[error("blocked: its author has deleted this event")]
    Deleted,
    /// It is neither the market's nor one that comes with it.
    #[error("blocked: kind {0} is not the market's; this relay takes no others")]
    ForeignKind(Kind),
    /// The operator does not want the kind.
    #[error("blocked: this relay takes no events of kind {0}")]
    UnwantedKind(Kind),
    /// Its author is banned by somebody whom this relay follows.
    #[error("blocked: your key is banned by {0}, whom this relay follows: ask there")]
    Banned(PublicKey),
    /// The operator has banned the key.
    #[error("blocked: the operator of this relay has banned this key")]
    BannedKey,
    /// The operator has banned the event.
    #[error("blocked: the operator of this relay has banned this event")]
    BannedEvent,
    /// The operator has blocked the address.
    #[error("blocked: the operator of this relay has blocked your address")]
    BlockedAddress,
    /// It is marked as its author's alone (NIP-70), who has not identified itself.
    #[error("auth-required: this event is its author's alone to send (NIP-70)")]
    Protected,
    /// It is marked as its author's alone (NIP-70), and somebody else sends it.
    #[error("restricted: this event is its author's alone to send (NIP-70)")]
    OfAnother,
    /// Only who has identified itself may write.
    #[error("auth-required: identify yourself to write here")]
    WriteUnidentified,
    /// Only keys of a list may write.
    #[error("restricted: your key is not on the list of those who may write here")]
    WriteUnlisted,
    /// Only who has identified itself may read.
    #[error("auth-required: identify yourself to read here")]
    ReadUnidentified,
    /// Only keys of a list may read.
    #[error("restricted: your key is not on the list of those who may read here")]
    ReadUnlisted,
    /// Such events are answered only to those whom they concern, and nobody has said who it is.
    #[error("auth-required: kind {0} is answered only to those whom it concerns")]
    PrivateKind(Kind),
    /// Such events are answered only to those whom they concern, and these are others'.
    #[error(
        "restricted: kind {0} is answered only to those whom it concerns, which is not your key"
    )]
    PrivateOfOthers(Kind),
    /// Its author has no standing, and so many bits of work (NIP-13) would give it some.
    #[error("pow: {0} bits of work needed (NIP-13), on this event or on your AUTH event")]
    Work(u8),
    /// Something came too fast.
    #[error("rate-limited: too many {what}; again in {secs} s")]
    TooFast {
        /// What.
        what: &'static str,
        /// Seconds after which it may be tried again, at least 1.
        secs: u64,
    },
    /// The address has as many connections as it may.
    #[error("rate-limited: your address has {0} connections open; close one first")]
    Connections(usize),
}

impl Refusal {
    /// The word for machines (NIP-01), without its colon.
    pub const fn prefix(&self) -> &'static str {
        match self {
            Self::TooLarge(_)
            | Self::FromFuture(_)
            | Self::Expired(_)
            | Self::PassingEvidence(_)
            | Self::LongIdentifier(_)
            | Self::Malformed(..)
            | Self::Superseded(_)
            | Self::DeletesForeign(_) => "invalid",
            Self::DeletesEvidence(..)
            | Self::Deleted
            | Self::ForeignKind(_)
            | Self::UnwantedKind(_)
            | Self::Banned(_)
            | Self::BannedKey
            | Self::BannedEvent
            | Self::BlockedAddress => "blocked",
            Self::Protected
            | Self::WriteUnidentified
            | Self::ReadUnidentified
            | Self::PrivateKind(_) => "auth-required",
            Self::OfAnother
            | Self::WriteUnlisted
            | Self::ReadUnlisted
            | Self::PrivateOfOthers(_) => "restricted",
            Self::Work(_) => "pow",
            Self::TooFast { .. } | Self::Connections(_) => "rate-limited",
        }
    }
}
