//! A text that is there already is scored as transformers scores it, also where it
//! comes in pieces beside others.

use infernet_engine::{Engine, Error, Score, Standing, TorchEngine};
use infernet_protocol::inference::{Dtype, TokenId};
use serde::Deserialize;

use crate::harness::{answer, load, model, read, reference_folder, request, text, tiny, wait};

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
    forms: Vec<String>,
    answers: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    output: Vec<TokenId>,
    /// Of the output's tokens.
    logprobs: Vec<f32>,
}

fn score(engine: &TorchEngine, tokens: Vec<TokenId>) -> Score {
    Score {
        model: model(engine),
        tokens,
        standing: Standing::default(),
    }
}

#[test]
fn texts_are_scored_together_as_transformers_scores_them() {
    let reference: Reference = read("engine/tests/reference/families/answers.json");
    for expected in &reference.models {
        let form = &expected.forms[0];
        let engine = load(reference_folder().join("families").join(form), Dtype::F32);
        // What others have left in the cache must not be mistaken for a score.
        answer(&engine, request(&engine, text(&reference.prompts[0].text)));
        let asked: Vec<_> = reference
            .prompts
            .iter()
            .zip(&expected.answers)
            .map(|(prompt, answer)| {
                let tokens = [&prompt.input[..], &answer.output].concat();
                engine.score(score(&engine, tokens)).unwrap()
            })
            .collect();
        for ((asked, prompt), answer) in asked
            .into_iter()
            .zip(&reference.prompts)
            .zip(&expected.answers)
        {
            let scores = wait(asked.wait()).unwrap();
            assert_eq!(scores.len(), prompt.input.len() + answer.output.len() - 1);
            let of_output = &scores[prompt.input.len() - 1..];
            for (score, logprob) in of_output.iter().zip(&answer.logprobs) {
                assert!(
                    (score - logprob).abs() < 2e-3,
                    "{form}: {score} for {logprob}"
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let engine = tiny();
    for tokens in [vec![], vec![1]] {
        let refused = engine.score(score(engine, tokens)).map(drop);
        assert_eq!(refused, Err(Error::EmptyPrompt));
    }
    let context = engine.models()[0].context;
    let wait_for = |tokens| wait(engine.score(score(engine, tokens)).unwrap().wait());
    assert_eq!(
        wait_for(vec![1, 999_999]),
        Err(Error::UnknownToken(999_999))
    );
    let long = vec![1; context as usize + 1];
    assert!(matches!(wait_for(long), Err(Error::PromptTooLong { .. })));
    let whole = wait_for(vec![1; context as usize]).unwrap();
    assert_eq!(whole.len(), context as usize - 1);
}
