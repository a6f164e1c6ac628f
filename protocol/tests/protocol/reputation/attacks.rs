//! What it costs to deceive somebody who trusts an honest aggregator: the table of
//! `nips/reputation.md` is computed here.

use super::*;
use crate::documents::{document, table};

/// What the aggregator attests of jobs that were completed for one buyer.
fn deals(buyer: u64, fee_msat: u64, jobs: u64) -> Vec<Signed<Attestation>> {
    let aggregator = named("aggregator");
    let buyer_key = named(&format!("buyer {buyer}")).public_key();
    let one = |job| {
        let award = 1_000_000 * (buyer + 1) + job;
        let attestation = Attestation {
            batch: Some(BatchShare {
                order: id(buyer),
                buyer: buyer_key,
                fee_msat: Msat(fee_msat / jobs),
            }),
            ..said(award, Experience::Completed)
        };
        signed(&attestation, &aggregator, 0)
    };
    (0..jobs).map(one).collect()
}

fn score(attestations: &[Signed<Attestation>]) -> f64 {
    seen(attestations, &[&named("aggregator"), &named("reader")]).score
}

/// The score of so many buyers that have paid so much each, for so many jobs each.
fn ring(buyers: u64, fee_msat: u64, jobs: u64) -> f64 {
    let all: Vec<_> = (0..buyers).flat_map(|b| deals(b, fee_msat, jobs)).collect();
    score(&all)
}

/// What so many buyers must pay in all for a score, if they can: they need the worth of
/// so many completed jobs but one, and share alike.
fn price(buyers: u64, wanted: f64) -> Option<u64> {
    let good = (4.0 * wanted - 1.0) / (1.0 - wanted) - 1.0;
    let each = good / buyers as f64;
    if each > 8.0 {
        assert!(ring(buyers, 1_000_000_000_000, 10) < wanted);
        return None;
    }
    let jobs = each.ceil() as u64 + 1;
    let fee = ((each.exp2() - 1.0) * 10_000.0 / jobs as f64).ceil() as u64 * jobs;
    assert!(ring(buyers, fee, jobs) >= wanted - 1e-9);
    assert!(ring(buyers, fee * 98 / 100, jobs) < wanted, "a bargain");
    Some(fee * buyers)
}

/// A key that has done a hundred jobs for the reader, ten days ago.
fn old_key(then: Experience, times: u64) -> f64 {
    let reader = named("reader");
    let honest = (0..100).map(|n| attests(&reader, n, Experience::Completed, 10 * DAY_S));
    let later = (0..times).map(|n| attests(&reader, 100 + n, then, 0));
    score(&honest.chain(later).collect::<Vec<_>>())
}

/// In thousands of msat, as the document rounds it.
fn rounded(msat: Option<u64>) -> String {
    match msat {
        Some(msat) => format!("{},000", msat.div_ceil(1_000)),
        None => "out of reach".into(),
    }
}

#[test]
fn cost_what_the_document_says() {
    let rows = table(&document("reputation.md"), "What attacks cost");
    let expected: Vec<Vec<String>> = [1, 10, 100]
        .into_iter()
        .map(|buyers| {
            let row = [0.5, 0.7, 0.9].map(|wanted| rounded(price(buyers, wanted)));
            std::iter::once(buyers.to_string()).chain(row).collect()
        })
        .collect();
    assert_eq!(rows, expected);
}

/// Whatever the ring is, a completed job's worth costs at least ln 2 of a unit.
#[test]
fn no_ring_is_cheaper_than_the_bound() {
    let bound = |good: f64| good * std::f64::consts::LN_2 * 10_000.0;
    for (wanted, good) in [(0.5, 1.0), (0.7, 5.0)] {
        for buyers in [1, 3, 30] {
            let least = price(buyers, wanted).map_or(f64::INFINITY, |msat| msat as f64);
            assert!(least >= bound(good), "{buyers}: {least}");
        }
    }
}

#[test]
fn one_buyer_has_a_bound_and_free_work_next_to_nothing() {
    near(ring(1, 100_000_000_000, 10), 10.0 / 13.0);
    near(ring(50, 0, 1), 2.0 / 5.0);
    let ring: Vec<_> = (0..50)
        .map(|n| attests(&named(&format!("{n}")), n, Experience::Completed, 0))
        .collect();
    let standing = seen(&ring, &[&named("aggregator")]);
    near(standing.score, 0.25);
    assert_eq!((standing.counted, standing.ignored), (0, 50));
}

/// A ring cannot hide failures: a buyer that paid nothing counts against it too.
#[test]
fn failures_count_without_fees() {
    let aggregator = named("aggregator");
    let failed = |n| {
        let attestation = Attestation {
            batch: Some(BatchShare {
                order: id(n),
                buyer: named(&format!("victim {n}")).public_key(),
                fee_msat: Msat::ZERO,
            }),
            ..said(n, Experience::Failed)
        };
        signed(&attestation, &aggregator, 0)
    };
    let mut all: Vec<_> = (0..10).flat_map(|b| deals(b, 10_000, 2)).collect();
    let before = score(&all);
    all.extend((0..30).map(failed));
    assert!(score(&all) < before * 0.8, "{} of {before}", score(&all));
}

#[test]
fn a_bought_old_key_falls_as_the_document_says() {
    let rows = table(&document("reputation.md"), "A key that turns");
    let percent = |score: f64| format!("{score:.2}");
    let expected = [
        (Experience::Completed, 0, "nothing"),
        (Experience::Silent, 10, "is silent ten times"),
        (Experience::Silent, 100, "is silent a hundred times"),
        (Experience::Invalid, 10, "sends ten invalid answers"),
        (Experience::Rejected, 1, "has one answer rejected"),
        (Experience::Rejected, 2, "has two rejected"),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(then, times, what)| vec![what.to_owned(), percent(old_key(then, times))])
        .collect();
    assert_eq!(rows, expected);
}

/// Who was caught is no better than a fresh key, for months.
#[test]
fn one_rejection_undoes_all_that_was_earned() {
    let fresh = score(&[]);
    assert!(old_key(Experience::Rejected, 1) <= fresh);
    let reader = named("reader");
    let rejected = attests(&reader, 0, Experience::Rejected, 180 * DAY_S);
    let since = (1..1_000).map(|n| attests(&reader, n, Experience::Completed, 0));
    let later: Vec<_> = since.chain([rejected]).collect();
    let later = score(&later);
    assert!((0.45..0.55).contains(&later), "{later} after half a year");
}

/// As many as honest work can have by mistake cost nothing.
#[test]
fn one_error_in_a_thousand_is_forgiven() {
    let reader = named("reader");
    let checked = |n| {
        let attestation = Attestation {
            verdict: Some(id(n)),
            ..said(n, Experience::Completed)
        };
        signed(&attestation, &reader, 0)
    };
    let mut all: Vec<_> = (0..1_000).map(checked).collect();
    all.push(attests(&reader, 1_000, Experience::Rejected, 0));
    assert!(score(&all) > 0.99, "{}", score(&all));
    all.push(attests(&reader, 1_001, Experience::Rejected, 0));
    all.push(attests(&reader, 1_002, Experience::Rejected, 0));
    assert!(score(&all) < 0.3, "{}", score(&all));
}
