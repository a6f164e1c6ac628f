//! What is at its bound passes; one more is refused.

mod batches;
mod payloads;

use infernet_protocol::bounds::*;
use infernet_protocol::event::{
    Accepts, Announcement, Attestation, Award, Bid, Body, Cancel, JobResult, Offer, Receipt,
    Refusal, Status, TabTotals, Verdict, check, encoded_len,
};
use infernet_protocol::money::{Msat, PaymentKind, PaymentTerms, Price};
use infernet_protocol::seal::Digest;
use nostr::{Keys, RelayUrl, Tag, Timestamp};

use crate::generate::{self, one};
use crate::parties::{NOW, buyer, event, provider, stranger};

fn passes<B: Body>(body: &B, author: &Keys) -> bool {
    check(&event(body, author)).is_ok()
}

fn of_bytes(bytes: usize) -> String {
    "n".repeat(bytes)
}

fn relays(count: usize) -> Vec<RelayUrl> {
    let url = |n| format!("wss://relay{n}.example").parse().unwrap();
    (0..count).map(url).collect()
}

fn relay_of_bytes(bytes: usize) -> RelayUrl {
    let start = "wss://relay.example/";
    format!("{start}{}", of_bytes(bytes - start.len()))
        .parse()
        .unwrap()
}

/// `change(at the bound)` passes, `change(one more)` does not.
fn bound<B: Body + Clone>(body: &B, author: &Keys, bound: u64, change: impl Fn(&mut B, u64)) {
    let changed = |value| {
        let mut body = body.clone();
        change(&mut body, value);
        event(&body, author)
    };
    assert_eq!(check(&changed(bound)), Ok(()), "at {bound}");
    assert!(check(&changed(bound + 1)).is_err(), "over {bound}");
}

/// The smallest announcement there is to change.
fn small() -> Announcement {
    let mut announcement = one(generate::announcement());
    announcement.models.truncate(1);
    announcement.models[0].name = "m".into();
    announcement.models[0].aliases.clear();
    announcement.relays.clear();
    announcement.name = "n".into();
    announcement.status = Status::Online;
    announcement
}

#[test]
fn of_an_announcement() {
    let by = provider();
    let len = |n: u64| of_bytes(n as usize);
    let name = MAX_NAME_BYTES as u64;
    bound(&small(), &by, name, |a, n| a.id = len(n));
    bound(&small(), &by, name, |a, n| a.name = len(n));
    bound(&small(), &by, name, |a, n| a.engine = len(n));
    bound(&small(), &by, name, |a, n| a.hardware.name = len(n));
    bound(&small(), &by, name, |a, n| a.models[0].name = len(n));
    bound(&small(), &by, name, |a, n| {
        a.models[0].aliases = vec![len(n)]
    });
    bound(&small(), &by, MAX_ACCEPTED_MODELS as u64, |a, n| {
        a.models[0].aliases = vec!["a".into(); n as usize];
    });
    bound(&small(), &by, MAX_ACCEPTED_MODELS as u64, |a, n| {
        a.terms = vec![PaymentTerms::Escrow; n as usize];
    });
    bound(&small(), &by, MAX_RELAYS as u64, |a, n| {
        a.relays = relays(n as usize)
    });
    bound(&small(), &by, MAX_RELAY_URL_BYTES as u64, |a, n| {
        a.relays = vec![relay_of_bytes(n as usize)];
    });
    bound(&small(), &by, MAX_CONTEXT_TOKENS.into(), |a, n| {
        a.models[0].context = n as u32
    });
    bound(&small(), &by, MAX_SAFE_INTEGER, |a, n| {
        a.models[0].price.input_msat = n
    });
    bound(&small(), &by, MAX_SAFE_INTEGER, |a, n| {
        a.models[0].price.output_msat = n
    });
    bound(&small(), &by, MAX_DURATION_MS, |a, n| {
        a.models[0].promise.first_token_ms = n;
    });
    bound(&small(), &by, MAX_SAFE_INTEGER, |a, n| {
        a.hardware.memory_mib = n
    });
    bound(&small(), &by, Msat::MAX.0, |a, n| {
        a.terms = vec![PaymentTerms::Tab {
            min_payment_msat: Msat(n),
            prepaid_output_tokens: u32::MAX,
            payee: Some(generate::node()),
        }];
    });
    bound(&small(), &by, MAX_TIMESTAMP, |a, n| {
        a.expires_at = Timestamp::from_secs(n)
    });
}

#[test]
fn of_what_an_announcement_sells() {
    let by = provider();
    let mut tiny = small();
    tiny.models[0].price = Price::FREE;
    tiny.models[0].promise.first_token_ms = 1;
    tiny.models[0].promise.tokens_per_s = 1.0;
    bound(&tiny, &by, MAX_MODELS as u64, |a, n| {
        a.models = vec![a.models[0].clone(); n as usize];
    });
    let nothing = Announcement {
        models: vec![],
        ..small()
    };
    assert!(!passes(&nothing, &by));
    let gone = Announcement {
        status: Status::Offline,
        ..nothing
    };
    assert!(passes(&gone, &by), "who says goodbye sells nothing");
    let free_of_terms = Announcement {
        terms: vec![],
        ..small()
    };
    assert!(!passes(&free_of_terms, &by));
    let over = Announcement {
        expires_at: NOW,
        ..small()
    };
    assert!(!passes(&over, &by));
}

#[test]
fn of_an_offer() {
    let by = buyer();
    let offer = Offer {
        accepts: vec![Accepts::Name("m".into())],
        ..one(generate::offer())
    };
    let len = |n: u64| of_bytes(n as usize);
    bound(&offer, &by, MAX_SAFE_INTEGER, |o, n| o.nonce = n);
    bound(&offer, &by, MAX_NAME_BYTES as u64, |o, n| {
        o.accepts = vec![Accepts::Name(len(n))]
    });
    bound(&offer, &by, MAX_ACCEPTED_MODELS as u64, |o, n| {
        o.accepts = vec![Accepts::Name("m".into()); n as usize];
    });
    bound(&offer, &by, MAX_ACCEPTED_MODELS as u64, |o, n| {
        o.terms = vec![PaymentKind::Tab; n as usize];
    });
    bound(&offer, &by, MAX_CONTEXT_TOKENS.into(), |o, n| {
        o.limits.input_tokens = n as u32
    });
    bound(&offer, &by, MAX_OUTPUT_TOKENS.into(), |o, n| {
        o.limits.output_tokens = n as u32
    });
    bound(&offer, &by, MAX_SAFE_INTEGER, |o, n| {
        o.max_price.input_msat = n
    });
    bound(&offer, &by, Msat::MAX.0, |o, n| o.budget_msat = Msat(n));
    bound(&offer, &by, MAX_RELAYS as u64, |o, n| {
        o.relays = relays(n as usize)
    });
    bound(&offer, &by, MAX_TIMESTAMP, |o, n| {
        o.deadline = Timestamp::from_secs(n)
    });
    bound(&offer, &by, offer.deadline.as_secs(), |o, n| {
        o.bids_until = Timestamp::from_secs(n)
    });
    assert!(!passes(
        &Offer {
            accepts: vec![],
            ..offer.clone()
        },
        &by
    ));
    assert!(!passes(
        &Offer {
            terms: vec![],
            ..offer.clone()
        },
        &by
    ));
    assert!(!passes(
        &Offer {
            deadline: NOW,
            bids_until: NOW,
            ..offer
        },
        &by
    ));
}

#[test]
fn of_a_bid_a_result_a_receipt_and_the_others() {
    let len = |n: u64| of_bytes(n as usize);
    let name = MAX_NAME_BYTES as u64;
    let reason = MAX_REASON_BYTES as u64;

    let bid = one(generate::bid());
    bound(&bid, &provider(), name, |b, n| b.name = len(n));
    bound(&bid, &provider(), MAX_CONTEXT_TOKENS.into(), |b, n| {
        b.context = n as u32
    });
    bound(&bid, &provider(), MAX_TIMESTAMP, |b, n| {
        b.expires_at = Timestamp::from_secs(n)
    });
    bound(&bid, &provider(), Msat::MAX.0, |b, n| {
        b.terms = PaymentTerms::Tab {
            min_payment_msat: Msat(n),
            prepaid_output_tokens: 0,
            payee: None,
        };
    });
    assert!(!passes(
        &Bid {
            expires_at: NOW,
            ..bid
        },
        &provider()
    ));

    let result = JobResult {
        ended: infernet_protocol::inference::EndReason::Failed,
        error: Some("e".into()),
        output: generate::in_a_body(),
        ..one(generate::result())
    };
    bound(&result, &provider(), reason, |r, n| r.error = Some(len(n)));
    bound(&result, &provider(), name, |r, n| r.engine = len(n));
    bound(&result, &provider(), MAX_ATTEMPTS.into(), |r, n| {
        r.attempt = n as u32
    });
    bound(&result, &provider(), MAX_SAFE_INTEGER, |r, n| {
        r.usage.output_tokens = n
    });
    bound(&result, &provider(), MAX_DURATION_MS, |r, n| {
        r.timing.total_ms = n
    });
    bound(&result, &provider(), Msat::MAX.0, |r, n| {
        r.due_msat = Msat(n)
    });
    bound(&result, &provider(), 256, |r, n| r.output.key = len(n));
    bound(&result, &provider(), 54_704, |r, n| r.output.body = len(n));
    assert!(!passes(
        &JobResult {
            attempt: 0,
            ..result
        },
        &provider()
    ));

    let receipt = one(generate::receipt());
    bound(&receipt, &buyer(), MAX_PAYMENTS as u64, |r, n| {
        r.payments = vec![Digest::from_bytes([1; 32]); n as usize];
    });
    bound(&receipt, &buyer(), MAX_ATTEMPTS.into(), |r, n| {
        r.attempt = n as u32
    });
    bound(&receipt, &buyer(), Msat::MAX.0, |r, n| {
        r.paid_msat = Msat(n)
    });
    bound(&receipt, &buyer(), Msat::MAX.0, |r, n| {
        r.tab = Some(TabTotals {
            due_msat: Msat(n),
            paid_msat: Msat::ZERO,
        });
    });
    bound(&receipt, &buyer(), Msat::MAX.0, |r, n| {
        r.tab = Some(TabTotals {
            due_msat: Msat::ZERO,
            paid_msat: Msat(n),
        });
    });
    assert!(!passes(
        &Receipt {
            attempt: 0,
            ..receipt
        },
        &buyer()
    ));

    let verdict = one(generate::verdict());
    bound(&verdict, &buyer(), MAX_FIGURES as u64, |v, n| {
        v.figures = (0..n).map(|n| (format!("f{n}"), 1.0)).collect();
    });
    bound(&verdict, &buyer(), name, |v, n| v.method = len(n));
    bound(&verdict, &buyer(), name, |v, n| {
        v.figures = [(len(n), 0.5)].into()
    });

    let attestation = Attestation {
        experience: infernet_protocol::event::Experience::Completed,
        result: Some(nostr::EventId::all_zeros()),
        ..one(generate::attestation())
    };
    bound(&attestation, &stranger(), Msat::MAX.0, |a, n| {
        a.paid_msat = Msat(n)
    });
    bound(&attestation, &stranger(), MAX_DURATION_MS, |a, n| {
        a.promised.first_token_ms = n
    });
    assert!(!passes(
        &Attestation {
            result: None,
            ..attestation
        },
        &stranger()
    ));

    let cancel = one(generate::cancel());
    bound(&cancel, &buyer(), reason, |c, n| c.detail = len(n));
}

#[test]
fn of_an_award() {
    let by = buyer();
    let award = Award {
        job: Some(nostr::EventId::all_zeros()),
        ..one(generate::direct_award())
    };
    bound(&award, &by, MAX_ATTEMPTS.into(), |a, n| {
        a.attempt = n as u32
    });
    bound(&award, &by, MAX_OUTPUT_TOKENS.into(), |a, n| {
        a.limits.output_tokens = n as u32
    });
    bound(&award, &by, Msat::MAX.0, |a, n| a.budget_msat = Msat(n));
    bound(&award, &by, MAX_RELAYS as u64, |a, n| {
        a.relays = relays(n as usize)
    });
    bound(&award, &by, MAX_TIMESTAMP, |a, n| {
        a.deadline = Timestamp::from_secs(n)
    });
    assert!(!passes(
        &Award {
            attempt: 0,
            ..award.clone()
        },
        &by
    ));
    assert!(!passes(
        &Award {
            deadline: NOW,
            ..award.clone()
        },
        &by
    ));
    let nameless = Award {
        job: None,
        attempt: 2,
        ..award
    };
    assert!(!passes(&nameless, &by), "a later attempt names its job");
}

/// Content is bounded by its bytes as they came: here JSON with spaces behind it.
fn padded<B: Body>(body: &B, author: &Keys, bytes: usize) -> Result<(), Refusal> {
    let mut unsigned = body.to_unsigned(author.public_key(), NOW);
    let missing = bytes - unsigned.content.len();
    unsigned.content.push_str(&" ".repeat(missing));
    check(&unsigned.sign_with_keys(author).unwrap())
}

fn bound_in_bytes<B: Body>(body: &B, author: &Keys, bytes: usize) {
    assert_eq!(B::MAX_CONTENT_BYTES, bytes);
    assert_eq!(padded(body, author, bytes), Ok(()));
    assert!(matches!(
        padded(body, author, bytes + 1),
        Err(Refusal::TooLarge { .. })
    ));
}

#[test]
fn of_contents() {
    bound_in_bytes(&small(), &provider(), MAX_ANNOUNCEMENT_BYTES);
    bound_in_bytes(&one(generate::offer()), &buyer(), MAX_TERMS_BYTES);
    bound_in_bytes(&one(generate::bid()), &provider(), MAX_TERMS_BYTES);
    bound_in_bytes(&one(generate::receipt()), &buyer(), MAX_RECORD_BYTES);
    bound_in_bytes(&one(generate::verdict()), &buyer(), MAX_RECORD_BYTES);
    bound_in_bytes(&one(generate::attestation()), &stranger(), MAX_RECORD_BYTES);
    bound_in_bytes(&one(generate::cancel()), &buyer(), MAX_RECORD_BYTES);
}

#[test]
fn of_any_event() {
    let cancel = one(generate::cancel());
    let with_tags = |count: usize, tag: &[String]| {
        let mut unsigned = cancel.to_unsigned(provider().public_key(), NOW);
        let mut tags = unsigned.tags.to_vec();
        while tags.len() < count {
            tags.push(Tag::parse(tag).unwrap());
        }
        unsigned.tags = nostr::Tags::from_list(tags);
        unsigned.sign_with_keys(&provider()).unwrap()
    };
    let short = ["x".to_owned()];
    assert_eq!(check(&with_tags(MAX_TAGS, &short)), Ok(()));
    assert!(check(&with_tags(MAX_TAGS + 1, &short)).is_err());
    let long = ["x".to_owned(), of_bytes(MAX_EVENT_BYTES)];
    let refused = check(&with_tags(8, &long));
    assert!(
        matches!(refused, Err(Refusal::TooLarge { .. })),
        "{refused:?}"
    );
    let unsigned = cancel.to_unsigned(provider().public_key(), Timestamp::from_secs(u64::MAX));
    let late = unsigned.sign_with_keys(&provider()).unwrap();
    assert!(check(&late).is_err(), "an event from beyond all calendars");
}

#[test]
fn control_characters_reach_no_terminal() {
    for odd in ["\u{1b}[2J", "a\nb", "\u{7f}", "\u{9b}"] {
        let named = |change: fn(&mut Announcement, String)| {
            let mut announcement = small();
            change(&mut announcement, odd.into());
            passes(&announcement, &provider())
        };
        assert!(!named(|a, text| a.name = text));
        assert!(!named(|a, text| a.models[0].name = text));
        assert!(!named(|a, text| a.hardware.name = text));
        let cancel = Cancel {
            detail: odd.into(),
            ..one(generate::cancel())
        };
        assert!(!passes(&cancel, &provider()));
        let verdict = Verdict {
            method: odd.into(),
            ..one(generate::verdict())
        };
        assert!(!passes(&verdict, &buyer()));
    }
}

#[test]
fn the_length_of_an_event_is_that_of_its_json() {
    use nostr::JsonUtil as _;
    let event = event(&one(generate::bid()), &provider());
    assert_eq!(encoded_len(&event), event.as_json().len());
}
