//! Who is chosen, and why nobody can be.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use infernet_protocol::event::{Body, V1};
use infernet_protocol::money::Msat;
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
    let (_, words) = resolve(&market, request, Means::default(), at(1))?;
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
    assert!(resolve(&market, &ask(), Means::default(), at(1)).is_err());
    let (order, words) = resolve(
        &market,
        &ask().route(Route::Auction),
        Means::default(),
        at(1),
    )
    .unwrap();
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
    let (order, words) = resolve(&market, &ask(), Means::default(), at(1)).unwrap();
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

/// A provider that asks so many msat for a million tokens, to be paid by tab.
fn paid(name: &str, msat: u64) -> Announcement {
    let mut announcement = named(name, 50.0);
    announcement.models[0].price = Price {
        input_msat: msat,
        output_msat: msat,
    };
    announcement.terms = vec![PaymentTerms::Tab {
        min_payment_msat: Msat(10_000),
        prepaid_output_tokens: 64,
        payee: None,
    }];
    announcement
}

/// What is chosen with a wallet that risks 50 sat, and so much left for the job.
fn bought(
    announcements: &[Announcement],
    most_msat: u64,
    left: Option<Msat>,
) -> Result<Vec<String>, Error> {
    let market = market(announcements);
    let price = Price {
        input_msat: most_msat,
        output_msat: most_msat,
    };
    let means = Means {
        risk: Some(Msat(50_000)),
        escrow: false,
        left,
    };
    let (_, words) = resolve(&market, &ask().max_price(price), means, at(1))?;
    Ok(words.into_iter().map(|word| word.name).collect())
}

#[test]
fn with_a_wallet_the_cheap_come_first_and_the_dear_not_at_all() {
    let all = [
        paid("dear", 1_000_000_000),
        paid("cheap", 1_000),
        named("free", 50.0),
        paid("middling", 100_000_000),
    ];
    let chosen = bought(&all, 200_000_000, None).unwrap();
    assert_eq!(chosen, ["free", "cheap", "middling"]);
    assert_eq!(bought(&all, 0, None).unwrap(), ["free"]);
}

#[test]
fn what_is_in_the_way_of_buying_is_said() {
    let price = 100_000_000;
    let one = [paid("ada", price)];
    let wallet = chosen(&one, &ask()).unwrap_err();
    assert!(matches!(wallet, Error::NotFree { .. }), "{wallet}");
    let price_error = bought(&one, price - 1, None).unwrap_err();
    assert!(
        matches!(price_error, Error::TooDear { .. }),
        "{price_error}"
    );
    // 58 + 256 tokens.
    let cost = bought(&one, price, Some(Msat(31_399))).unwrap_err();
    assert!(
        matches!(
            cost,
            Error::OverLimit {
                cost: Msat(31_400),
                ..
            }
        ),
        "{cost}"
    );
    assert!(bought(&one, price, Some(Msat(31_400))).is_ok());
    let ahead = bought(&[paid("ada", 10 * price)], 10 * price, None).unwrap_err();
    assert!(
        matches!(
            ahead,
            Error::OverRisk {
                ahead: Msat(122_000),
                ..
            }
        ),
        "{ahead}"
    );
    // The one that is nearest to being bought is named.
    let nearest = bought(
        &[paid("ada", price), paid("bob", 10 * price)],
        price,
        Some(Msat(1)),
    );
    assert!(
        matches!(nearest, Err(Error::OverLimit { .. })),
        "{nearest:?}"
    );
}
