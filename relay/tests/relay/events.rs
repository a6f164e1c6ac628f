//! Events of the market, and others.

use infernet_protocol::event::{
    Accepts, Attestation, Bid, Body, Checkers, Experience, Limits, Offer, Private, Promise, V1,
};
use infernet_protocol::inference::{Dtype, Task};
use infernet_protocol::kinds;
use infernet_protocol::money::{Msat, PaymentKind, PaymentTerms, Price};
use nostr::{Event, EventBuilder, EventId, Keys, Kind, Tag, Timestamp};

/// Seconds from now, negative for the past.
pub fn from_now(seconds: i64) -> Timestamp {
    let now = i64::try_from(infernet_node::clock::now().as_secs()).unwrap();
    Timestamp::from_secs(u64::try_from(now + seconds).unwrap())
}

/// An offer, which expires after `seconds`.
pub fn offer(keys: &Keys, seconds: i64) -> Event {
    let offer = Offer {
        v: V1,
        nonce: 1,
        task: Task::TextGeneration,
        accepts: vec![Accepts::Name("smollm2-135m-instruct".to_owned())],
        limits: Limits {
            input_tokens: 40,
            output_tokens: 128,
        },
        max_price: Price::FREE,
        budget_msat: Msat(0),
        terms: vec![PaymentKind::Free],
        checkers: Checkers::Nobody,
        bids_until: from_now(seconds - 1),
        deadline: from_now(seconds),
        relays: Vec::new(),
    };
    let unsigned = offer.to_unsigned(keys.public_key(), from_now((seconds - 60).min(0)));
    unsigned.sign_with_keys(keys).unwrap()
}

/// A bid, each time another one.
pub fn bid(keys: &Keys) -> Event {
    let bid = Bid {
        v: V1,
        offer: EventId::from_byte_array(Keys::generate().public_key().to_bytes()),
        buyer: Keys::generate().public_key(),
        model: "00".repeat(32).parse().unwrap(),
        name: "m".into(),
        dtype: Dtype::F32,
        context: 1,
        price: Price::FREE,
        promise: Promise {
            first_token_ms: 500,
            tokens_per_s: 20.0,
        },
        terms: PaymentTerms::Free,
        continues: false,
        expires_at: from_now(60),
    };
    let unsigned = bid.to_unsigned(keys.public_key(), from_now(0));
    unsigned.sign_with_keys(keys).unwrap()
}

/// Evidence: an attestation that nothing came.
pub fn attestation(keys: &Keys) -> Event {
    let attestation = Attestation {
        v: V1,
        job: EventId::all_zeros(),
        award: EventId::all_zeros(),
        result: None,
        receipt: None,
        provider: Keys::generate().public_key(),
        model: "00".repeat(32).parse().unwrap(),
        experience: Experience::Silent,
        promised: Promise {
            first_token_ms: 500,
            tokens_per_s: 20.0,
        },
        measured: None,
        paid_msat: Msat(0),
        verdict: None,
        batch: None,
    };
    let unsigned = attestation.to_unsigned(keys.public_key(), from_now(0));
    unsigned.sign_with_keys(keys).unwrap()
}

/// A piece of an answer, number `number`: ephemeral.
pub fn progress(keys: &Keys, number: usize) -> Event {
    let private = Private {
        kind: kinds::PROGRESS,
        job: EventId::all_zeros(),
        reader: Keys::generate().public_key(),
        content: format!("piece {number}"),
    };
    let unsigned = private.to_unsigned(keys.public_key(), from_now(0));
    unsigned.sign_with_keys(keys).unwrap()
}

/// A profile (kind 0), made `ago` seconds ago.
pub fn profile(keys: &Keys, name: &str, ago: i64) -> Event {
    plain(
        keys,
        0,
        &format!(r#"{{"name":"{name}"}}"#),
        [],
        from_now(-ago),
    )
}

/// A deletion of `targets`.
pub fn deletion(keys: &Keys, targets: &[&Event]) -> Event {
    let tags = targets.iter().map(|target| Tag::event(target.id));
    plain(keys, 5, "", tags, from_now(0))
}

/// An event of any kind.
pub fn plain(
    keys: &Keys,
    kind: u16,
    content: &str,
    tags: impl IntoIterator<Item = Tag>,
    created_at: Timestamp,
) -> Event {
    EventBuilder::new(Kind::from(kind), content)
        .tags(tags)
        .custom_created_at(created_at)
        .sign_with_keys(keys)
        .unwrap()
}
