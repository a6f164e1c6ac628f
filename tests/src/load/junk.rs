//! What a flood is made of: valid events that nobody asked for, each by a key that has written nothing before.

use std::ops::Range;

use infernet_protocol::event::{Body, Offer};
use nostr::{EventBuilder, Keys, Metadata, Timestamp};
use serde_json::json;

use super::events::{Ready, on_all_cores};

/// Seconds that a junk offer is open.
const OPEN_SECS: u64 = 60;

/// So many of them, signed: profiles and, every other one, offers that a provider has to look at.
pub fn junk(count: u64) -> Vec<Ready> {
    on_all_cores(0..count, |numbers: Range<u64>| {
        numbers
            .filter_map(|n| one(n).as_ref().map(Ready::new))
            .collect()
    })
}

fn one(n: u64) -> Option<nostr::Event> {
    let keys = Keys::generate();
    if n.is_multiple_of(2) {
        let profile = Metadata::new().name(format!("nobody {n}"));
        return EventBuilder::metadata(&profile).sign_with_keys(&keys).ok();
    }
    let now = Timestamp::now();
    let offer = json!({
        "v": 1, "nonce": n, "task": "text-generation", "accepts": [{ "name": "scripted" }],
        "limits": { "input_tokens": 32, "output_tokens": 64 },
        "max_price": { "input_msat": 0, "output_msat": 0 }, "budget_msat": 0,
        "terms": ["free"], "checkers": "nobody",
        "bids_until": now + OPEN_SECS, "deadline": now + 2 * OPEN_SECS, "relays": [],
    });
    let offer: Offer = serde_json::from_value(offer).ok()?;
    let unsigned = offer.to_unsigned(keys.public_key(), now);
    unsigned.sign_with_keys(&keys).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{Event, JsonUtil};

    use super::*;

    #[test]
    fn junk_is_valid_and_by_many() {
        let junk = junk(6);
        let event = |ready: &Ready| {
            let text = &ready.message[9..ready.message.len() - 1];
            Event::from_json(text).unwrap()
        };
        let events: Vec<Event> = junk.iter().map(event).collect();
        assert_eq!(events.len(), 6);
        for event in &events {
            event.verify().unwrap();
            if event.kind.as_u16() != 0 {
                infernet_protocol::event::check(event).unwrap();
            }
        }
        let mut authors: Vec<_> = events.iter().map(|event| event.pubkey).collect();
        authors.sort();
        authors.dedup();
        assert_eq!(authors.len(), 6);
    }
}
