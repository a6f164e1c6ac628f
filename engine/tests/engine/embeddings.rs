//! Sentence embeddings are those of Hugging Face's transformers.

use infernet_engine::{Embed, Engine, Error};
use infernet_protocol::inference::{Dtype, Task};
use serde::Deserialize;

use crate::harness::{fetched, load, model, read, request, text, wait};

#[derive(Deserialize)]
struct Reference {
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
