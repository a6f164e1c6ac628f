//! The vectors of `nips/sampling.md`, which another implementation computed.

use infernet_engine::sampling::{candidates, draw, gumbel};
use infernet_protocol::inference::{Sampling, TokenId};
use serde::Deserialize;

use crate::harness::read;

#[derive(Deserialize)]
struct Vectors {
    noise: Vec<Noise>,
    logits: Vec<f32>,
    draws: Vec<Draw>,
}

#[derive(Deserialize)]
struct Noise {
    seed: String,
    position: u32,
    token: TokenId,
    gumbel: f64,
}

#[derive(Deserialize)]
struct Draw {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    seed: String,
    position: u32,
    candidates: Vec<TokenId>,
    token: TokenId,
}

#[test]
fn noise_and_draws_are_those_of_the_document() {
    let vectors: Vectors = read("nips/examples/sampling.json");
    assert!(vectors.noise.len() > 30 && vectors.draws.len() > 30);
    for noise in vectors.noise {
        let got = gumbel(noise.seed.parse().unwrap(), noise.position, noise.token);
        assert!((got - noise.gumbel).abs() < 1e-12, "{got} {}", noise.gumbel);
    }
    for case in vectors.draws {
        let sampling = Sampling {
            temperature: case.temperature,
            top_k: case.top_k,
            top_p: case.top_p,
            seed: case.seed.parse().unwrap(),
        };
        let kept = candidates(&vectors.logits, &sampling).unwrap();
        assert_eq!(kept, case.candidates, "{sampling:?}");
        let token = draw(&vectors.logits, &sampling, case.position).unwrap();
        assert_eq!(token, case.token, "{sampling:?} at {}", case.position);
    }
}

#[test]
fn draws_follow_the_probabilities() {
    let logits = [0.5_f32, 2.0, -1.0, 1.0].map(|weight| weight * 2.0_f32.ln());
    let weights = logits.map(|logit| f64::from(logit).exp());
    let total: f64 = weights.iter().sum();
    let sampling = Sampling {
        temperature: 1.0,
        ..Sampling::default()
    };
    const DRAWS: u32 = 20_000;
    let mut counts = [0.0; 4];
    for position in 0..DRAWS {
        counts[draw(&logits, &sampling, position).unwrap() as usize] += 1.0;
    }
    for (count, weight) in counts.iter().zip(weights) {
        let (share, expected) = (count / f64::from(DRAWS), weight / total);
        assert!((share - expected).abs() < 0.015, "{share} {expected}");
    }
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    let greedy = Sampling::default();
    assert!(draw(&[0.0, f32::NAN], &greedy, 0).is_err());
    assert!(draw(&[0.0, f32::INFINITY], &greedy, 0).is_err());
    assert!(draw(&[f32::NEG_INFINITY; 3], &greedy, 0).is_err());
    assert!(draw(&[], &greedy, 0).is_err());
    assert_eq!(draw(&[f32::NEG_INFINITY, -5.0], &greedy, 0), Ok(1));
}
