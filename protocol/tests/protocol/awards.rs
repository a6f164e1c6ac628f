//! An award rests on words that its two parties said, and keeps to them.

use infernet_protocol::event::{Announcement, Award, Basis, Bid, Offer, Refusal, Signed};
use infernet_protocol::money::{PaymentKind, PaymentTerms, Price};
use nostr::{Event, Keys};

use crate::generate::{self, one};
use crate::hostile::with;
use crate::parties::{buyer, event, provider, stranger};

/// What an award embeds is signed by the right ones and fits together.
#[test]
fn an_award_with_a_foreign_basis_is_refused() {
    let valid = one(generate::auction_award());
    let content = serde_json::to_string(&valid).unwrap();
    assert!(Signed::<Award>::verify(event(&valid, &buyer())).is_ok());

    let by_another_buyer = Signed::<Award>::verify(event(&valid, &stranger()));
    assert!(by_another_buyer.is_err());

    let foreign_offer = event(&one(generate::offer()), &stranger());
    let foreign_bid = event(&one(generate::bid()), &stranger());
    let flipped = |pointer: &str| {
        let json: serde_json::Value = serde_json::from_str(&content).unwrap();
        let mut text = json.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let last = if text.ends_with('0') { "1" } else { "0" };
        text.replace_range(text.len() - 1.., last);
        serde_json::Value::from(text)
    };
    let json = |event: &Event| serde_json::to_value(event).unwrap();
    let altered = [
        ("/basis/auction/offer", json(&foreign_offer)),
        ("/basis/auction/bid", json(&foreign_bid)),
        (
            "/basis/auction/offer/sig",
            flipped("/basis/auction/offer/sig"),
        ),
        ("/basis/auction/bid/sig", flipped("/basis/auction/bid/sig")),
        ("/basis/auction/bid/id", flipped("/basis/auction/bid/id")),
        ("/basis/auction/bid/content", "{}".into()),
        ("/basis/auction/offer/kind", 8601.into()),
        ("/job", json(&foreign_offer)["id"].clone()),
        ("/provider", json(&foreign_offer)["pubkey"].clone()),
        ("/model", flipped("/model")),
        ("/attempt", 0.into()),
        (
            "/attempt",
            (infernet_protocol::bounds::MAX_ATTEMPTS + 1).into(),
        ),
        ("/deadline", 1.into()),
    ];
    for (pointer, value) in altered {
        let Ok(award) = serde_json::from_str::<Award>(&with(&content, pointer, value)) else {
            continue;
        };
        let refused = Signed::<Award>::verify(event(&award, &buyer()));
        assert!(refused.is_err(), "{pointer}");
    }
    let dearer = Award {
        price: dearer(&valid),
        ..valid
    };
    assert!(Signed::<Award>::verify(event(&dearer, &buyer())).is_err());
}

fn dearer(award: &Award) -> Price {
    Price {
        input_msat: award.price.input_msat + 1,
        ..award.price
    }
}

#[test]
fn an_award_rests_on_no_announcement_that_does_not_say_so() {
    let valid = one(generate::direct_award());
    assert!(Signed::<Award>::verify(event(&valid, &buyer())).is_ok());
    let Basis::Direct { announcement } = &valid.basis else {
        panic!("it is a direct one");
    };
    let said: Announcement = serde_json::from_str(&announcement.content).unwrap();
    let rests_on = |announcement: &Announcement, author: &Keys| {
        let announcement = Box::new(event(announcement, author));
        let basis = Basis::Direct { announcement };
        let award = Award {
            basis,
            ..valid.clone()
        };
        Signed::<Award>::verify(event(&award, &buyer())).map(drop)
    };
    assert_eq!(rests_on(&said, &provider()), Ok(()));
    assert!(rests_on(&said, &stranger()).is_err());
    let indirect = Announcement {
        direct: false,
        ..said.clone()
    };
    assert!(rests_on(&indirect, &provider()).is_err());
    let mut dearer = said.clone();
    dearer.models[0].price.output_msat += 1;
    assert!(rests_on(&dearer, &provider()).is_err());
    let mut other = said;
    other.models.remove(0);
    assert!(rests_on(&other, &provider()).is_err());
}

fn refused(award: &Award) -> bool {
    Signed::<Award>::verify(event(award, &buyer())).is_err()
}

/// A signature is checked even where everything it signs is as it should be.
#[test]
fn an_announcement_with_another_signature_is_refused() {
    let valid = one(generate::direct_award());
    let Basis::Direct { announcement } = &valid.basis else {
        panic!("it is a direct one");
    };
    let mut forged = announcement.clone();
    forged.sig = event(&one(generate::bid()), &provider()).sig;
    let award = Award {
        basis: Basis::Direct {
            announcement: forged,
        },
        ..valid
    };
    let verified = Signed::<Award>::verify(event(&award, &buyer()));
    assert_eq!(verified.map(drop), Err(Refusal::Signature));
}

#[test]
fn an_award_is_not_dearer_than_its_offer() {
    let valid = one(generate::auction_award());
    let Basis::Auction { offer, bid } = &valid.basis else {
        panic!("it is by auction");
    };
    let offer: Offer = serde_json::from_str(&offer.content).unwrap();
    let bid: Bid = serde_json::from_str(&bid.content).unwrap();
    let asking = |output_msat| {
        let offer = event(&offer, &buyer());
        let price = Price {
            input_msat: 0,
            output_msat,
        };
        let bid = Bid {
            offer: offer.id,
            price,
            terms: PaymentTerms::Escrow,
            ..bid.clone()
        };
        refused(&Award {
            price,
            terms: PaymentKind::Escrow,
            basis: Basis::Auction {
                offer: Box::new(offer),
                bid: Box::new(event(&bid, &provider())),
            },
            ..valid.clone()
        })
    };
    assert!(!asking(offer.max_price.output_msat));
    assert!(asking(offer.max_price.output_msat + 1));
}

#[test]
fn free_terms_go_with_a_free_price_alone() {
    let valid = one(generate::direct_award());
    let Basis::Direct { announcement } = &valid.basis else {
        panic!("it is a direct one");
    };
    let mut said: Announcement = serde_json::from_str(&announcement.content).unwrap();
    said.terms = vec![PaymentTerms::Free];
    let mut asking = |output_msat| {
        let price = Price {
            input_msat: 0,
            output_msat,
        };
        said.models[0].price = price;
        refused(&Award {
            price,
            terms: PaymentKind::Free,
            basis: Basis::Direct {
                announcement: Box::new(event(&said, &provider())),
            },
            ..valid.clone()
        })
    };
    assert!(!asking(0));
    assert!(asking(1));
}

#[test]
fn an_award_carries_no_more_than_a_payload() {
    let mut award = one(generate::direct_award());
    award.input.body = "A".repeat(54_704);
    assert!(!refused(&award));
    award.input.body.push('A');
    assert!(refused(&award));
}
