//! Sentence embeddings are those of Hugging Face's transformers.

use std::fs;

use infernet_engine::{Embed, Embedding, Engine, Error, LoadError, ModelSource, TorchEngine};
use infernet_protocol::inference::{Dtype, Task};
use serde::Deserialize;

use crate::harness::{fetched, load, model, options, read, reference_folder, request, text, wait};

#[derive(Deserialize)]
struct Reference {
    texts: Vec<Case>,
}

/// The tiny encoders of random weights.
#[derive(Deserialize)]
struct Tiny {
    models: Vec<TinyModel>,
}

#[derive(Deserialize)]
struct TinyModel {
    folder: String,
    context: u32,
    texts: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    tokens: Vec<u32>,
    vector: Vec<f32>,
}

#[test]
fn minilm_embeds_as_transformers() {
    let Some(folder) = fetched("minilm_embeds_as_transformers", "all-minilm-l6-v2") else {
        return;
    };
    let engine = load(folder, Dtype::F32);
    let info = &engine.models()[0];
    assert_eq!(info.task, Task::Embedding);
    assert_eq!(info.embedding_width, Some(384));
    let reference: Reference = read("engine/tests/reference/embeddings.json");
    let texts: Vec<String> = reference
        .texts
        .iter()
        .map(|case| case.text.clone())
        .collect();
    let result = engine.embed(Embed {
        model: model(&engine),
        texts,
    });
    let embeddings = wait(result.unwrap().wait()).unwrap();
    assert_eq!(embeddings.vectors.len(), reference.texts.len());
    for (vector, case) in embeddings.vectors.iter().zip(&reference.texts) {
        assert_eq!(
            engine.encode(&model(&engine), &text(&case.text)).unwrap(),
            case.tokens
        );
        assert_eq!(vector.len(), case.vector.len());
        for (got, expected) in vector.iter().zip(&case.vector) {
            assert!(
                (got - expected).abs() < 1e-4,
                "{:?}: {got} {expected}",
                case.text
            );
        }
    }
    let tokens: usize = reference.texts.iter().map(|case| case.tokens.len()).sum();
    assert_eq!(embeddings.input_tokens as usize, tokens);
}

#[test]
fn minilm_refuses_what_it_cannot_embed() {
    let Some(folder) = fetched("minilm_refuses_what_it_cannot_embed", "all-minilm-l6-v2") else {
        return;
    };
    let engine = load(folder, Dtype::F32);
    let embed = |texts: Vec<String>| {
        let model = model(&engine);
        wait(engine.embed(Embed { model, texts })?.wait())
    };
    assert_eq!(embed(vec![]), Err(Error::EmptyPrompt));
    assert_eq!(
        embed(vec!["a".into(), String::new()]),
        Err(Error::EmptyPrompt)
    );
    let long = embed(vec!["short".into(), "sea ".repeat(300)]);
    assert_eq!(
        long,
        Err(Error::PromptTooLong {
            tokens: 302,
            context: 256
        })
    );
    // One request that failed does not end the engine.
    assert!(embed(vec!["sea".into()]).is_ok());
    let wrong = engine.generate(request(&engine, text("The sea")));
    assert!(matches!(wrong, Err(Error::WrongTask { .. })));
}

fn tiny() -> Vec<TinyModel> {
    let tiny: Tiny = read("engine/tests/reference/tiny-embeddings.json");
    tiny.models
}

fn texts_of(cases: &[Case]) -> Vec<String> {
    cases.iter().map(|case| case.text.clone()).collect()
}

fn submit(engine: &TorchEngine, texts: Vec<String>) -> Embedding {
    let model = model(engine);
    engine.embed(Embed { model, texts }).unwrap()
}

fn embedded(engine: &TorchEngine, texts: Vec<String>) -> Vec<Vec<f32>> {
    wait(submit(engine, texts).wait()).unwrap().vectors
}

/// The greatest difference between numbers of two lists of vectors.
fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    let numbers = pairs.flat_map(|(a, b)| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b)
    });
    numbers.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn every_family_embeds_as_transformers() {
    for case in tiny() {
        let engine = load(reference_folder().join(&case.folder), Dtype::F32);
        let info = &engine.models()[0];
        assert_eq!(info.context, case.context, "{}", case.folder);
        for text in &case.texts {
            let tokens = engine.encode(&info.id, &self::text(&text.text)).unwrap();
            assert_eq!(tokens, text.tokens, "{}: {:?}", case.folder, text.text);
        }
        let vectors = embedded(&engine, texts_of(&case.texts));
        let expected: Vec<_> = case.texts.iter().map(|text| text.vector.clone()).collect();
        let distance = distance(&vectors, &expected);
        assert!(distance < 1e-4, "{}: {distance}", case.folder);
    }
}

#[test]
fn texts_have_the_same_vectors_together_and_alone() {
    for case in tiny() {
        let engine = load(reference_folder().join(&case.folder), Dtype::F32);
        let texts = texts_of(&case.texts);
        let alone = texts
            .iter()
            .flat_map(|text| embedded(&engine, vec![text.clone()]));
        let alone: Vec<_> = alone.collect();
        // More than one batch holds, and of several requests that wait at once.
        let many: Vec<_> = texts.iter().cycle().take(60).cloned().collect();
        let expected: Vec<_> = alone.iter().cycle().take(60).cloned().collect();
        let requests: Vec<_> = (0..3).map(|_| submit(&engine, many.clone())).collect();
        for request in requests {
            let together = wait(request.wait()).unwrap().vectors;
            let distance = distance(&together, &expected);
            assert!(distance < 1e-5, "{}: {distance}", case.folder);
        }
    }
}

#[test]
fn other_number_formats_are_near_f32() {
    for (dtype, least) in [(Dtype::Bf16, 0.995), (Dtype::Int8, 0.98)] {
        for case in tiny() {
            let engine = load(reference_folder().join(&case.folder), dtype);
            let vectors = embedded(&engine, texts_of(&case.texts));
            for (vector, case) in vectors.iter().zip(&case.texts) {
                let cosine = cosine(vector, &case.vector);
                assert!(cosine > least, "{dtype}: {:?}: {cosine}", case.text);
            }
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

#[test]
fn one_text_that_is_too_long_fails_its_own_request_alone() {
    let case = tiny().remove(1);
    let engine = load(reference_folder().join(&case.folder), Dtype::F32);
    let long = submit(&engine, vec!["sea".into(), "sea ".repeat(200)]);
    let good = submit(&engine, texts_of(&case.texts));
    let refused = wait(long.wait()).unwrap_err();
    assert!(matches!(refused, Error::PromptTooLong { context: 90, .. }));
    assert_eq!(wait(good.wait()).unwrap().vectors.len(), case.texts.len());
}

/// What loading a changed copy of a tiny encoder says.
fn refused(folder: &str, file: &str, from: &str, to: &str) -> String {
    let copy = tempfile::tempdir().unwrap();
    let source = reference_folder().join(folder);
    fs::create_dir(copy.path().join("1_Pooling")).unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
    ] {
        fs::copy(source.join(name), copy.path().join(name)).unwrap();
    }
    let path = copy.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} is not in {file}");
    fs::write(path, text.replace(from, to)).unwrap();
    let said = TorchEngine::load(options(vec![ModelSource::new(copy.path())]));
    let said: Result<_, LoadError> = said.map(drop);
    said.unwrap_err().to_string()
}

#[test]
fn an_encoder_that_cannot_be_run_as_it_is_meant_is_refused() {
    let roberta = "tiny-xlm-roberta";
    for (file, from, to, word) in [
        ("config.json", "\"gelu\"", "\"relu\"", "the activation relu"),
        ("config.json", "XLMRobertaModel", "NewEncoder", "NewEncoder"),
        (
            "config.json",
            "\"pad_token_id\": 1",
            "\"pad_token_id\": 900",
            "padding",
        ),
        (
            "config.json",
            "\"pad_token_id\": 1",
            "\"pad_token_id\": -7",
            "padding",
        ),
        (
            "config.json",
            "\"hidden_size\": 48",
            "\"hidden_size\": 49",
            "heads",
        ),
        (
            "config.json",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 16777216",
            "GiB of memory",
        ),
        (
            "modules.json",
            "models.Normalize",
            "models.Dense",
            "the module sentence_transformers.models.Dense",
        ),
        (
            "1_Pooling/config.json",
            "\"pooling_mode_max_tokens\": false",
            "\"pooling_mode_max_tokens\": true",
            "pooling by",
        ),
    ] {
        let said = refused(roberta, file, from, to);
        assert!(said.contains(word), "{to}: {said}");
    }
}
