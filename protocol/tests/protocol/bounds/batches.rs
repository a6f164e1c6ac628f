//! Of what is said about batches.

use infernet_protocol::batch::{Answer, Ask, Done, LineOutcome, Lines, Phase, Question, Reply};
use infernet_protocol::bounds::*;
use infernet_protocol::event::{
    Accepts, Aggregator, Attestation, Checkers, Checking, Experience, Order, Quote, Settlement,
};
use infernet_protocol::inference::Task;
use infernet_protocol::money::{Msat, PaymentKind};
use infernet_protocol::payload::{Control, Generated, Input, Output, Payload, Payout, Product};
use infernet_protocol::payload::{Proof, Vector, Wish, Work};
use infernet_protocol::seal::Salt;
use nostr::{EventId, Timestamp};

use super::{bound, bound_in_bytes, of_bytes, passes, relays};
use crate::generate::{self, one};
use crate::parties::{NOW, buyer, event, provider, stranger};

#[test]
fn of_an_aggregator() {
    let by = stranger();
    let small = Aggregator {
        name: "n".into(),
        tasks: vec![Task::Embedding],
        ..one(generate::aggregator())
    };
    let of = |bound_at, change: fn(&mut Aggregator, u64)| bound(&small, &by, bound_at, change);
    of(MAX_NAME_BYTES as u64, |a, n| a.name = of_bytes(n as usize));
    of(MAX_NAME_BYTES as u64, |a, n| {
        a.software = of_bytes(n as usize);
    });
    of(MAX_FEE_PPM.into(), |a, n| a.fee_ppm = n as u32);
    of(Msat::MAX.0, |a, n| a.max_hold_msat = Msat(n));
    of(MAX_DURATION_MS / 1_000, |a, n| a.hold_s = n);
    of(MAX_ACCEPTED_MODELS as u64, |a, n| {
        a.tasks = vec![Task::Embedding; n as usize];
    });
    of(MAX_ACCEPTED_MODELS as u64, |a, n| {
        a.checkers = vec![provider().public_key(); n as usize];
    });
    of(MAX_BLOB_SERVERS as u64, |a, n| {
        a.blobs = vec!["https://blobs.example".into(); n as usize];
    });
    of(MAX_RELAYS as u64, |a, n| a.relays = relays(n as usize));
    of(MAX_TIMESTAMP, |a, n| a.expires_at = Timestamp::from_secs(n));
    let with = |change: fn(&mut Aggregator)| {
        let mut body = small.clone();
        change(&mut body);
        passes(&body, &by)
    };
    assert!(with(|_| ()));
    assert!(!with(|a| a.tasks.clear()));
    assert!(!with(|a| a.expires_at = NOW));
    assert!(!with(|a| a.blobs = vec!["file:///etc".into()]));
    bound_in_bytes(&small, &by, MAX_ANNOUNCEMENT_BYTES);
}

#[test]
fn of_a_quote() {
    let by = stranger();
    let small = Quote {
        accepts: vec![Accepts::Name("m".into())],
        terms: PaymentKind::Escrow,
        checkers: Checkers::Market,
        checking: Checking::Full,
        ..one(generate::quote())
    };
    let of = |bound_at, change: fn(&mut Quote, u64)| bound(&small, &by, bound_at, change);
    of(MAX_SAFE_INTEGER, |q, n| q.nonce = n);
    of(MAX_SAFE_INTEGER, |q, n| q.size.lines = n);
    of(MAX_SAFE_INTEGER, |q, n| q.price.output_msat = n);
    of(MAX_SAFE_INTEGER, |q, n| q.seconds = n);
    of(MAX_FEE_PPM.into(), |q, n| q.fee_ppm = n as u32);
    of(10_000_000, |q, n| q.checking_ppm = n as u32);
    of(Msat::MAX.0, |q, n| q.most_msat = Msat(n));
    of(1_000_000, |q, n| {
        q.checking = Checking::Adaptive {
            least_ppm: n as u32,
        };
    });
    of(MAX_ACCEPTED_MODELS as u64, |q, n| {
        q.accepts = vec![Accepts::Name("m".into()); n as usize];
    });
    of(MAX_RELAYS as u64, |q, n| q.relays = relays(n as usize));
    of(MAX_TIMESTAMP, |q, n| q.deadline = Timestamp::from_secs(n));
    of(small.deadline.as_secs(), |q, n| {
        q.valid_until = Timestamp::from_secs(n);
    });
    let with = |change: fn(&mut Quote)| {
        let mut body = small.clone();
        change(&mut body);
        passes(&body, &by)
    };
    assert!(with(|_| ()));
    assert!(!with(|q| q.accepts.clear()));
    assert!(!with(|q| q.size.lines = 0));
    assert!(!with(|q| q.valid_until = NOW));
    assert!(!with(|q| q.terms = PaymentKind::Tab));
    assert!(!with(|q| q.buyer = stranger().public_key()));
    assert!(!with(|q| q.checking = Checking::None), "the market checks");
    assert!(!with(|q| q.checkers = Checkers::Nobody), "nobody checks");
    let free = |most_msat| Quote {
        terms: PaymentKind::Free,
        most_msat,
        ..small.clone()
    };
    assert!(passes(&free(Msat::ZERO), &by));
    assert!(!passes(&free(Msat(1)), &by), "free, at a price");
    bound_in_bytes(&small, &by, 2 * MAX_TERMS_BYTES);
}

#[test]
fn of_an_order() {
    let quote = one(generate::quote());
    let order = |quote: &Quote, by: &nostr::Keys| Order {
        quote: Box::new(event(quote, by)),
        relays: vec![],
        ..one(generate::order())
    };
    let (by, whose) = (buyer(), stranger());
    let good = order(&quote, &whose);
    assert!(passes(&good, &by));
    assert!(!passes(&good, &provider()), "the quote is for another");
    assert!(!passes(&order(&quote, &provider()), &by), "by another");
    let invalid = Quote {
        checking_ppm: u32::MAX,
        ..quote.clone()
    };
    assert!(!passes(&order(&invalid, &whose), &by));
    bound(&good, &by, MAX_RELAYS as u64, |o, n| {
        o.relays = relays(n as usize);
    });
    let mut forged = good.clone();
    forged.quote.content = forged.quote.content.replace("\"v\":1", "\"v\": 1");
    assert!(!passes(&forged, &by), "the quote's signature");
    use infernet_protocol::event::Body as _;
    let at = |when| {
        let unsigned = good.to_unsigned(by.public_key(), when);
        infernet_protocol::event::check(&unsigned.sign_with_keys(&by).unwrap()).is_ok()
    };
    assert!(at(quote.valid_until));
    assert!(!at(quote.valid_until + 1), "the quote had run out");
    bound_in_bytes(&good, &by, MAX_RECORD_BYTES);
}

/// A settlement of a group, to be changed.
fn of_a_group() -> Settlement {
    let mut settlement = one(generate::settlement());
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    use proptest::strategy::{Strategy as _, ValueTree as _};
    while settlement.group.is_none() {
        let tree = generate::settlement().new_tree(&mut runner);
        settlement = tree.unwrap().current();
    }
    settlement
}

#[test]
fn of_a_settlement() {
    let by = stranger();
    let small = of_a_group();
    let mut group = small.group.clone().unwrap();
    (group.lines, group.accepted) = (1, 1);
    (group.inconclusive, group.failed) = (0, 0);
    group.results = vec![generate::checked()];
    let with = |change: &dyn Fn(&mut infernet_protocol::event::SettledGroup)| {
        let mut group = group.clone();
        change(&mut group);
        let body = Settlement {
            group: Some(group),
            ..small.clone()
        };
        passes(&body, &by)
    };
    assert!(with(&|_| ()));
    for (number, holds) in [(MAX_GROUPS - 1, true), (MAX_GROUPS, false)] {
        assert_eq!(with(&|g| g.number = number), holds);
    }
    for (lines, holds) in [(MAX_GROUP_LINES, true), (MAX_GROUP_LINES + 1, false)] {
        assert_eq!(with(&|g| (g.lines, g.accepted) = (lines, lines)), holds);
    }
    assert!(!with(&|g| g.lines = 2), "lines that nobody speaks of");
    assert!(
        !with(&|g| (g.accepted, g.failed) = (u32::MAX, 2)),
        "an overflow"
    );
    for (results, holds) in [(MAX_GROUP_RESULTS, true), (MAX_GROUP_RESULTS + 1, false)] {
        assert_eq!(
            with(&|g| g.results = vec![generate::checked(); results]),
            holds
        );
    }
    for (ppm, holds) in [(1_000_000, true), (1_000_001, false)] {
        assert_eq!(with(&|g| g.results[0].chance_ppm = ppm), holds);
    }
    assert!(!with(&|g| g.taken_msat = Msat(Msat::MAX.0 + 1)));
    assert!(!with(&|g| g.charge.fee_msat = Msat(Msat::MAX.0 + 1)));
    let nothing = Settlement {
        group: None,
        secret: None,
        ..small.clone()
    };
    assert!(!passes(&nothing, &by));
    assert!(!passes(&small, &buyer()), "with itself");
    bound_in_bytes(&small, &by, MAX_EVENT_BYTES / 2);
}

#[test]
fn of_an_attestation_of_checked_work() {
    let by = stranger();
    let said = Attestation {
        experience: Experience::Rejected,
        result: Some(EventId::all_zeros()),
        verdict: Some(EventId::all_zeros()),
        batch: Some(generate::share()),
        ..one(generate::attestation())
    };
    let with = |change: fn(&mut Attestation)| {
        let mut body = said.clone();
        change(&mut body);
        passes(&body, &by)
    };
    assert!(with(|_| ()));
    assert!(!with(|a| a.verdict = None), "who rejects names the verdict");
    assert!(!with(|a| a.result = None));
    assert!(!with(|a| a.experience = Experience::Silent), "nothing came");
    assert!(!passes(&said, &buyer()), "who ordered it of itself");
    bound(&said, &by, Msat::MAX.0, |a, n| {
        a.batch = Some(infernet_protocol::event::BatchShare {
            fee_msat: Msat(n),
            ..generate::share()
        });
    });
}

fn is_read<P: Payload + PartialEq>(payload: &P) -> bool {
    P::from_bytes(&payload.to_bytes()).is_ok_and(|read| read == *payload)
}

#[test]
fn of_questions() {
    let order = Some(EventId::all_zeros());
    let asks = |order, ask| {
        is_read(&Question {
            number: 1,
            order,
            ask,
        })
    };
    let group = |change: fn(&mut infernet_protocol::batch::Group)| {
        let mut group = one(generate::group());
        change(&mut group);
        asks(order, Ask::Group(group))
    };
    assert!(group(|_| ()));
    assert!(group(|g| g.size.lines = MAX_GROUP_LINES.into()));
    assert!(!group(|g| g.size.lines = u64::from(MAX_GROUP_LINES) + 1));
    assert!(group(|g| g.number = MAX_GROUPS - 1));
    assert!(!group(|g| g.number = MAX_GROUPS));
    assert!(!group(|g| g.input.bytes = MAX_BLOB_BYTES + 1));
    assert!(!group(|g| g.input.servers.clear()));
    assert!(!group(|g| g.input.servers = vec!["ftp://x.example".into()]));
    assert!(!group(|g| {
        g.input.servers = vec!["https://x.example".into(); MAX_BLOB_SERVERS + 1];
    }));
    let fetched = |group| asks(order, Ask::Fetched { group });
    assert!(fetched(MAX_GROUPS - 1) && !fetched(MAX_GROUPS));
    let refund = |bytes| {
        let invoice = of_bytes(bytes);
        asks(order, Ask::Refund { invoice })
    };
    assert!(refund(MAX_INVOICE_BYTES) && !refund(MAX_INVOICE_BYTES + 1));
    assert!(asks(order, Ask::Stop) && !asks(None, Ask::Stop));
    let number = |number| {
        is_read(&Question {
            number,
            order,
            ask: Ask::Standing,
        })
    };
    assert!(number(MAX_SAFE_INTEGER) && !number(MAX_SAFE_INTEGER + 1));
}

#[test]
fn of_answers() {
    let order = Some(EventId::all_zeros());
    let says = |order, reply| {
        is_read(&Answer {
            number: None,
            order,
            reply,
        })
    };
    let refused = |bytes| Reply::Refused {
        reason: of_bytes(bytes),
    };
    assert!(says(None, refused(MAX_REASON_BYTES)));
    assert!(!says(None, refused(MAX_REASON_BYTES + 1)));
    assert!(says(order, Reply::Refunding) && !says(None, Reply::Refunding));
    let group = |phase| {
        let progress = infernet_protocol::batch::Progress::default();
        let number = 1;
        let standing = infernet_protocol::batch::GroupStanding {
            number,
            phase,
            progress,
        };
        says(order, Reply::Group(standing))
    };
    assert!(group(Phase::Working));
    let invoice = |bytes| Phase::Unpaid {
        invoice: of_bytes(bytes),
    };
    assert!(group(invoice(MAX_INVOICE_BYTES)) && !group(invoice(MAX_INVOICE_BYTES + 1)));
    let reason = |bytes| Phase::Cancelled {
        reason: of_bytes(bytes),
    };
    assert!(group(reason(MAX_REASON_BYTES)) && !group(reason(MAX_REASON_BYTES + 1)));
}

#[test]
fn of_lines_and_outcomes() {
    let line = || Work::TextGeneration(generate::request());
    let lines = |n: usize| -> Lines { vec![line(); n] };
    assert!(is_read(&lines(MAX_GROUP_LINES as usize)));
    assert!(!is_read(&lines(MAX_GROUP_LINES as usize + 1)));
    assert!(!is_read(&lines(0)));
    let mut continued = generate::request();
    continued.prefix = vec![1];
    for odd in [
        Work::TextGeneration(continued),
        generate::shard(),
        generate::checks(),
        Work::Tensors { inputs: vec![] },
        Work::Embedding { texts: vec![] },
    ] {
        assert!(!is_read::<Lines>(&vec![line(), odd]));
    }
    let done = |outcome| is_read::<Done>(&vec![outcome]);
    assert!(is_read::<Done>(&generate::every_outcome()));
    let failed = |bytes| LineOutcome::Failed {
        reason: of_bytes(bytes),
    };
    assert!(done(failed(MAX_REASON_BYTES)) && !done(failed(MAX_REASON_BYTES + 1)));
    let vectors = |n| LineOutcome::Vectors {
        vectors: vec![Vector(vec![1.0]); n],
        input_tokens: 1,
    };
    assert!(done(vectors(MAX_TEXTS)) && !done(vectors(MAX_TEXTS + 1)));
    let mut contradictory = generate::every_generated().remove(0);
    contradictory.error = Some("it failed".into());
    assert!(!done(LineOutcome::Text(contradictory)));
}

#[test]
fn of_shards_and_checks() {
    let salt = Salt::from_bytes([1; 32]);
    let input = |work| {
        is_read(&Input {
            salt,
            work,
            prove: true,
        })
    };
    let shard = |n| Work::Shard {
        requests: vec![generate::request(); n],
    };
    assert!(input(shard(MAX_REQUESTS)) && !input(shard(MAX_REQUESTS + 1)));
    assert!(!input(shard(0)));
    let checks = |n: usize, clip| {
        let Work::Verify { checks, .. } = generate::checks() else {
            panic!("these are checks");
        };
        let mut thresholds = generate::thresholds();
        thresholds.greedy.clip = clip;
        Work::Verify {
            checks: vec![checks[0].clone(); n],
            thresholds,
        }
    };
    assert!(input(checks(MAX_CHECKS, 8.0)) && !input(checks(MAX_CHECKS + 1, 8.0)));
    assert!(!input(checks(0, 8.0)) && !input(checks(1, -1.0)));
    let output = |answers: Vec<Generated>, proofs| {
        is_read(&Output {
            salt,
            product: Product::Shard { answers },
            proofs,
        })
    };
    let answer = generate::every_generated().remove(0);
    assert!(output(vec![answer.clone(); MAX_REQUESTS], vec![]));
    assert!(!output(vec![answer; MAX_REQUESTS + 1], vec![]));
    assert!(output(vec![], vec![Proof(vec![1; MAX_PROOF_BYTES])]));
    assert!(!output(vec![], vec![Proof(vec![1; MAX_PROOF_BYTES + 1])]));
    assert!(!output(vec![], vec![Proof(vec![1]); MAX_REQUESTS + 1]));
}

#[test]
fn of_payouts() {
    let with = |change: fn(&mut Payout)| {
        let mut payout = generate::payout();
        change(&mut payout);
        is_read(&Control {
            award: EventId::all_zeros(),
            wish: Wish::Payout(payout),
        })
    };
    assert!(with(|_| ()));
    assert!(!with(|p| p.pay_msat = Msat(5)), "it does not add up");
    assert!(!with(|p| p.accepted_msat = Msat(u64::MAX)));
    assert!(with(
        |p| p.rejected = vec![EventId::all_zeros(); MAX_REJECTED]
    ));
    assert!(!with(
        |p| p.rejected = vec![EventId::all_zeros(); MAX_REJECTED + 1]
    ));
}
