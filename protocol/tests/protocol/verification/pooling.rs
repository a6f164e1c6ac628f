//! Many results' figures: what the pool catches, and whom it leaves alone.

use infernet_protocol::verification::{POOL_LIMIT, Pool, Texts};

use super::{THRESHOLDS, drawn, even};

/// A text of 64 tokens of which every `n`th is another's, by this margin.
fn every(n: u64, margin: f32, at: u64) -> Texts {
    let margin = |token| match (at * 64 + token) % n {
        0 => margin,
        _ => 0.0,
    };
    Texts::of(&[drawn((0..64).map(margin).collect())], &THRESHOLDS)
}

/// Results until the pool rejects, if it does within so many.
fn until_rejected(most: u64, result: impl Fn(u64) -> Texts) -> Option<u64> {
    let mut pool = Pool::default();
    (0..most).find(|&at| {
        pool = pool.with(&result(at), &THRESHOLDS);
        pool.is_rejected()
    })
}

#[test]
fn a_mean_a_little_too_high_is_rejected_in_time() {
    // One token in 64 by 2: twice the greatest honest mean; each alone is accepted.
    let rejected = until_rejected(1_000, |at| every(64, 2.0, at));
    assert!(rejected.is_some_and(|results| results < 50), "{rejected:?}");
}

#[test]
fn an_honest_mean_is_never_rejected() {
    assert_eq!(until_rejected(10_000, |at| every(128, 1.0, at)), None);
}

#[test]
fn an_honest_past_buys_no_credit() {
    let mut pool = Pool::default();
    for _ in 0..10_000 {
        pool = pool.with(&Texts::of(&[even(64, 0.0)], &THRESHOLDS), &THRESHOLDS);
    }
    assert_eq!(pool.evidence, 0.0);
    assert_eq!((pool.results, pool.tokens), (10_000, 640_000));
}

#[test]
fn a_bet_is_what_the_document_says() {
    // Mean 1/32 over 64 tokens, pooled 1/64: ln((1 + 2) / 2).
    let texts = Texts::of(&[even(64, 0.031_25)], &THRESHOLDS);
    assert!((texts.evidence - 1.5_f64.ln()).abs() < 1e-12);
    // Two stretches are two bets, and half a stretch is half a bet.
    let texts = Texts::of(&[even(128, 0.0)], &THRESHOLDS);
    assert!((texts.evidence - 2.0 * 0.5_f64.ln()).abs() < 1e-12);
    let texts = Texts::of(&[even(32, 0.0)], &THRESHOLDS);
    assert!((texts.evidence - 0.75_f64.ln()).abs() < 1e-12);
}

#[test]
fn made_up_evidence_adds_nothing() {
    let mut texts = Texts::of(&[even(64, 0.0)], &THRESHOLDS);
    texts.evidence = 1_000.0;
    let pool = Pool::default().with(&texts, &THRESHOLDS);
    assert_eq!(pool, Pool::default());
}

#[test]
fn the_limit_is_one_in_a_hundred_thousand() {
    assert!((POOL_LIMIT - 100_000_f64.ln()).abs() < 1e-12);
}
