//! Every family answers as Hugging Face's transformers does, token by token,
//! from a folder and from a GGUF: small models of random weights, which
//! `scripts/reference families` makes.

use infernet_engine::{Engine, ModelSource, TorchEngine};
use infernet_protocol::inference::{Dtype, EndReason, TokenId};
use serde::Deserialize;

use crate::harness::{answer, load, model, options, read, reference_folder, request, text};

#[derive(Deserialize)]
struct Reference {
    prompts: Vec<Prompt>,
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Prompt {
    text: String,
    input: Vec<TokenId>,
}

#[derive(Deserialize)]
struct Model {
    /// A folder, and the GGUF that was made of it.
    forms: Vec<String>,
    /// One for each prompt.
    answers: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    output: Vec<TokenId>,
}

/// Holds the models of a reference file whose names begin so to their answers.
fn check(family: &str) {
    let reference: Reference = read("engine/tests/reference/families/answers.json");
    let models: Vec<_> = reference
        .models
        .iter()
        .filter(|model| model.forms[0].starts_with(family))
        .collect();
    assert!(!models.is_empty());
    for model in models {
        assert_eq!(model.answers.len(), reference.prompts.len());
        for form in &model.forms {
            let path = reference_folder().join("families").join(form);
            check_form(form, &load(path, Dtype::F32), &reference.prompts, model);
        }
    }
}

fn check_form(form: &str, engine: &TorchEngine, prompts: &[Prompt], expected: &Model) {
    for (prompt, expected) in prompts.iter().zip(&expected.answers) {
        let shown = prompt.text.get(..20).unwrap_or(&prompt.text);
        let tokens = engine.encode(&model(engine), &text(&prompt.text)).unwrap();
        assert_eq!(tokens, prompt.input, "{form}: tokens of {shown:?}");
        let got = answer(engine, request(engine, text(&prompt.text)));
        assert_eq!(got.ids, expected.output, "{form}: answer to {shown:?}");
        assert_eq!(got.reason(), EndReason::Length);
    }
}

#[test]
fn llama_answers_as_transformers() {
    check("llama");
}

#[test]
fn mistral_answers_as_transformers() {
    check("mistral");
}

#[test]
fn qwen2_answers_as_transformers() {
    check("qwen2");
}

#[test]
fn qwen3_answers_as_transformers() {
    check("qwen3");
}

#[test]
fn gemma3_answers_as_transformers() {
    check("gemma3");
}

#[test]
fn models_say_of_which_family_they_are() {
    for (form, family) in [
        ("llama3", "llama"),
        ("mistral", "mistral"),
        ("mistral.gguf", "llama"),
        ("qwen2.gguf", "qwen2"),
        ("qwen3", "qwen3"),
        ("gemma3-multimodal", "gemma3"),
    ] {
        let path = reference_folder().join("families").join(form);
        let engine = TorchEngine::load(options(vec![ModelSource::new(path)])).unwrap();
        assert_eq!(engine.models()[0].architecture, family, "{form}");
        assert_eq!(engine.models()[0].context, 1024);
    }
}
