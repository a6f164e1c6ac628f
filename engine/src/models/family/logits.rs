//! The probabilities of transformers' answers are transformers' own: of several
//! sequences together, whose prompts come in pieces.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use infernet_protocol::inference::{Dtype, TokenId};
use serde::Deserialize;
use tch::Device;

use crate::load::{ModelSource, Network, Served, load};
use crate::models::decoder::{BLOCK_TOKENS, Decoder, Row};

/// Tokens of a prompt that are computed at a time: no multiple of a block's.
const PIECE: usize = 100;

#[derive(Deserialize)]
struct Reference {
    prompts: Vec<Prompt>,
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Prompt {
    input: Vec<TokenId>,
}

#[derive(Deserialize)]
struct Model {
    forms: Vec<String>,
    /// How far transformers is from itself on average when it computes in bf16.
    bf16: f32,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    output: Vec<TokenId>,
    logprobs: Vec<f32>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/families")
}

fn reference() -> Reference {
    let bytes = std::fs::read(folder().join("answers.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn decoder(form: &str, dtype: Dtype) -> Box<Decoder> {
    let source = ModelSource {
        dtype,
        ..ModelSource::new(folder().join(form))
    };
    match load(&source, Device::Cpu).unwrap().served {
        Served::Network {
            network: Network::Text(decoder),
            ..
        } => decoder,
        _ => panic!("{form} is no decoder"),
    }
}

/// A token's log-probability, of logits.
fn log_probability(logits: &[f32], token: TokenId) -> f32 {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
    logits[token as usize] - most - sum.ln()
}

/// The differences from what transformers gives to each token of each answer.
fn differences(decoder: &Decoder, prompts: &[Prompt], answers: &[Answer]) -> Vec<f32> {
    let _no_grad = tch::no_grad_guard();
    let texts: Vec<Vec<TokenId>> = prompts
        .iter()
        .zip(answers)
        .map(|(prompt, answer)| [prompt.input.clone(), answer.output.clone()].concat())
        .collect();
    let blocks = texts.iter().map(|text| text.len().div_ceil(BLOCK_TOKENS));
    let blocks: usize = blocks.sum();
    let mut store = decoder.store(blocks).unwrap();
    // Each has every third block or so, from behind.
    let mut free = (0..blocks as u32).rev();
    let mut tables = vec![Vec::new(); texts.len()];
    while let Some(row) = (0..texts.len())
        .filter(|&row| tables[row].len() * BLOCK_TOKENS < texts[row].len())
        .min_by_key(|&row| tables[row].len())
    {
        tables[row].push(free.next().unwrap());
    }
    let mut done = vec![0; texts.len()];
    let mut found = Vec::new();
    loop {
        let (mut rows, mut of) = (Vec::new(), Vec::new());
        for (row, text) in texts.iter().enumerate() {
            let (prompt, start) = (prompts[row].input.len(), done[row]);
            let end = match start < prompt {
                true => prompt.min(start + PIECE),
                false => start + 1,
            };
            if end >= text.len() {
                continue;
            }
            rows.push(Row {
                tokens: &text[start..end],
                start,
                blocks: &tables[row],
                draws: end >= prompt,
                proves: false,
            });
            done[row] = end;
            of.extend((end >= prompt).then(|| (row, end - prompt)));
        }
        if rows.is_empty() {
            return found;
        }
        let said = decoder.forward(&rows, &mut store).unwrap();
        assert_eq!(said.len(), of.len());
        for (said, (row, number)) in said.iter().zip(of) {
            let (token, expected) = (answers[row].output[number], answers[row].logprobs[number]);
            found.push((log_probability(&said.logits, token) - expected).abs());
        }
    }
}

#[test]
fn probabilities_are_those_of_transformers() {
    let reference = reference();
    assert!(reference.models.len() > 10);
    for model in &reference.models {
        for form in &model.forms {
            let decoder = decoder(form, Dtype::F32);
            let found = differences(&decoder, &reference.prompts, &model.answers);
            assert_eq!(found.len(), reference.prompts.len() * 48);
            let worst = found.iter().copied().fold(0.0, f32::max);
            // One by one: the greatest hides what is no number.
            let near = found.iter().all(|difference| *difference < 1e-3);
            assert!(near, "{form}: {worst}");
        }
    }
}

#[test]
fn bf16_is_as_near_as_transformers_own() {
    let reference = reference();
    for model in &reference.models {
        let form = &model.forms[0];
        let decoder = decoder(form, Dtype::Bf16);
        let found = differences(&decoder, &reference.prompts, &model.answers);
        let mean = found.iter().sum::<f32>() / found.len() as f32;
        assert!(
            mean < 2.0 * model.bf16,
            "{form}: {mean}, not {}",
            model.bf16
        );
    }
}

/// Whose matrices lose by it what others' do; a file of four bits hardly any more.
#[test]
fn packed_weights_give_what_they_are_good_for() {
    let reference = reference();
    for (form, dtype) in [
        ("llama2", Dtype::Int8),
        ("qwen3", Dtype::Int8),
        ("gemma3-multimodal", Dtype::Int8),
        ("llama-q4_0.gguf", Dtype::Int4),
        ("llama-q4_1.gguf", Dtype::Int4),
    ] {
        let mut models = reference.models.iter();
        let model = models.find(|model| model.forms[0] == form).unwrap();
        let found = differences(&decoder(form, dtype), &reference.prompts, &model.answers);
        let mean = found.iter().sum::<f32>() / found.len() as f32;
        assert!(mean < 4.0 * model.bf16, "{form} in {dtype}: {mean}");
    }
}
