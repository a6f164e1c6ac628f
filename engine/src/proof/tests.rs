use proptest::prelude::*;

use super::*;

/// States of so many tokens that a seed decides.
fn states(seed: u32, tokens: usize, width: usize) -> Vec<Vec<bf16>> {
    let mut number = seed;
    let mut next = || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(number >> 8) / f64::from(1 << 24) - 0.5
    };
    // A sum of several is near to normal.
    let mut normal = || (0..6).map(|_| next()).sum::<f64>();
    let mut state = || (0..width).map(|_| bf16::from_f64(normal())).collect();
    (0..tokens).map(|_| state()).collect()
}

fn prove(states: &[Vec<bf16>]) -> Proof {
    let mut prover = Prover::default();
    states.iter().for_each(|state| prover.push(state));
    prover.finish()
}

fn compare(proof: Proof, states: &[Vec<bf16>]) -> Vec<ChunkDistance> {
    let mut comparison = Comparison::new(proof, states.len()).unwrap();
    states.iter().for_each(|state| comparison.push(state));
    comparison.finish()
}

#[test]
fn a_proof_fits_its_own_states_and_no_others() {
    // The last width makes places that the prime alone does not tell apart.
    for (tokens, width) in [(1, 200), (31, 64), (32, 64), (70, 576), (64, 4096)] {
        let honest = states(1, tokens, width);
        let proof = prove(&honest);
        assert_eq!(proof.0.len(), bytes_of(tokens));
        let same = compare(proof.clone(), &honest);
        assert_eq!(same, vec![ChunkDistance::default(); tokens.div_ceil(CHUNK)]);
        let other = compare(proof, &states(2, tokens, width));
        assert!(other.iter().all(|chunk| chunk.exponents > 90), "{other:?}");
    }
}

#[test]
fn what_differs_a_little_is_a_little_far() {
    let honest = states(1, 32, 576);
    let rounded: Vec<Vec<bf16>> = honest
        .iter()
        .map(|state| {
            let slip = |(place, number): (usize, &bf16)| {
                let slip = if place % 2 == 0 { 1.01 } else { 0.99 };
                bf16::from_f32(number.to_f32() * slip)
            };
            state.iter().enumerate().map(slip).collect()
        })
        .collect();
    let [distance] = compare(prove(&honest), &rounded)[..] else {
        panic!("one chunk");
    };
    assert!(distance.exponents < 20, "{distance:?}");
    assert!((0.5..4.0).contains(&distance.mantissa_mean), "{distance:?}");
}

#[test]
fn models_narrower_than_what_is_kept_are_proven_too() {
    let honest = states(1, 1, 16);
    let same = compare(prove(&honest), &honest);
    assert_eq!(same, vec![ChunkDistance::default()]);
    let other = compare(prove(&honest), &states(2, 1, 16));
    assert!(other[0].exponents > 90);
}

#[test]
fn a_proof_of_the_wrong_length_is_none() {
    for bytes in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
        assert!(Comparison::new(Proof(vec![0; bytes]), 40).is_none());
    }
    assert!(Comparison::new(Proof(vec![]), 0).is_some());
}

#[test]
fn a_modulus_that_lets_places_fall_together_fits_nothing() {
    let honest = states(1, 32, 64);
    for modulus in [0, 1, 128, LEAST_MODULUS - 1] {
        let mut proof = prove(&honest);
        proof.0[..2].copy_from_slice(&modulus.to_be_bytes());
        assert_eq!(compare(proof, &honest), vec![far()]);
    }
}

#[test]
fn what_was_begun_can_be_begun_anew() {
    let honest = states(1, 70, 64);
    let mut comparison = Comparison::new(prove(&honest), 70).unwrap();
    honest[..50].iter().for_each(|state| comparison.push(state));
    comparison.begin_anew();
    honest.iter().for_each(|state| comparison.push(state));
    assert_eq!(comparison.finish(), vec![ChunkDistance::default(); 3]);
}

proptest! {
    /// Whatever stands in a proof, comparing it ends well.
    #[test]
    fn any_bytes_can_be_compared(bytes in prop::collection::vec(any::<u8>(), CHUNK_BYTES)) {
        let chunks = compare(Proof(bytes), &states(3, 20, 64));
        prop_assert_eq!(chunks.len(), 1);
        prop_assert!(chunks[0].exponents <= 128);
    }
}

/// A case of `nips/examples/toploc.json`, which another program computed.
#[derive(serde::Deserialize)]
struct Case {
    tokens: usize,
    width: usize,
    multiplier: u64,
    proof: String,
    checks: Vec<Check>,
}

#[derive(serde::Deserialize)]
struct Check {
    drift: u64,
    chunks: Vec<Expected>,
}

#[derive(serde::Deserialize)]
struct Expected {
    exponents: u32,
    mantissa_mean: f64,
    mantissa_median: f64,
}

/// The states of a case, as `nips/verification.md` says.
fn invented(case: &Case, drift: u64) -> Vec<Vec<bf16>> {
    let number = |at: usize| {
        let at = at as u64;
        let spread = (at + 1).pow(2) * case.multiplier % ((1 << 31) - 1);
        let magnitude = (spread >> 8) % 32_512 + at % (drift + 1);
        bf16::from_bits(magnitude as u16 | ((spread & 1) << 15) as u16)
    };
    let state = |token: usize| (token * case.width..(token + 1) * case.width).map(number);
    (0..case.tokens)
        .map(|token| state(token).collect())
        .collect()
}

#[test]
fn proofs_are_those_of_the_examples() {
    let examples = include_str!("../../../nips/examples/toploc.json");
    let cases: Vec<Case> = serde_json::from_str(examples).unwrap();
    assert!(cases.len() > 3);
    for case in cases {
        let proof = prove(&invented(&case, 0));
        assert_eq!(hex::encode(&proof.0), case.proof);
        for check in &case.checks {
            let found = compare(proof.clone(), &invented(&case, check.drift));
            assert_eq!(found.len(), check.chunks.len());
            for (found, expected) in found.iter().zip(&check.chunks) {
                assert_eq!(found.exponents, expected.exponents);
                assert!((found.mantissa_mean - expected.mantissa_mean).abs() < 1e-9);
                assert!((found.mantissa_median - expected.mantissa_median).abs() < 1e-9);
            }
        }
    }
}
