//! Greedy answers are those of Hugging Face's transformers, token by token.

use infernet_engine::{Engine, TorchEngine};
use infernet_protocol::inference::{Dtype, EndReason, Prompt, TokenId};
use serde::Deserialize;

use crate::harness::{
    answer, fetched, load, model, question, read, reference_folder, request, smollm2, text, tiny,
};

#[derive(Deserialize)]
struct Answers {
    answers: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: Prompt,
    input: Vec<TokenId>,
    output: Vec<TokenId>,
    text: String,
}

#[derive(Deserialize)]
struct Strings {
    strings: Vec<Spelled>,
}

#[derive(Deserialize)]
struct Spelled {
    text: String,
    tokens: Vec<TokenId>,
    decoded: String,
}

/// Answers every prompt of a reference file.
fn check(engine: &TorchEngine, file: &str) {
    let reference: Answers = read(&format!("engine/tests/reference/{file}"));
    assert!(!reference.answers.is_empty());
    for case in reference.answers {
        let shown = format!("{:?}", case.prompt);
        assert_eq!(
            engine.encode(&model(engine), &case.prompt).unwrap(),
            case.input,
            "tokens of {shown}"
        );
        let got = answer(engine, request(engine, case.prompt));
        assert_eq!(got.ids, case.output, "answer to {shown}");
        assert_eq!(got.text(), case.text, "text of the answer to {shown}");
        assert_eq!(got.input_tokens, Some(case.input.len() as u32));
        let expected = match case.output.len() {
            48 => EndReason::Length,
            _ => EndReason::Stop,
        };
        assert_eq!(got.reason(), expected);
    }
}

#[test]
fn smollm2_answers_as_transformers() {
    if let Some(engine) = smollm2("smollm2_answers_as_transformers") {
        check(engine, "answers.json");
    }
}

#[test]
fn a_folder_of_shards_answers_as_transformers() {
    check(tiny(), "tiny-answers.json");
}

#[test]
fn a_gguf_answers_as_the_folder_it_was_made_of() {
    let engine = load(reference_folder().join("tiny-llama.gguf"), Dtype::F32);
    check(&engine, "tiny-answers.json");
}

#[test]
fn smollm2_spells_as_transformers() {
    let Some(engine) = smollm2("smollm2_spells_as_transformers") else {
        return;
    };
    let reference: Strings = read("engine/tests/reference/tokens.json");
    assert!(!reference.strings.is_empty());
    for case in reference.strings {
        let tokens = engine.encode(&model(engine), &text(&case.text)).unwrap();
        assert_eq!(tokens, case.tokens, "tokens of {:?}", case.text);
        let decoded = engine.decode(&model(engine), &tokens).unwrap();
        assert_eq!(decoded, case.decoded, "text of {:?}", case.text);
    }
}

#[test]
fn bf16_answers_sensibly() {
    let Some(folder) = fetched("bf16_answers_sensibly", "smollm2-135m-instruct") else {
        return;
    };
    let engine = load(folder, Dtype::Bf16);
    assert_eq!(engine.models()[0].dtype, Dtype::Bf16);
    let got = answer(
        &engine,
        request(&engine, question("What is the capital of France?")),
    );
    assert!(got.text().contains("Paris"), "{}", got.text());
}

#[test]
fn describes_what_it_runs() {
    let info = &tiny().models()[0];
    assert_eq!(info.name, "tiny-llama");
    assert_eq!(info.architecture, "llama");
    assert_eq!(info.context, 128);
    // Two matrices of the vocabulary, two layers, and their norms.
    assert_eq!(
        info.parameters,
        2 * 320 * 64 + 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96 + 2 * 64) + 64
    );
    assert!(tiny().version().contains("libtorch/2.11.0"));
    assert!(tiny().hardware().memory_mib > 0);
}
