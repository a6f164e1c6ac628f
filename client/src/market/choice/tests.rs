//! Who is chosen, and why nobody can be.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use infernet_protocol::event::{Body, V1};
use nostr::{EventId, Keys};

use super::*;
use crate::market::tests::{announcement, at, model, signed};

/// A market of these announcements, each by a key of its own.
fn market(announcements: &[Announcement]) -> Market {
    let mut market = Market::new(HashSet::new());
    for body in announcements {
        market.take(signed(body, &Keys::generate(), at(0)), at(1));
    }
    market
}

fn named(name: &str, speed: f32) -> Announcement {
    let mut model = model("tiny", 1);
    model.promise.tokens_per_s = speed;
    announcement(name, vec![model])
}

fn ask() -> Request {
    Request::chat("Tiny", "Hello")
}

fn names_of(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.name.as_str()).collect()
}

fn chosen(announcements: &[Announcement], request: &Request) -> Result<Vec<String>, Error> {
    let market = market(announcements);
    let (_, words) = resolve(&market, request, at(1))?;
    Ok(words.into_iter().map(|word| word.name).collect())
}

#[test]
fn the_fastest_of_the_free_comes_first_and_the_busy_later() {
    let mut busy = named("busy", 100.0);
    busy.load.running = 4;
    let all = [named("slow", 10.0), busy, named("fast", 90.0)];
    assert_eq!(chosen(&all, &ask()).unwrap(), ["fast", "busy", "slow"]);
}

#[test]
fn a_model_is_meant_by_name_alias_or_hash() {
    let mut with_alias = named("ada", 1.0);
    with_alias.models[0].aliases = vec!["small".into()];
    let hash = model("tiny", 1).model.to_string();
    for meant in ["tiny", "TINY", "small", &hash] {
        let request = Request::chat(meant, "Hello");
        assert_eq!(
            chosen(&[with_alias.clone()], &request).unwrap(),
            ["ada"],
            "{meant}"
        );
    }
}

#[test]
fn who_takes_no_direct_awards_cannot_be_awarded_directly() {
    let mut shy = named("shy", 1.0);
    shy.direct = false;
    let market = market(&[shy]);
    assert!(resolve(&market, &ask(), at(1)).is_err());
    let (order, words) = resolve(&market, &ask().route(Route::Auction), at(1)).unwrap();
    assert!(words.is_empty());
    assert_eq!(bids_to_expect(&market, &order, at(1)), 1);
}

#[test]
fn a_flood_of_announcements_is_cut() {
    let all: Vec<_> = (0..40_u8)
        .map(|n| named(&format!("p{n}"), f32::from(n) + 1.0))
        .collect();
    let words = chosen(&all, &ask()).unwrap();
    assert_eq!(words.len(), MAX_STANDING);
    assert_eq!(words[0], "p39");
}

#[test]
fn one_name_of_two_providers_has_to_be_made_clear() {
    let request = ask().route(Route::To {
        provider: "ada".into(),
        only: false,
    });
    let refused = chosen(&[named("ada", 1.0), named("Ada", 2.0)], &request).unwrap_err();
    assert!(matches!(refused, Error::SeveralProviders { npubs, .. } if npubs.len() == 2));
}

/// A market where one provider has announced, an order on it, and what becomes of this bid of the provider's.
fn bids(spoil: impl Fn(&mut Bid)) -> Option<Word> {
    let provider = Keys::generate();
    let mut market = Market::new(HashSet::new());
    market.take(signed(&named("ada", 1.0), &provider, at(0)), at(1));
    let (order, words) = resolve(&market, &ask(), at(1)).unwrap();
    assert_eq!(names_of(&words), ["ada"]);
    let model = model("tiny", 1);
    let mut bid = Bid {
        v: V1,
        offer: EventId::all_zeros(),
        buyer: Keys::generate().public_key(),
        model: model.model,
        name: model.name,
        dtype: model.dtype,
        context: model.context,
        price: model.price,
        promise: model.promise,
        terms: PaymentTerms::Free,
        continues: true,
        expires_at: at(30),
    };
    spoil(&mut bid);
    let event = bid.to_unsigned(provider.public_key(), at(0));
    let bid = Signed::verify(event.sign_with_keys(&provider).unwrap()).unwrap();
    on_bid(&market, &order, &bid, at(1))
}

#[test]
fn a_bid_counts_if_it_meets_the_order() {
    let word = bids(|_| {}).unwrap();
    assert!(word.is_bid && word.name == "ada");
    assert!(
        bids(|bid| bid.expires_at = at(1)).is_none(),
        "it has run out"
    );
    assert!(
        bids(|bid| bid.price.output_msat = 1).is_none(),
        "it is too dear"
    );
    assert!(
        bids(|bid| bid.terms = PaymentTerms::Escrow).is_none(),
        "it cannot be paid"
    );
    let other =
        |bid: &mut Bid| (bid.name, bid.model) = ("other".into(), ModelId::from_bytes([7; 32]));
    assert!(bids(other).is_none(), "it is for another model");
    assert!(
        bids(|bid| bid.name = "alias".into()).is_some(),
        "the same model by another name"
    );
}
