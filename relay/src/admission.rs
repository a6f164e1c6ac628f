//! Which events may come in, as far as the event alone can tell. The signature was checked before.

use infernet_protocol::bounds::MAX_EVENT_BYTES;
use infernet_protocol::{event, kinds};
use nostr::{Event, EventId, Kind, PublicKey, Timestamp};

/// Seconds that `created_at` may lie ahead: clocks of machines without NTP drift by minutes. An event from further
/// ahead would shadow everything that replaces it.
pub const MAX_AHEAD_SECS: u64 = 15 * 60;

/// Bytes of an address's identifier (its `d` tag). The store's keys hold so many: of a longer one it would drop
/// addresses that only begin alike, or fail, and with it whatever others publish in that moment.
pub const MAX_IDENTIFIER_BYTES: usize = 182;

/// Kinds that are not the market's own, but come with its announcements: profiles (NIP-01), deletions (NIP-09), relay
/// lists (NIP-65), the NIP-90 heartbeat and NIP-89 handlers; and with an aggregator its bans (NIP-51) and ranks
/// (NIP-85).
pub const COMPANIONS: [u16; 7] = [0, 5, 10000, 10002, 11998, 30382, 31990];

/// Why an event is refused. What clients read is in `nips/relay.md`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has too many bytes.
    #[error("this event has {0} bytes as JSON, more than {MAX_EVENT_BYTES}")]
    TooLarge(usize),
    /// It comes from the future.
    #[error("created_at lies {0} s ahead, more than {MAX_AHEAD_SECS}: check your clock")]
    FromFuture(u64),
    /// It has expired (NIP-40).
    #[error("this event expired at {0}")]
    Expired(Timestamp),
    /// Evidence would go away by itself.
    #[error("kind {0} is evidence: it carries no expiration")]
    PassingEvidence(Kind),
    /// Its address, or one that it deletes, is too long.
    #[error("the identifier (d) of an address has {0} bytes, more than {MAX_IDENTIFIER_BYTES}")]
    LongIdentifier(usize),
    /// It is neither the market's nor one of [`COMPANIONS`].
    #[error("kind {0} is not the market's; this relay takes no others")]
    ForeignKind(Kind),
    /// It is no valid event of the market.
    #[error("kind {0}: {1}")]
    Malformed(Kind, String),
    /// A newer version is stored.
    #[error("a newer version of this event is stored: {0}")]
    Superseded(EventId),
    /// Its author is banned by somebody whom this relay follows.
    #[error("your key is banned by {0}, whom this relay follows: ask there")]
    Banned(PublicKey),
    /// A deletion names evidence.
    #[error("{0} is evidence (kind {1}), which this relay keeps: leave it out of the deletion")]
    DeletesEvidence(EventId, Kind),
    /// A deletion names somebody else's event.
    #[error("{0} is not yours to delete")]
    DeletesForeign(String),
}

/// Checks everything that needs no look into the store.
///
/// # Errors
/// With the reason to refuse `event`.
pub fn check(event: &Event, general: bool, now: Timestamp) -> Result<(), Refusal> {
    let bytes = event::encoded_len(event);
    if bytes > MAX_EVENT_BYTES {
        return Err(Refusal::TooLarge(bytes));
    }
    let ahead = event.created_at.as_secs().saturating_sub(now.as_secs());
    if ahead > MAX_AHEAD_SECS {
        return Err(Refusal::FromFuture(ahead));
    }
    if let Some(expiration) = event.tags.expiration() {
        if kinds::is_evidence(event.kind.as_u16()) {
            return Err(Refusal::PassingEvidence(event.kind));
        }
        if event.is_expired_at(&now) {
            return Err(Refusal::Expired(*expiration));
        }
    }
    kind(event, general)?;
    identifiers(event)
}

/// Checks the addresses that an event has or deletes.
fn identifiers(event: &Event) -> Result<(), Refusal> {
    let own = event.tags.identifier();
    let own = own.filter(|_| event.kind.is_addressable());
    let named = event.tags.coordinates();
    let named = named.filter(|_| event.kind == Kind::EventDeletion);
    let mut lengths = named.map(|address| address.identifier.len());
    match own.map(str::len).into_iter().chain(&mut lengths).max() {
        Some(longest) if longest > MAX_IDENTIFIER_BYTES => Err(Refusal::LongIdentifier(longest)),
        _ => Ok(()),
    }
}

fn kind(event: &Event, general: bool) -> Result<(), Refusal> {
    let kind = event.kind.as_u16();
    if kinds::is_market(kind) {
        return event::check(event)
            .map_err(|refusal| Refusal::Malformed(event.kind, refusal.to_string()));
    }
    if general || COMPANIONS.contains(&kind) {
        return Ok(());
    }
    Err(Refusal::ForeignKind(event.kind))
}
