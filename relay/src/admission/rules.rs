//! Which events may come in, as far as the event alone can tell.

use std::io::{self, Write};

use infernet_protocol::bounds::MAX_EVENT_BYTES;
use infernet_protocol::{event, kinds};
use nostr::{Event, Kind, Timestamp};

use super::refusal::Refusal;

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

/// Checks time and kind, which takes no time. `wanted` is what the operator said about the kind.
///
/// # Errors
/// With the reason to refuse `event`.
pub fn glance(
    event: &Event,
    general: bool,
    wanted: Option<bool>,
    now: Timestamp,
) -> Result<(), Refusal> {
    let ahead = event.created_at.as_secs().saturating_sub(now.as_secs());
    if ahead > MAX_AHEAD_SECS {
        return Err(Refusal::FromFuture(ahead));
    }
    let kind = event.kind.as_u16();
    match wanted {
        Some(false) => return Err(Refusal::UnwantedKind(event.kind)),
        Some(true) => {}
        None if general || kinds::is_market(kind) || COMPANIONS.contains(&kind) => {}
        None => return Err(Refusal::ForeignKind(event.kind)),
    }
    if let Some(expiration) = event.tags.expiration() {
        if kinds::is_evidence(kind) {
            return Err(Refusal::PassingEvidence(event.kind));
        }
        if event.is_expired_at(&now) {
            return Err(Refusal::Expired(*expiration));
        }
    }
    Ok(())
}

/// Checks the size, and answers how many bytes the event has as JSON.
///
/// # Errors
/// [`Refusal::TooLarge`].
pub fn size(event: &Event) -> Result<u64, Refusal> {
    let mut counter = Counter(0);
    // Writing into a counter does not fail.
    let bytes = match serde_json::to_writer(&mut counter, event) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX,
    };
    match bytes <= MAX_EVENT_BYTES {
        true => Ok(bytes as u64),
        false => Err(Refusal::TooLarge(bytes)),
    }
}

/// Checks what only a look into the event can tell: the market's tags and content, and the addresses that it has or
/// deletes.
///
/// # Errors
/// With the reason to refuse `event`.
pub fn examine(event: &Event) -> Result<(), Refusal> {
    if kinds::is_market(event.kind.as_u16()) {
        event::check(event)
            .map_err(|refusal| Refusal::Malformed(event.kind, refusal.to_string()))?;
    }
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

/// Counts bytes and keeps none.
struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
