//! Values for the tests of this crate.
#![allow(clippy::unwrap_used)]

use infernet_protocol::batch::Size;
use infernet_protocol::event::{Accepts, Body, Checkers, Checking, Order, Quote, Signed, V1};
use infernet_protocol::inference::Task;
use infernet_protocol::money::{Msat, PaymentKind, Price};
use infernet_protocol::verification::Secret;
use nostr::{Event, EventBuilder, Keys, Timestamp};

/// A free quote of `us` for `buyer`.
pub fn quote(us: &Keys, buyer: &Keys, secret: &Secret, now: Timestamp) -> Event {
    let later = |s| Timestamp::from_secs(now.as_secs() + s);
    let quote = Quote {
        v: V1,
        nonce: 1,
        buyer: buyer.public_key(),
        task: Task::TextGeneration,
        accepts: vec![Accepts::Name("m".into())],
        size: Size {
            lines: 10,
            input_tokens: 100,
            output_tokens: 100,
            longest: 20,
        },
        price: Price::FREE,
        fee_ppm: 10_000,
        checking_ppm: 0,
        most_msat: Msat::ZERO,
        terms: PaymentKind::Free,
        checkers: Checkers::Nobody,
        checking: Checking::None,
        commitment: secret.commitment(),
        seconds: 10,
        valid_until: later(60),
        deadline: later(3_600),
        relays: vec![],
    };
    signed(&quote, us, now)
}

/// An order of `buyer` on a free quote of `us`.
pub fn order(us: &Keys, buyer: &Keys, secret: &Secret, now: Timestamp) -> Signed<Order> {
    order_of(us, buyer, quote(us, buyer, secret, now), 0, now)
}

/// An order on this quote, signed so many seconds later.
pub fn order_of(
    us: &Keys,
    buyer: &Keys,
    quote: Event,
    seconds: u64,
    now: Timestamp,
) -> Signed<Order> {
    let order = Order {
        v: V1,
        aggregator: us.public_key(),
        quote: Box::new(quote),
        relays: vec![],
    };
    let at = Timestamp::from_secs(now.as_secs() + seconds);
    Signed::verify(signed(&order, buyer, at)).unwrap()
}

/// Any event.
pub fn note(keys: &Keys) -> Event {
    EventBuilder::text_note("hello")
        .sign_with_keys(keys)
        .unwrap()
}

/// A body, signed.
pub fn signed(body: &impl Body, keys: &Keys, at: Timestamp) -> Event {
    let unsigned = body.to_unsigned(keys.public_key(), at);
    unsigned.sign_with_keys(keys).unwrap()
}
