//! The worked examples of `nips/reputation.md`.

use std::collections::HashSet;

use infernet_protocol::event::{Attestation, Experience, Limits, Measured, Promise, Signed, V1};
use infernet_protocol::inference::ModelId;
use infernet_protocol::money::{Msat, Price};
use infernet_protocol::reputation::{HALF_LIFE_S, Standing, standing};
use infernet_protocol::selection::{DEFAULT_MSAT_PER_S, Quote, rank};
use nostr::{EventId, Keys, PublicKey, SecretKey, Timestamp};

use crate::parties::{NOW, buyer, provider, stranger};

/// One attestation about one award, so many seconds old.
fn attests(by: &Keys, award: u8, experience: Experience, age_s: u64) -> Signed<Attestation> {
    attests_speed(by, award, experience, age_s, None)
}

fn attests_speed(
    by: &Keys,
    award: u8,
    experience: Experience,
    age_s: u64,
    tokens_per_s: Option<f32>,
) -> Signed<Attestation> {
    let attestation = Attestation {
        v: V1,
        job: EventId::from_byte_array([award; 32]),
        award: EventId::from_byte_array([award; 32]),
        result: Some(EventId::from_byte_array([award; 32])),
        receipt: None,
        provider: provider().public_key(),
        model: ModelId::from_bytes([1; 32]),
        experience,
        promised: Promise {
            first_token_ms: 500,
            tokens_per_s: 40.0,
        },
        measured: tokens_per_s.map(|tokens_per_s| Measured {
            first_token_ms: 500,
            tokens_per_s,
            output_tokens: 100,
        }),
        paid_msat: Msat::ZERO,
        verdict: None,
        batch: None,
    };
    let at = Timestamp::from_secs(NOW.as_secs() - age_s);
    use infernet_protocol::event::Body as _;
    let unsigned = attestation.to_unsigned(by.public_key(), at);
    Signed::verify(unsigned.sign_with_keys(by).unwrap()).unwrap()
}

fn trusting(keys: &[&Keys]) -> HashSet<PublicKey> {
    keys.iter().map(|keys| keys.public_key()).collect()
}

fn score(attestations: &[Signed<Attestation>]) -> f64 {
    standing(attestations, &trusting(&[&buyer()]), NOW).score
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
}

#[test]
fn somebody_unknown_stands_in_the_middle() {
    near(score(&[]), 0.5);
}

#[test]
fn worked_examples() {
    use Experience::{Completed, Failed, Invalid, Silent};
    let by = buyer();
    let one = |experience| score(&[attests(&by, 1, experience, 0)]);
    near(one(Completed), 2.0 / 3.0);
    near(one(Failed), 1.0 / 3.0);
    near(one(Silent), 1.0 / 3.0);
    near(one(Invalid), 1.0 / 7.0);
    // Nine completed and one failed: (1 + 9) / (2 + 10).
    let nine = (0..9).map(|n| attests(&by, n, Completed, 0));
    let ten: Vec<_> = nine.chain([attests(&by, 9, Failed, 0)]).collect();
    near(score(&ten), 10.0 / 12.0);
    // An invalid one in their place: (1 + 9) / (2 + 9 + 5).
    let nine = (0..9).map(|n| attests(&by, n, Completed, 0));
    let ten: Vec<_> = nine.chain([attests(&by, 9, Invalid, 0)]).collect();
    near(score(&ten), 10.0 / 16.0);
}

#[test]
fn after_thirty_days_it_counts_half() {
    assert_eq!(HALF_LIFE_S, 2_592_000);
    let by = buyer();
    let old = |age| score(&[attests(&by, 1, Experience::Completed, age)]);
    near(old(HALF_LIFE_S), 1.5 / 2.5);
    near(old(2 * HALF_LIFE_S), 1.25 / 2.25);
    let future = Timestamp::from_secs(NOW.as_secs() - 1_000);
    let early = [attests(&by, 1, Experience::Completed, 0)];
    let seen = standing(&early, &trusting(&[&by]), future);
    near(seen.score, 2.0 / 3.0);
}

#[test]
fn who_is_slower_than_promised_loses_at_most_half() {
    let by = buyer();
    let at = |speed| score(&[attests_speed(&by, 1, Experience::Completed, 0, Some(speed))]);
    near(at(40.0), 2.0 / 3.0);
    near(at(80.0), 2.0 / 3.0);
    // Half the promise kept: pace (1 + 0.5) / 2 = 0.75.
    near(at(20.0), 2.0 / 3.0 * 1.75 / 2.0);
    // Not measured.
    near(at(0.0), 2.0 / 3.0);
    let crawling: Vec<_> = (0..200)
        .map(|n| attests_speed(&by, n, Experience::Completed, 0, Some(0.001)))
        .collect();
    let slow = score(&crawling);
    assert!((0.49..0.51).contains(&slow), "{slow}");
}

/// A ring of keys that praise each other is nobody's business.
#[test]
fn untrusted_praise_counts_nothing() {
    let ring: Vec<_> = (10..60_u8)
        .map(|n| Keys::new(SecretKey::from_slice(&[n; 32]).unwrap()))
        .map(|keys| {
            attests(
                &keys,
                keys.public_key().as_bytes()[0],
                Experience::Completed,
                0,
            )
        })
        .collect();
    let seen = standing(&ring, &trusting(&[&buyer()]), NOW);
    let expected = Standing {
        score: 0.5,
        counted: 0,
        ignored: 50,
    };
    assert_eq!(seen, expected);
}

#[test]
fn an_award_counts_once_for_each_author_and_the_first_word_counts() {
    use Experience::{Completed, Failed};
    let (by, also) = (buyer(), stranger());
    let words = [
        attests(&by, 1, Failed, 50),
        attests(&by, 1, Completed, 40),
        attests(&by, 1, Completed, 30),
        attests(&also, 1, Completed, 0),
    ];
    let seen = standing(&words, &trusting(&[&by, &also]), NOW);
    assert_eq!(seen.counted, 2);
    let mut backwards = words.to_vec();
    backwards.reverse();
    let again = standing(&backwards, &trusting(&[&by, &also]), NOW);
    assert_eq!(seen, again, "the order in which they come");
    assert!(seen.score < 0.51, "{}", seen.score);
}

#[test]
fn scores_stay_between_0_and_1() {
    use Experience::{Completed, Invalid};
    let by = buyer();
    for experience in [Completed, Invalid] {
        let many: Vec<_> = (0..=255).map(|n| attests(&by, n, experience, 0)).collect();
        let score = score(&many);
        assert!(score > 0.0 && score < 1.0, "{score}");
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
