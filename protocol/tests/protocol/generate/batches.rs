//! What is said about batches.

use infernet_protocol::batch::{
    Answer, Ask, Blob, BlobKey, Charge, Delivery, Group, GroupStanding, LineOutcome, Phase,
    Progress, Question, Reply, Size, Standing, Wanted,
};
use infernet_protocol::bounds::*;
use infernet_protocol::event::{
    Accepts, Aggregator, CheckedResult, Checkers, Checking, Order, Quote, SettledGroup, Settlement,
    V1,
};
use infernet_protocol::inference::{EndReason, Prompt, Sampling};
use infernet_protocol::money::{Msat, PaymentKind};
use infernet_protocol::payload::{Check, Generate, Generated, PayloadKey, Payout, Vector, Work};
use infernet_protocol::verification::{Activations, Margins, Secret, Thresholds};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{
    award, checkers, digest, event_id, later, model_id, msat, name, one, price, relays, result,
    task,
};
use crate::parties;

const SAFE: u64 = MAX_SAFE_INTEGER;

fn servers() -> impl Strategy<Value = Vec<String>> {
    vec("https?://[a-z]{3,12}\\.example(:[1-9][0-9]{2})?", 1..=4)
}

pub fn blob() -> impl Strategy<Value = Blob> {
    let parts = (digest(), 0..=MAX_BLOB_BYTES, servers());
    parts.prop_map(|(sha256, bytes, servers)| Blob {
        sha256,
        bytes,
        servers,
    })
}

fn accepts() -> impl Strategy<Value = Vec<Accepts>> {
    let accepts = prop_oneof![
        model_id().prop_map(Accepts::Model),
        name().prop_map(Accepts::Name)
    ];
    vec(accepts, 1..5)
}

fn size(lines: u64) -> impl Strategy<Value = Size> {
    (1..=lines, 0..=SAFE, 0..=SAFE, 0..=SAFE).prop_map(
        |(lines, input_tokens, output_tokens, longest)| Size {
            lines,
            input_tokens,
            output_tokens,
            longest,
        },
    )
}

/// Who checks, and how much.
fn checks_of_a_batch() -> impl Strategy<Value = (Checkers, Checking)> {
    let some = prop_oneof![
        Just(Checking::Full),
        (0..=1_000_000_u32).prop_map(|least_ppm| Checking::Adaptive { least_ppm }),
    ];
    (checkers(), some).prop_map(|(checkers, some)| match checkers {
        Checkers::Nobody => (checkers, Checking::None),
        Checkers::Aggregator | Checkers::Market => (checkers, some),
    })
}

/// By the stranger.
pub fn aggregator() -> impl Strategy<Value = Aggregator> {
    let keys = || Just(parties::provider().public_key());
    let what = (name(), name(), vec(task(), 1..4), 0..=MAX_FEE_PPM, msat());
    let how = (0..=604_800_u64, vec(keys(), 0..3), option::of(keys()));
    let place = (servers(), relays(), name(), later());
    (what, how, place).prop_map(|(what, (hold_s, checkers, ranks), place)| {
        let (id, name, tasks, fee_ppm, max_hold_msat) = what;
        let (blobs, relays, software, expires_at) = place;
        Aggregator {
            v: V1,
            id,
            name,
            tasks,
            fee_ppm,
            max_hold_msat,
            hold_s,
            checkers,
            ranks,
            blobs,
            relays,
            software,
            expires_at,
        }
    })
}

/// By the stranger, for the buyer.
pub fn quote() -> impl Strategy<Value = Quote> {
    let what = (0..=SAFE, task(), accepts(), size(SAFE), price());
    let cost = (0..=MAX_FEE_PPM, 0..=10_000_000_u32, msat(), any::<bool>());
    let how = (checks_of_a_batch(), digest(), 0..=SAFE, relays());
    let when = (later(), 0..=10_000_u64);
    (what, cost, how, when).prop_map(|(what, cost, how, (valid_until, after))| {
        let (nonce, task, accepts, size, price) = what;
        let (fee_ppm, checking_ppm, most_msat, is_free) = cost;
        let ((checkers, checking), commitment, seconds, relays) = how;
        Quote {
            v: V1,
            nonce,
            buyer: parties::buyer().public_key(),
            task,
            accepts,
            size,
            price,
            fee_ppm,
            checking_ppm,
            most_msat: if is_free { Msat::ZERO } else { most_msat },
            terms: match is_free {
                true => PaymentKind::Free,
                false => PaymentKind::Escrow,
            },
            checkers,
            checking,
            commitment,
            seconds,
            valid_until,
            deadline: valid_until + after,
            relays,
        }
    })
}

/// By the buyer, of the stranger.
pub fn order() -> impl Strategy<Value = Order> {
    (quote(), relays()).prop_map(|(quote, relays)| Order {
        v: V1,
        aggregator: parties::stranger().public_key(),
        quote: Box::new(parties::event(&quote, &parties::stranger())),
        relays,
    })
}

fn charge() -> impl Strategy<Value = Charge> {
    (msat(), msat(), msat()).prop_map(|(work_msat, checking_msat, fee_msat)| Charge {
        work_msat,
        checking_msat,
        fee_msat,
    })
}

fn settled_group() -> impl Strategy<Value = SettledGroup> {
    let checked = (event_id(), 0..=1_000_000_u32, option::of(event_id()));
    let checked = checked.prop_map(|(result, chance_ppm, verdict)| CheckedResult {
        result,
        chance_ppm,
        verdict,
    });
    let lines = (0..1_000_u32, 0..1_000_u32, 0..1_000_u32);
    let money = (charge(), msat(), option::of(digest()));
    (0..MAX_GROUPS, lines, money, vec(checked, 0..5)).prop_map(
        |(number, (accepted, inconclusive, failed), money, results)| SettledGroup {
            number,
            lines: accepted + inconclusive + failed,
            accepted,
            inconclusive,
            failed,
            charge: money.0,
            taken_msat: money.1,
            payment: money.2,
            results,
        },
    )
}

/// A result that was checked.
pub fn checked() -> CheckedResult {
    CheckedResult {
        result: nostr::EventId::all_zeros(),
        chance_ppm: 1,
        verdict: Some(nostr::EventId::all_zeros()),
    }
}

/// By the stranger: of a group, or the last.
pub fn settlement() -> impl Strategy<Value = Settlement> {
    let secret = any::<[u8; 32]>().prop_map(Secret::from_bytes);
    let what = prop_oneof![
        settled_group().prop_map(|group| (Some(group), None)),
        secret.prop_map(|secret| (None, Some(secret))),
    ];
    (event_id(), what).prop_map(|(order, (group, secret))| Settlement {
        v: V1,
        order,
        buyer: parties::buyer().public_key(),
        group,
        secret,
    })
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let what = (task(), accepts(), size(SAFE), option::of(price()));
    (what, checks_of_a_batch(), later()).prop_map(|(what, (checkers, checking), deadline)| Wanted {
        task: what.0,
        accepts: what.1,
        size: what.2,
        max_price: what.3,
        checkers,
        checking,
        deadline,
    })
}

fn key() -> impl Strategy<Value = BlobKey> {
    any::<[u8; 32]>().prop_map(BlobKey::from_bytes)
}

pub fn group() -> impl Strategy<Value = Group> {
    let parts = (0..MAX_GROUPS, size(MAX_GROUP_LINES.into()), blob(), key());
    parts.prop_map(|(number, size, input, key)| Group {
        number,
        size,
        input,
        key,
    })
}

/// By the buyer.
pub fn question() -> impl Strategy<Value = Question> {
    let early = prop_oneof![
        wanted().prop_map(Ask::Quote),
        order().prop_map(|order| Ask::Order {
            event: Box::new(parties::event(&order, &parties::buyer())),
        }),
    ];
    let late = prop_oneof![
        group().prop_map(Ask::Group),
        (0..MAX_GROUPS).prop_map(|group| Ask::Fetched { group }),
        Just(Ask::Standing),
        name().prop_map(|invoice| Ask::Refund { invoice }),
        Just(Ask::Stop),
    ];
    let ask = prop_oneof![
        early.prop_map(|ask| (None, ask)),
        (event_id(), late).prop_map(|(order, ask)| (Some(order), ask)),
    ];
    (0..=SAFE, ask).prop_map(|(number, (order, ask))| Question { number, order, ask })
}

fn progress() -> impl Strategy<Value = Progress> {
    let lines = (0..=SAFE, 0..=SAFE, 0..=SAFE, 0..=SAFE, 0..=SAFE);
    (lines, msat(), option::of(0..=SAFE)).prop_map(|(lines, cost_msat, seconds_left)| Progress {
        lines: lines.0,
        running: lines.1,
        done: lines.2,
        verified: lines.3,
        failed: lines.4,
        cost_msat,
        seconds_left,
    })
}

fn phase() -> impl Strategy<Value = Phase> {
    let delivery = || (blob(), charge()).prop_map(|(output, charge)| Delivery { output, charge });
    prop_oneof![
        name().prop_map(|invoice| Phase::Unpaid { invoice }),
        Just(Phase::Working),
        delivery().prop_map(Phase::Delivered),
        (delivery(), key()).prop_map(|(delivery, preimage)| Phase::Settled { delivery, preimage }),
        name().prop_map(|reason| Phase::Cancelled { reason }),
    ]
}

/// By the stranger.
pub fn answer() -> impl Strategy<Value = Answer> {
    let group = (0..MAX_GROUPS, phase(), progress());
    let group = group.prop_map(|(number, phase, progress)| GroupStanding {
        number,
        phase,
        progress,
    });
    let standing = (progress(), msat(), 0..=MAX_GROUPS, msat(), any::<bool>());
    let standing = standing.prop_map(|(progress, credit_msat, groups_at_once, most, closed)| {
        Reply::Standing(Standing {
            progress,
            credit_msat,
            groups_at_once,
            max_hold_msat: most,
            closed,
        })
    });
    let refused = || name().prop_map(|reason| Reply::Refused { reason });
    let quoted = quote().prop_map(|quote| Reply::Quoted {
        event: Box::new(parties::event(&quote, &parties::stranger())),
    });
    let early = prop_oneof![quoted, refused()];
    let late = prop_oneof![
        group.prop_map(Reply::Group),
        standing,
        Just(Reply::Refunding),
        refused()
    ];
    let reply = prop_oneof![
        early.prop_map(|reply| (None, reply)),
        (event_id(), late).prop_map(|(order, reply)| (Some(order), reply)),
    ];
    (option::of(0..=SAFE), reply).prop_map(|(number, (order, reply))| Answer {
        number,
        order,
        reply,
    })
}

pub fn request() -> Generate {
    Generate {
        prompt: Prompt::Text("x".into()),
        sampling: Sampling::default(),
        max_tokens: 1,
        stop: vec![],
        prefix: vec![],
    }
}

pub fn shard() -> Work {
    Work::Shard {
        requests: vec![request()],
    }
}

/// Of one result.
pub fn checks() -> Work {
    let check = Check {
        award: Box::new(parties::event(&one(award()), &parties::buyer())),
        result: Box::new(parties::event(&one(result()), &parties::provider())),
        input_key: PayloadKey::from_bytes([1; 32]),
        output_key: PayloadKey::from_bytes([2; 32]),
    };
    Work::Verify {
        checks: vec![check],
        thresholds: thresholds(),
    }
}

pub fn thresholds() -> Thresholds {
    let margins = Margins {
        clip: 8.0,
        accept: 0.05,
        reject: 0.2,
        window: 0.5,
        pooled: 0.02,
    };
    Thresholds {
        sampled: margins,
        greedy: margins,
        activations: Activations {
            exponents: 38.0,
            worst_exponents: 60.0,
            mantissa_mean: 10.0,
            mantissa_median: 8.0,
        },
        least_cosine: 0.99,
    }
}

/// One that was done and one that was not.
pub fn every_generated() -> Vec<Generated> {
    let done = Generated {
        text: "x".into(),
        tokens: vec![7],
        input_tokens: 1,
        ended: EndReason::Stop,
        error: None,
    };
    let failed = Generated {
        ended: EndReason::Failed,
        error: Some("it is too long".into()),
        ..done.clone()
    };
    vec![done, failed]
}

pub fn every_outcome() -> Vec<LineOutcome> {
    let mut outcomes: Vec<_> = every_generated()
        .into_iter()
        .map(LineOutcome::Text)
        .collect();
    outcomes.push(LineOutcome::Vectors {
        vectors: vec![Vector(vec![1.0])],
        input_tokens: 1,
    });
    outcomes.push(LineOutcome::Failed {
        reason: "nobody can".into(),
    });
    outcomes
}

pub fn payout() -> Payout {
    Payout {
        rejected: vec![nostr::EventId::all_zeros()],
        accepted_msat: Msat(10),
        bond_msat: Msat(1),
        forfeited_msat: Msat(2),
        paid_msat: Msat(3),
        pay_msat: Msat(4),
    }
}
