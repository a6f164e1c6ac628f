//! What the audit says of honest receipts, and of each lie.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use infernet_payments::PaymentHash;
use infernet_protocol::event::{JobResult, Receipt, ReceiptSide, Signed, TabTotals, Usage, V1};
use infernet_protocol::kinds;
use infernet_protocol::money::Msat;
use infernet_protocol::seal::Salt;
use nostr::{Event, EventId, Keys};

use super::salted;
use crate::audit::story::Story;
use crate::audit::{Evidence, Finding, Report, audit};
use crate::market::tests::{at, signed};
use crate::record::Record;

/// What the story's only attempt costs: ten tokens in, three out.
const COST: Msat = Msat(13_000);
const PAID: Msat = Msat(20_000);

/// A paid job of which each test spoils something.
struct Paid {
    story: Story,
    ours: Option<Receipt>,
    theirs: Option<Receipt>,
    /// Whether the attestation names our receipt, and says what it says.
    is_attested: bool,
    more: Vec<Event>,
    evidence: Evidence,
}

impl Paid {
    fn new() -> Self {
        let story = Story::paid();
        let award = story.signed_award();
        let payments = [(hash(1), Msat(14_000)), (hash(2), Msat(6_000))];
        let before = Receipt {
            award: EventId::all_zeros(),
            result: None,
            due_msat: Msat(7_000),
            paid_msat: Msat::ZERO,
            payments: vec![],
            tab: tab(7_000, 10_000),
            ..receipt(&story, ReceiptSide::Buyer)
        };
        let before = signed(&before, &story.buyer, at(1));
        let evidence = Evidence {
            payments: HashMap::from([(award.id(), payments.to_vec())]),
            receipts: vec![Signed::verify(before).unwrap()],
            ..Evidence::default()
        };
        Self {
            ours: Some(receipt(&story, ReceiptSide::Buyer)),
            theirs: Some(receipt(&story, ReceiptSide::Provider)),
            is_attested: true,
            more: vec![],
            evidence,
            story,
        }
    }

    fn ours(&mut self) -> &mut Receipt {
        self.ours.as_mut().unwrap()
    }

    fn theirs(&mut self) -> &mut Receipt {
        self.theirs.as_mut().unwrap()
    }

    fn events(&self) -> Vec<Event> {
        let (buyer, provider) = (&self.story.buyer, &self.story.provider);
        let ours = self.ours.as_ref().map(|ours| signed(ours, buyer, at(3)));
        let mut story = self.story.events();
        if let (true, Some(receipt)) = (self.is_attested, &ours) {
            let mut attestation = self.story.attestation.clone();
            attestation.receipt = attestation.receipt.or(Some(receipt.id));
            let paid = self.ours.as_ref().unwrap().paid_msat;
            attestation.paid_msat.0 += paid.0;
            let last = story.last_mut().unwrap();
            *last = signed(&attestation, buyer, at(4));
        }
        let theirs = self.theirs.as_ref();
        story.extend(ours);
        story.extend(theirs.map(|theirs| signed(theirs, provider, at(3))));
        story.extend(self.more.clone());
        story
    }

    fn report(&self, keys: Option<&Keys>) -> Report {
        let record = Record::of(self.story.job(), self.events());
        audit(&record, keys, &self.evidence)
    }
}

fn hash(byte: u8) -> PaymentHash {
    PaymentHash::from_bytes([byte; 32])
}

fn tab(due: u64, paid: u64) -> Option<TabTotals> {
    Some(TabTotals {
        due_msat: Msat(due),
        paid_msat: Msat(paid),
    })
}

/// What an honest side states.
fn receipt(story: &Story, side: ReceiptSide) -> Receipt {
    let award = story.signed_award();
    let (author, other) = match side {
        ReceiptSide::Buyer => (&story.buyer, &story.provider),
        ReceiptSide::Provider => (&story.provider, &story.buyer),
    };
    let result = story.events().into_iter();
    let mut result = result.filter(|event| event.kind.as_u16() == kinds::RESULT);
    let result = Signed::<JobResult>::verify(result.next().unwrap()).unwrap();
    // The story's own.
    let salt = Salt::from_bytes([1; 32]);
    let named = |byte| salted(&hash(byte), &salt, &award.id(), &author.public_key());
    Receipt {
        v: V1,
        job: award.job_id(),
        award: award.id(),
        attempt: 1,
        result: Some(result.id()),
        side,
        counterparty: other.public_key(),
        usage: result.usage,
        due_msat: COST,
        paid_msat: PAID,
        payments: vec![named(1), named(2)],
        tab: tab(20_000, 30_000),
    }
}

/// What the buyer finds wrong, and what not proven, once something is spoilt.
fn found(spoil: impl Fn(&mut Paid)) -> (Vec<&'static str>, Vec<&'static str>) {
    let mut paid = Paid::new();
    spoil(&mut paid);
    let report = paid.report(Some(&paid.story.buyer));
    let about = |finding| {
        let checks = report.checks.iter().filter(|c| c.finding == finding);
        checks.map(|check| check.about).collect()
    };
    (about(Finding::Wrong), about(Finding::NotProven))
}

fn wrong(spoil: impl Fn(&mut Paid)) -> Vec<&'static str> {
    found(spoil).0
}

#[test]
fn honest_receipts_prove_everything_to_the_buyer() {
    assert_eq!(found(|_| {}), (vec![], vec![]));
}

#[test]
fn who_has_no_ledger_proves_all_but_the_payments() {
    let paid = Paid::new();
    let report = paid.report(Some(&paid.story.provider));
    let open = report
        .checks
        .iter()
        .filter(|c| c.finding != Finding::Proven);
    let open: Vec<_> = open.map(|check| (check.about, check.finding)).collect();
    assert_eq!(open, [("payments", Finding::NotProven)]);
}

#[test]
fn two_sides_that_do_not_agree_are_named() {
    // For the same result.
    let usage = Usage {
        input_tokens: 10,
        prefix_tokens: 0,
        output_tokens: 2,
    };
    assert_eq!(
        wrong(|paid| {
            paid.theirs().usage = usage;
            paid.theirs().due_msat = Msat(12_000);
        }),
        ["receipts", "charge"],
        "and the result says otherwise"
    );
    // Who was cut short may count less.
    let (lies, open) = found(|paid| {
        paid.ours().usage = usage;
        paid.ours().due_msat = Msat(12_000);
        paid.ours().result = None;
        paid.ours().tab = tab(19_000, 30_000);
    });
    assert_eq!((lies, open), (vec![], vec!["receipts"]));
    assert_eq!(
        wrong(|paid| paid.theirs().due_msat = Msat(14_000)),
        ["receipts", "charge"]
    );
    // One payment may have been under way.
    assert!(wrong(|paid| paid.theirs().paid_msat = Msat(14_000)).is_empty());
}

#[test]
fn a_charge_is_the_price_times_the_tokens_within_the_budget_and_the_results() {
    let dear = |receipt: &mut Receipt| receipt.due_msat = Msat(13_001);
    assert_eq!(
        wrong(|paid| {
            dear(paid.ours());
            dear(paid.theirs());
            paid.ours().tab = tab(20_001, 30_000);
        }),
        ["charge", "charge"]
    );
    let more = |receipt: &mut Receipt| {
        receipt.usage.output_tokens = 20;
        receipt.due_msat = Msat(30_000);
        receipt.tab = tab(37_000, 40_000);
        receipt.result = None;
    };
    assert_eq!(
        wrong(|paid| {
            more(paid.ours());
            more(paid.theirs());
        }),
        ["charge", "charge"],
        "over the budget"
    );
}

#[test]
fn a_side_that_signs_twice_is_wrong() {
    let twice = |paid: &mut Paid| {
        let mut other = paid.theirs().clone();
        other.paid_msat = Msat(1);
        paid.more = vec![signed(&other, &paid.story.provider, at(4))];
    };
    assert_eq!(wrong(twice), ["receipts"]);
}

#[test]
fn a_receipt_that_is_missing_proves_nothing() {
    assert_eq!(found(|p| p.theirs = None), (vec![], vec!["receipts"]));
    let (lies, open) = found(|paid| {
        paid.ours = None;
        paid.is_attested = false;
    });
    assert_eq!((lies, open), (vec![], vec!["receipts"]));
}

#[test]
fn payments_that_the_ledger_does_not_have_are_wrong_and_late_ones_are_not() {
    let invented = |paid: &mut Paid| {
        let other = paid.ours().payments[0];
        paid.ours().payments[1] = other;
        paid.evidence.payments.values_mut().for_each(Vec::clear);
    };
    assert_eq!(wrong(invented), ["payments"]);
    let late = |paid: &mut Paid| {
        for payments in paid.evidence.payments.values_mut() {
            payments.push((hash(3), Msat(5_000)));
        }
    };
    assert_eq!(found(late), (vec![], vec!["payments"]));
    let nowhere = |paid: &mut Paid| paid.evidence.payments.clear();
    assert_eq!(found(nowhere), (vec![], vec!["payments"]));
}

#[test]
fn a_tabs_totals_hold_the_attempt_and_follow_from_the_one_before() {
    assert_eq!(wrong(|p| p.ours().tab = tab(12_999, 30_000)), ["tab"]);
    assert_eq!(wrong(|p| p.ours().tab = tab(20_000, 19_999)), ["tab"]);
    // It begins before the one before has ended.
    assert_eq!(wrong(|p| p.ours().tab = tab(19_999, 30_000)), ["tab"]);
    let gap = |paid: &mut Paid| paid.ours().tab = tab(25_000, 30_000);
    assert_eq!(found(gap), (vec![], vec!["tab"]));
    let unsaid = |paid: &mut Paid| paid.ours().tab = None;
    assert_eq!(found(unsaid), (vec![], vec!["tab"]));
    let alone = |paid: &mut Paid| paid.evidence.receipts.clear();
    assert_eq!(found(alone), (vec![], vec!["tab"]));
}

#[test]
fn a_rating_says_what_its_receipt_says() {
    let more = |paid: &mut Paid| paid.story.attestation.paid_msat = Msat(1);
    assert_eq!(wrong(more), ["paid"]);
    let other = |paid: &mut Paid| paid.story.attestation.receipt = Some(EventId::all_zeros());
    assert_eq!(wrong(other), ["paid"]);
    let none = |paid: &mut Paid| paid.is_attested = false;
    assert_eq!(found(none), (vec![], vec!["paid"]));
}
