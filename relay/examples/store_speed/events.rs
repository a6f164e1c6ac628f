//! Events like the market's: about 1 KB, seven tags, four of them of one letter. A store checks no signatures, so
//! these have none.

use std::sync::Arc;

use bytes::Bytes;
use nostr::secp256k1::schnorr::Signature;
use nostr::{Event, EventId, JsonUtil, Kind, PublicKey, Tag, Tags, Timestamp};

/// How many keys there are.
pub const KEYS: u64 = 5_000;

/// The kinds, of offer, bid, award, result, receipt and verdict.
pub const KINDS: [u16; 6] = [8_600, 8_601, 8_602, 8_603, 8_604, 8_605];

/// The moment of the first.
pub const START: u64 = 1_700_000_000;

/// An event with its JSON.
pub type Made = (Arc<Event>, Bytes);

/// A number that looks random.
pub fn scatter(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The public key with a number.
pub fn key(number: u64) -> PublicKey {
    let mut bytes = [0; 32];
    for (place, part) in bytes.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&scatter(number * 4 + place as u64 + 1).to_be_bytes());
    }
    PublicKey::from_byte_array(bytes)
}

/// What ties the events of a job together.
pub fn job(number: u64) -> EventId {
    EventId::from_byte_array(*key(number + 1_000_000_000).as_bytes())
}

/// The event with a number: every six of them belong to one job between two keys.
pub fn event(number: u64) -> Made {
    let (this, kind) = (number / 6, KINDS[(number % 6) as usize]);
    let (author, peer) = (key(scatter(number) % KEYS), key(scatter(this) % KEYS));
    let (job, other) = (job(this), job(this + 1).to_hex());
    let tag = |parts: &[&str]| Tag::parse(parts.iter().copied()).unwrap();
    let tags = Tags::from_list(vec![
        tag(&["e", &job.to_hex(), "wss://relay.example.org"]),
        tag(&["e", &other]),
        tag(&["p", &peer.to_hex()]),
        tag(&["t", ["chat", "embedding", "batch"][(number % 3) as usize]]),
        tag(&["model", "smollm2-135m-instruct"]),
        tag(&["price", &number.to_string(), "msat"]),
        tag(&["attempt", "1"]),
    ]);
    let content = format!("{:0350x}", scatter(number));
    let (kind, created_at) = (Kind::from(kind), Timestamp::from_secs(START + number / 10));
    let id = EventId::new(&author, &created_at, &kind, &tags, &content);
    let signature = Signature::from_slice(&[7; 64]).unwrap();
    let event = Event::new(id, author, created_at, kind, tags, content, signature);
    let json = event.as_json().into();
    (Arc::new(event), json)
}

/// The events with these numbers.
pub fn events(numbers: std::ops::Range<usize>) -> Vec<Made> {
    numbers.map(|number| event(number as u64)).collect()
}
