#![allow(clippy::unwrap_used)]

use infernet_protocol::batch::{Charge, Size};
use infernet_protocol::event::{Accepts, Checkers, V1};
use infernet_protocol::inference::{Dtype, ModelId, Task};
use infernet_protocol::money::{PaymentKind, Price};
use nostr::Keys;

use super::*;
use crate::audit::Finding;
use crate::market::tests::{at, signed};

/// A batch of two groups with a result each, the first of which was checked; each test spoils it in its own way.
struct Story {
    buyer: Keys,
    aggregator: Keys,
    checker: Keys,
    quote: Quote,
    groups: Vec<SettledGroup>,
    secret: Secret,
}

fn id(byte: u8) -> EventId {
    EventId::from_byte_array([byte; 32])
}

/// A secret that draws the first of the two results at even chances, and not the second.
fn choosing() -> Secret {
    let secrets = (0..=u8::MAX).map(|byte| Secret::from_bytes([byte; 32]));
    let fits =
        |secret: &Secret| secret.chooses(&id(1), 500_000) && !secret.chooses(&id(2), 500_000);
    secrets.into_iter().find(fits).unwrap()
}

impl Story {
    fn new() -> Self {
        let secret = choosing();
        let buyer = Keys::generate();
        let quote = Quote {
            v: V1,
            nonce: 1,
            buyer: buyer.public_key(),
            task: Task::TextGeneration,
            accepts: vec![Accepts::Name("m".into())],
            size: Size {
                lines: 6,
                input_tokens: 60,
                output_tokens: 60,
                longest: 20,
            },
            price: Price {
                input_msat: 1_000_000,
                output_msat: 1_000_000,
            },
            fee_ppm: 10_000,
            checking_ppm: 100_000,
            most_msat: Msat(150),
            terms: PaymentKind::Escrow,
            checkers: Checkers::Aggregator,
            checking: Checking::Adaptive { least_ppm: 500_000 },
            commitment: secret.commitment(),
            seconds: 1,
            valid_until: at(100),
            deadline: at(1_000),
            relays: vec![],
        };
        let group = |number: u32, result: u8, verdict: Option<EventId>| SettledGroup {
            number,
            lines: 3,
            accepted: 3,
            inconclusive: 0,
            failed: 0,
            charge: Charge {
                work_msat: Msat(50),
                checking_msat: Msat(5),
                fee_msat: Msat(1),
            },
            taken_msat: Msat(60),
            payment: None,
            results: vec![CheckedResult {
                result: id(result),
                chance_ppm: 500_000,
                verdict,
            }],
        };
        let mut story = Self {
            buyer,
            aggregator: Keys::generate(),
            checker: Keys::generate(),
            quote,
            groups: vec![group(0, 1, None), group(1, 2, None)],
            secret,
        };
        story.groups[0].results[0].verdict = Some(story.verdict(id(1)).id());
        story
    }

    fn verdict(&self, result: EventId) -> Signed<Verdict> {
        let body = Verdict {
            v: V1,
            job: id(8),
            award: id(9),
            result,
            provider: self.buyer.public_key(),
            model: ModelId::from_bytes([1; 32]),
            judgement: Judgement::Accepted,
            method: "m".into(),
            figures: [].into(),
            dtype: Dtype::F32,
            engine: "e".into(),
        };
        let unsigned =
            infernet_protocol::event::Body::to_unsigned(&body, self.checker.public_key(), at(2));
        Signed::verify(unsigned.sign_with_keys(&self.checker).unwrap()).unwrap()
    }

    /// What is found about one thing.
    fn found(&self, about: &str) -> Finding {
        let quote = signed(&self.quote, &self.aggregator, at(0));
        let order = Order {
            v: V1,
            aggregator: self.aggregator.public_key(),
            quote: Box::new(quote),
            relays: vec![],
        };
        let order: Signed<Order> = Signed::verify(signed(&order, &self.buyer, at(1))).unwrap();
        let settlement = |group: Option<SettledGroup>| {
            let secret = group.is_none().then_some(self.secret);
            let body = Settlement {
                v: V1,
                order: order.id(),
                buyer: self.buyer.public_key(),
                group,
                secret,
            };
            Signed::verify(signed(&body, &self.aggregator, at(3))).unwrap()
        };
        let groups = self.groups.iter().cloned().map(Some).chain([None]);
        let record = OrderRecord::of(order.clone(), groups.map(settlement), [self.verdict(id(1))]);
        let report = audit_order(&record);
        report
            .checks
            .iter()
            .find(|check| check.about == about)
            .unwrap()
            .finding
    }
}

#[test]
fn an_aggregator_that_kept_to_its_quote_is_proven_right() {
    let story = Story::new();
    for about in [
        "order", "groups", "charges", "total", "secret", "choice", "verdicts",
    ] {
        assert_eq!(story.found(about), Finding::Proven, "{about}");
    }
}

#[test]
fn every_breach_is_found() {
    type Spoil = fn(&mut Story);
    let breaches: [(&str, Spoil); 7] = [
        ("groups", |story| story.groups[1].number = 0),
        ("groups", |story| story.quote.size.lines = 5),
        ("charges", |story| story.groups[0].charge.fee_msat = Msat(2)),
        ("total", |story| {
            story.groups[0].charge.work_msat = Msat(500)
        }),
        ("secret", |story| {
            story.quote.commitment = Secret::from_bytes([255; 32]).commitment()
        }),
        ("choice", |story| story.groups[0].results[0].verdict = None),
        // It says that the chance was low, and the quote promised more.
        ("choice", |story| {
            story.quote.checking = Checking::Full;
            story.groups[1].results[0].chance_ppm = 1;
        }),
    ];
    for (about, spoil) in breaches {
        let mut story = Story::new();
        spoil(&mut story);
        assert_eq!(story.found(about), Finding::Wrong, "{about}");
    }
}

#[test]
fn a_verdict_on_another_result_does_not_count() {
    let mut story = Story::new();
    story.groups[1].results[0].verdict = story.groups[0].results[0].verdict;
    assert_eq!(story.found("verdicts"), Finding::Wrong);
    story.groups[1].results[0].verdict = Some(id(77));
    assert_eq!(story.found("verdicts"), Finding::NotProven);
}
