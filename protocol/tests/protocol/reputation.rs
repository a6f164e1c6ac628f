//! The worked examples of `nips/reputation.md`, and what it costs to deceive a reader.

mod attacks;
mod worked;

use std::collections::HashSet;

use infernet_protocol::event::{
    Attestation, BatchShare, Body as _, Experience, Judgement, Limits, Measured, Promise, Signed,
    V1, Verdict,
};
use infernet_protocol::inference::{Dtype, ModelId};
use infernet_protocol::money::{Msat, Price};
use infernet_protocol::reputation::{Standing, standing};
use infernet_protocol::selection::{DEFAULT_MSAT_PER_S, Quote, rank};
use nostr::{EventId, Keys, PublicKey, SecretKey, Timestamp};
use sha2::Digest as _;

use crate::parties::{NOW, buyer, provider, stranger};

const DAY_S: u64 = 24 * 3_600;

/// Who has this name.
fn named(name: &str) -> Keys {
    let secret = sha2::Sha256::digest(name);
    Keys::new(SecretKey::from_slice(&secret).unwrap())
}

fn ago(age_s: u64) -> Timestamp {
    Timestamp::from_secs(NOW.as_secs() - age_s)
}

fn id(number: u64) -> EventId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    EventId::from_byte_array(bytes)
}

/// An attestation about one award, to be changed.
fn said(award: u64, experience: Experience) -> Attestation {
    Attestation {
        v: V1,
        job: id(award),
        award: id(award),
        result: Some(id(award)),
        receipt: None,
        provider: provider().public_key(),
        model: ModelId::from_bytes([1; 32]),
        experience,
        promised: Promise {
            first_token_ms: 500,
            tokens_per_s: 40.0,
        },
        measured: None,
        paid_msat: Msat::ZERO,
        verdict: (experience == Experience::Rejected).then(|| id(award)),
        batch: None,
    }
}

fn signed(attestation: &Attestation, by: &Keys, age_s: u64) -> Signed<Attestation> {
    let unsigned = attestation.to_unsigned(by.public_key(), ago(age_s));
    Signed::verify(unsigned.sign_with_keys(by).unwrap()).unwrap()
}

/// One attestation about one award, so many seconds old.
fn attests(by: &Keys, award: u64, experience: Experience, age_s: u64) -> Signed<Attestation> {
    signed(&said(award, experience), by, age_s)
}

fn judged(award: u64, judgement: Judgement, by: &Keys, age_s: u64) -> Signed<Verdict> {
    let verdict = Verdict {
        v: V1,
        job: id(award),
        award: id(award),
        result: id(award),
        provider: provider().public_key(),
        model: ModelId::from_bytes([1; 32]),
        judgement,
        method: "made-up/1".into(),
        figures: [].into(),
        dtype: Dtype::F32,
        engine: "made up".into(),
    };
    let unsigned = verdict.to_unsigned(by.public_key(), ago(age_s));
    Signed::verify(unsigned.sign_with_keys(by).unwrap()).unwrap()
}

fn trusting(keys: &[&Keys]) -> HashSet<PublicKey> {
    keys.iter().map(|keys| keys.public_key()).collect()
}

fn seen(attestations: &[Signed<Attestation>], trusted: &[&Keys]) -> Standing {
    standing(attestations, [], &trusting(trusted), NOW)
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
}

#[test]
fn what_comes_from_the_future_counts_as_new() {
    let by = buyer();
    let early = [attests(&by, 1, Experience::Completed, 0)];
    let standing = standing(&early, [], &trusting(&[&by]), ago(1_000));
    near(standing.score, 2.0 / 5.0);
}

#[test]
fn who_is_slower_than_promised_loses_at_most_half() {
    let by = buyer();
    let at = |tokens_per_s, times| {
        let measured = Some(Measured {
            first_token_ms: 500,
            tokens_per_s,
            output_tokens: 100,
        });
        let one = |award| Attestation {
            measured,
            ..said(award, Experience::Completed)
        };
        let all: Vec<_> = (0..times).map(|n| signed(&one(n), &by, 0)).collect();
        seen(&all, &[&by]).score
    };
    near(at(40.0, 1), 2.0 / 5.0);
    near(at(80.0, 1), 2.0 / 5.0);
    // Not measured.
    near(at(0.0, 1), 2.0 / 5.0);
    let crawling = at(0.001, 200);
    assert!((0.49..0.51).contains(&crawling), "{crawling}");
}

#[test]
fn an_award_counts_once_for_each_author_and_the_first_word_counts() {
    use Experience::{Completed, Failed};
    let (by, also) = (buyer(), stranger());
    let mut words = vec![
        attests(&by, 1, Failed, 50),
        attests(&by, 1, Completed, 40),
        attests(&by, 1, Completed, 30),
        attests(&also, 1, Completed, 0),
    ];
    let forwards = seen(&words, &[&by, &also]);
    assert_eq!((forwards.counted, forwards.counterparties), (2, 2));
    words.reverse();
    let backwards = seen(&words, &[&by, &also]);
    assert_eq!(forwards, backwards, "the order in which they come");
    assert!((0.33..0.34).contains(&forwards.score), "{forwards:?}");
}

#[test]
fn scores_stay_between_0_and_1() {
    use Experience::{Completed, Failed, Invalid, Rejected, Silent};
    let by = buyer();
    for experience in [Completed, Failed, Silent, Invalid, Rejected] {
        let many: Vec<_> = (0..=255).map(|n| attests(&by, n, experience, 0)).collect();
        let score = seen(&many, &[&by]).score;
        assert!((0.0..1.0).contains(&score), "{experience:?}: {score}");
    }
}

fn quote(output_msat: u64, tokens_per_s: f32, jobs_per_slot: f64, score: f64) -> Quote {
    Quote {
        price: Price {
            input_msat: 0,
            output_msat,
        },
        promise: Promise {
            first_token_ms: 1_000,
            tokens_per_s,
        },
        jobs_per_slot,
        score,
    }
}

const JOB: Limits = Limits {
    input_tokens: 100,
    output_tokens: 200,
};

#[test]
fn ranks_of_the_document() {
    let rank = |quote| rank(&quote, &JOB, DEFAULT_MSAT_PER_S);
    // 200 tokens at 50,000 msat a million
    // they cost 10; 1 s + 200 / 50 s are 5 s, worth 50; and the score is 0.5.
    near(rank(quote(50_000, 50.0, 0.0, 0.5)), -220.0);
    // One job ahead for each slot doubles the wait.
    near(rank(quote(50_000, 50.0, 1.0, 0.5)), -320.0);
    near(rank(quote(0, 50.0, 0.0, 1.0)), -50.0);
}

#[test]
fn the_cheaper_the_faster_and_the_better_are_asked_first() {
    let rank = |quote| rank(&quote, &JOB, DEFAULT_MSAT_PER_S);
    let usual = rank(quote(50_000, 50.0, 0.0, 0.5));
    assert!(rank(quote(40_000, 50.0, 0.0, 0.5)) > usual);
    assert!(rank(quote(50_000, 60.0, 0.0, 0.5)) > usual);
    assert!(rank(quote(50_000, 50.0, 0.0, 0.6)) > usual);
    assert!(rank(quote(50_000, 50.0, 0.5, 0.5)) < usual);
    for odd in [quote(u64::MAX, 0.0, 0.0, 0.0), quote(0, f32::MAX, 1e9, 1.0)] {
        assert!(rank(odd).is_finite());
    }
}

#[test]
fn no_promise_wins_against_a_bad_record() {
    let rank = |quote| rank(&quote, &JOB, DEFAULT_MSAT_PER_S);
    let absurd = |score| rank(quote(0, f32::MAX, 0.0, score));
    let honest_newcomer = rank(quote(0, 50.0, 0.0, 0.5));
    assert!(
        absurd(1.0 / 7.0) < honest_newcomer,
        "after one invalid answer"
    );
    let proven = rank(quote(0, 50.0, 0.0, 10.0 / 12.0));
    assert!(
        absurd(0.5) < proven,
        "a newcomer's promise against a good record"
    );
}
