//! Any valid body of every kind.

mod batches;

use infernet_protocol::event::{
    Accepts, AnnouncedModel, Announcement, Attestation, Award, Basis, BatchShare, Bid, Body,
    Cancel, CancelReason, Capacity, Checkers, DeviceKind, Experience, Hardware, JobResult,
    Judgement, Limits, Load, Measured, Offer, Promise, Receipt, ReceiptSide, Status, TabTotals,
    Timing, Usage, V1, Verdict,
};
use infernet_protocol::inference::{Dtype, EndReason, ModelId, Task};
use infernet_protocol::money::{Msat, PaymentKind, PaymentTerms, Price};
use infernet_protocol::seal::{Digest, Sealed};
use infernet_protocol::tensor::{Element, Interface, Slot, Tensor};
use nostr::secp256k1::{PublicKey as NodeId, SECP256K1, SecretKey};
use nostr::{EventId, PublicKey, RelayUrl, Timestamp};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::parties::{self, NOW};

pub use batches::{
    aggregator, answer, checked, checks, every_generated, every_outcome, group, order, payout,
    question, quote, request, settlement, shard, thresholds,
};

const SAFE: u64 = infernet_protocol::bounds::MAX_SAFE_INTEGER;
const WEEK_MS: u64 = infernet_protocol::bounds::MAX_DURATION_MS;

fn name() -> impl Strategy<Value = String> {
    "\\PC{1,24}"
}

fn relays() -> impl Strategy<Value = Vec<RelayUrl>> {
    let address = "wss?://[a-z]{3,12}\\.example(:[1-9][0-9]{2})?(/[a-z]{0,8})?";
    vec(address.prop_map(|url| url.parse().unwrap()), 0..3)
}

fn event_id() -> impl Strategy<Value = EventId> {
    any::<[u8; 32]>().prop_map(EventId::from_byte_array)
}

fn model_id() -> impl Strategy<Value = ModelId> {
    any::<[u8; 32]>().prop_map(ModelId::from_bytes)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn later() -> impl Strategy<Value = Timestamp> {
    (1..10_000_000_u64).prop_map(|after| NOW + after)
}

fn task() -> impl Strategy<Value = Task> {
    proptest::sample::select(vec![
        Task::TextGeneration,
        Task::Embedding,
        Task::Tensors,
        Task::Verify,
    ])
}

fn dtype() -> impl Strategy<Value = Dtype> {
    proptest::sample::select(vec![
        Dtype::F32,
        Dtype::Bf16,
        Dtype::Int8,
        Dtype::Int4,
        Dtype::Scripted,
    ])
}

fn price() -> impl Strategy<Value = Price> {
    let part = || prop_oneof![Just(0_u64), 0..=SAFE];
    (part(), part()).prop_map(|(input_msat, output_msat)| Price {
        input_msat,
        output_msat,
    })
}

fn msat() -> impl Strategy<Value = Msat> {
    (0..=Msat::MAX.0).prop_map(Msat)
}

fn speed() -> impl Strategy<Value = f32> {
    prop_oneof![Just(0.0_f32), 0.0_f32..=f32::MAX, 0.0_f32..500.0]
}

fn promise() -> impl Strategy<Value = Promise> {
    (0..=WEEK_MS, speed()).prop_map(|(first_token_ms, tokens_per_s)| Promise {
        first_token_ms,
        tokens_per_s,
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    (0..16_777_216_u32, 0..131_072_u32).prop_map(|(input_tokens, output_tokens)| Limits {
        input_tokens,
        output_tokens,
    })
}

/// A Lightning node.
pub fn node() -> NodeId {
    let secret = SecretKey::from_slice(&[7; 32]);
    secret.unwrap().public_key(SECP256K1)
}

fn terms() -> impl Strategy<Value = PaymentTerms> {
    let tab = (msat(), any::<u32>(), option::of(Just(node()))).prop_map(
        |(min_payment_msat, prepaid_output_tokens, payee)| PaymentTerms::Tab {
            min_payment_msat,
            prepaid_output_tokens,
            payee,
        },
    );
    prop_oneof![Just(PaymentTerms::Free), Just(PaymentTerms::Escrow), tab]
}

fn payment_kind() -> impl Strategy<Value = PaymentKind> {
    terms().prop_map(|terms| terms.kind())
}

fn checkers() -> impl Strategy<Value = Checkers> {
    proptest::sample::select(vec![
        Checkers::Nobody,
        Checkers::Aggregator,
        Checkers::Market,
    ])
}

fn usage() -> impl Strategy<Value = Usage> {
    (0..=SAFE, 0..=SAFE, 0..=SAFE).prop_map(|(input_tokens, prefix_tokens, output_tokens)| Usage {
        input_tokens,
        prefix_tokens,
        output_tokens,
    })
}

fn sealed() -> impl Strategy<Value = Sealed> {
    let texts = ("[A-Za-z0-9+/]{0,200}", "[A-Za-z0-9+/]{1,200}");
    (texts, option::of(batches::blob())).prop_map(|((key, body), blob)| Sealed {
        key,
        body: if blob.is_some() { String::new() } else { body },
        blob,
    })
}

/// A payload that is in no blob.
pub fn in_a_body() -> Sealed {
    Sealed {
        key: "A".into(),
        body: "A".into(),
        blob: None,
    }
}

/// A tensor of any format that is what it says.
pub fn tensor() -> impl Strategy<Value = Tensor> {
    let shape = vec(0..4_u64, 0..4);
    (element(), shape, any::<u8>()).prop_map(|(dtype, shape, byte)| {
        let elements: u64 = shape.iter().product();
        let byte = if dtype == Element::Bool {
            byte % 2
        } else {
            byte
        };
        Tensor {
            name: "x.1".into(),
            dtype,
            data: vec![byte; elements as usize * dtype.bytes()],
            shape,
        }
    })
}

fn element() -> impl Strategy<Value = Element> {
    proptest::sample::select(vec![
        Element::F32,
        Element::F64,
        Element::F16,
        Element::Bf16,
        Element::U8,
        Element::I8,
        Element::I16,
        Element::I32,
        Element::I64,
        Element::Bool,
    ])
}

fn slots() -> impl Strategy<Value = Vec<Slot>> {
    let length = prop_oneof![Just(-1_i64), 1..=SAFE as i64];
    let slot = (element(), vec(length, 0..4));
    vec(slot, 1..3).prop_map(|slots| {
        let named = slots.into_iter().enumerate();
        let slot = |(n, (dtype, shape))| Slot {
            name: format!("slot-{n}"),
            dtype,
            shape,
        };
        named.map(slot).collect()
    })
}

fn interface(task: Task) -> impl Strategy<Value = Option<Interface>> {
    (name(), slots(), slots()).prop_map(move |(label, inputs, outputs)| {
        let interface = Interface {
            label,
            inputs,
            outputs,
        };
        (task == Task::Tensors).then_some(interface)
    })
}

fn announced_model() -> impl Strategy<Value = AnnouncedModel> {
    let task = task().prop_flat_map(|task| (Just(task), interface(task)));
    let what = (model_id(), name(), vec(name(), 0..3), task, dtype());
    let terms = (0..=16_777_216_u32, price(), promise(), any::<bool>());
    (what, terms).prop_map(
        |(
            (model, name, aliases, (task, interface), dtype),
            (context, price, promise, continues),
        )| {
            AnnouncedModel {
                interface,
                model,
                name,
                aliases,
                task,
                dtype,
                context,
                price,
                promise,
                continues,
            }
        },
    )
}

fn hardware() -> impl Strategy<Value = Hardware> {
    let device = prop_oneof![Just(DeviceKind::Cpu), Just(DeviceKind::Cuda)];
    (device, name(), 0..=SAFE).prop_map(|(device, name, memory_mib)| Hardware {
        device,
        name,
        memory_mib,
    })
}

/// By the provider.
pub fn announcement() -> impl Strategy<Value = Announcement> {
    let status = prop_oneof![
        Just(Status::Online),
        Just(Status::Busy),
        Just(Status::Offline)
    ];
    let who = (name(), name(), status, vec(announced_model(), 1..4));
    let load = (any::<[u32; 4]>(), hardware());
    let terms = (vec(terms(), 1..3), any::<bool>(), name(), relays(), later());
    (who, load, terms).prop_map(|((id, name, status, models), (counts, hardware), terms)| {
        let [slots, queue, running, queued] = counts;
        let (terms, direct, engine, relays, expires_at) = terms;
        Announcement {
            v: V1,
            id,
            name,
            status,
            models,
            hardware,
            capacity: Capacity { slots, queue },
            load: Load { running, queued },
            terms,
            direct,
            engine,
            relays,
            expires_at,
        }
    })
}

/// By the buyer.
pub fn offer() -> impl Strategy<Value = Offer> {
    let accepts = prop_oneof![
        model_id().prop_map(Accepts::Model),
        name().prop_map(Accepts::Name)
    ];
    let what = (task(), vec(accepts, 1..5), limits(), price(), msat());
    let how = (vec(payment_kind(), 1..4), checkers(), relays());
    let nonce = 0..=SAFE;
    (what, how, later(), 0..=10_000_u64, nonce).prop_map(|(what, how, bids_until, after, nonce)| {
        let (task, accepts, limits, max_price, budget_msat) = what;
        let (terms, checkers, relays) = how;
        Offer {
            v: V1,
            nonce,
            task,
            accepts,
            limits,
            max_price,
            budget_msat,
            terms,
            checkers,
            bids_until,
            deadline: bids_until + after,
            relays,
        }
    })
}

/// By the provider.
pub fn bid() -> impl Strategy<Value = Bid> {
    let what = (event_id(), model_id(), name(), dtype(), 0..=16_777_216_u32);
    let terms = (price(), promise(), terms(), any::<bool>(), later());
    (what, terms).prop_map(|((offer, model, name, dtype, context), terms)| {
        let (price, promise, terms, continues, expires_at) = terms;
        Bid {
            v: V1,
            offer,
            buyer: parties::buyer().public_key(),
            model,
            name,
            dtype,
            context,
            price,
            promise,
            terms,
            continues,
            expires_at,
        }
    })
}

/// By the buyer: on an offer and a bid, or on an announcement.
pub fn award() -> impl Strategy<Value = Award> {
    prop_oneof![auction_award(), direct_award()]
}

fn rest() -> impl Strategy<Value = Award> {
    let what = (1..=5_u32, msat(), limits(), checkers());
    let how = (later(), relays(), digest(), sealed());
    (what, how).prop_map(|((attempt, budget_msat, limits, checkers), how)| {
        let (deadline, relays, input_hash, input) = how;
        Award {
            v: V1,
            job: None,
            attempt,
            provider: parties::provider().public_key(),
            basis: Basis::Direct {
                announcement: Box::new(no_event()),
            },
            task: Task::Embedding,
            model: ModelId::from_bytes([0; 32]),
            price: Price::FREE,
            budget_msat,
            terms: PaymentKind::Free,
            limits,
            checkers,
            deadline,
            relays,
            input_hash,
            input,
        }
    })
}

/// An event to be replaced.
fn no_event() -> nostr::Event {
    let cancel = Cancel {
        v: V1,
        job: EventId::all_zeros(),
        award: None,
        counterparty: None,
        reason: CancelReason::Stopped,
        detail: String::new(),
    };
    parties::event(&cancel, &parties::stranger())
}

/// A way to pay that goes with a price.
fn fitting(terms: PaymentTerms, price: &Price) -> PaymentTerms {
    match terms {
        PaymentTerms::Free if !price.is_free() => PaymentTerms::Escrow,
        terms => terms,
    }
}

pub fn auction_award() -> impl Strategy<Value = Award> {
    (rest(), offer(), bid()).prop_map(|(award, mut offer, mut bid)| {
        offer.max_price.input_msat = offer.max_price.input_msat.max(bid.price.input_msat);
        offer.max_price.output_msat = offer.max_price.output_msat.max(bid.price.output_msat);
        bid.terms = fitting(bid.terms, &bid.price);
        let offered = parties::event(&offer, &parties::buyer());
        bid.offer = offered.id;
        Award {
            job: Some(offered.id),
            task: offer.task,
            model: bid.model,
            price: bid.price,
            terms: bid.terms.kind(),
            basis: Basis::Auction {
                offer: Box::new(offered),
                bid: Box::new(parties::event(&bid, &parties::provider())),
            },
            ..award
        }
    })
}

pub fn direct_award() -> impl Strategy<Value = Award> {
    (rest(), announcement(), option::of(event_id())).prop_map(|(award, mut announcement, job)| {
        let model = announcement.models[0].clone();
        let terms = fitting(announcement.terms[0], &model.price);
        announcement.direct = true;
        announcement.terms[0] = terms;
        Award {
            job,
            attempt: if job.is_some() { award.attempt } else { 1 },
            task: model.task,
            model: model.model,
            price: model.price,
            terms: terms.kind(),
            basis: Basis::Direct {
                announcement: Box::new(parties::event(&announcement, &parties::provider())),
            },
            ..award
        }
    })
}

/// By the provider.
pub fn result() -> impl Strategy<Value = JobResult> {
    let what = (event_id(), event_id(), 1..=5_u32, model_id(), dtype());
    let ended = prop_oneof![
        Just((EndReason::Stop, None)),
        Just((EndReason::Length, None)),
        Just((EndReason::Cancelled, None)),
        name().prop_map(|error| (EndReason::Failed, Some(error))),
    ];
    let timing = (0..=WEEK_MS, 0..=WEEK_MS, 0..=WEEK_MS);
    let output = (name(), usage(), timing, msat(), digest(), sealed());
    (what, ended, output).prop_map(|(what, (ended, error), output)| {
        let (job, award, attempt, model, dtype) = what;
        let (engine, usage, timing, due_msat, output_hash, output) = output;
        JobResult {
            v: V1,
            job,
            award,
            attempt,
            buyer: parties::buyer().public_key(),
            ended,
            error,
            model,
            dtype,
            engine,
            usage,
            timing: Timing {
                queued_ms: timing.0,
                first_token_ms: timing.1,
                total_ms: timing.2,
            },
            due_msat,
            output_hash,
            output,
        }
    })
}

/// By the provider, or by the buyer: the other side is always the stranger.
pub fn receipt() -> impl Strategy<Value = Receipt> {
    let what = (event_id(), event_id(), 1..=5_u32, option::of(event_id()));
    let side = prop_oneof![Just(ReceiptSide::Buyer), Just(ReceiptSide::Provider)];
    let tab = (msat(), msat()).prop_map(|(due_msat, paid_msat)| TabTotals {
        due_msat,
        paid_msat,
    });
    let money = (
        usage(),
        msat(),
        msat(),
        vec(digest(), 0..5),
        option::of(tab),
    );
    (what, side, money).prop_map(|((job, award, attempt, result), side, money)| Receipt {
        v: V1,
        job,
        award,
        attempt,
        result,
        side,
        counterparty: parties::stranger().public_key(),
        usage: money.0,
        due_msat: money.1,
        paid_msat: money.2,
        payments: money.3,
        tab: money.4,
    })
}

/// By anybody but the provider.
pub fn verdict() -> impl Strategy<Value = Verdict> {
    let what = (event_id(), event_id(), event_id(), model_id());
    let judgement = prop_oneof![
        Just(Judgement::Accepted),
        Just(Judgement::Inconclusive),
        Just(Judgement::Rejected)
    ];
    let figure = any::<f64>().prop_filter("figures are finite", |f| f.is_finite());
    let how = (name(), btree_map(name(), figure, 0..6), dtype(), name());
    (what, judgement, how).prop_map(|((job, award, result, model), judgement, how)| Verdict {
        v: V1,
        job,
        award,
        result,
        provider: parties::provider().public_key(),
        model,
        judgement,
        method: how.0,
        figures: how.1,
        dtype: how.2,
        engine: how.3,
    })
}

/// By anybody but the provider and the buyer.
pub fn attestation() -> impl Strategy<Value = Attestation> {
    let what = (event_id(), event_id(), option::of(event_id()), model_id());
    let experience = proptest::sample::select(vec![
        Experience::Completed,
        Experience::Failed,
        Experience::Silent,
        Experience::Invalid,
        Experience::Rejected,
    ]);
    let measured = (0..=WEEK_MS, speed(), 0..=SAFE).prop_map(
        |(first_token_ms, tokens_per_s, output_tokens)| Measured {
            first_token_ms,
            tokens_per_s,
            output_tokens,
        },
    );
    let share = msat().prop_map(|fee_msat| BatchShare {
        fee_msat,
        ..share()
    });
    let links = (event_id(), option::of(event_id()), option::of(share));
    let how = (promise(), option::of(measured), msat(), links);
    (what, option::of(event_id()), experience, how).prop_map(|(what, receipt, experience, how)| {
        let (promised, measured, paid_msat, (result, verdict, batch)) = how;
        Attestation {
            v: V1,
            job: what.0,
            award: what.1,
            result: match experience {
                Experience::Completed | Experience::Rejected => Some(result),
                _ => what.2,
            },
            verdict: match experience {
                Experience::Rejected => Some(result),
                Experience::Completed => verdict,
                _ => None,
            },
            batch,
            receipt,
            provider: parties::provider().public_key(),
            model: what.3,
            experience,
            promised,
            measured,
            paid_msat,
        }
    })
}

/// The buyer's.
pub fn share() -> BatchShare {
    BatchShare {
        order: EventId::all_zeros(),
        buyer: parties::buyer().public_key(),
        fee_msat: Msat(1),
    }
}

/// By either side.
pub fn cancel() -> impl Strategy<Value = Cancel> {
    let reason = proptest::sample::select(vec![
        CancelReason::Stopped,
        CancelReason::Deadline,
        CancelReason::Silent,
        CancelReason::Invalid,
        CancelReason::Restarted,
        CancelReason::NoProvider,
    ]);
    let other = option::of(Just(parties::provider().public_key()));
    (
        event_id(),
        option::of(event_id()),
        other,
        reason,
        "\\PC{0,60}",
    )
        .prop_map(
            |(job, award, counterparty, reason, detail): (_, _, Option<PublicKey>, _, _)| Cancel {
                v: V1,
                job,
                award,
                counterparty,
                reason,
                detail,
            },
        )
}

/// Whether a body fits in its event, however strange its names.
pub fn fits<B: Body>(body: &B) -> bool {
    serde_json::to_string(body).unwrap().len() <= B::MAX_CONTENT_BYTES
}

/// One of them, always the same.
pub fn one<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> T {
    let mut runner = TestRunner::deterministic();
    strategy.new_tree(&mut runner).unwrap().current()
}
