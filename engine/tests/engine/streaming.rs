//! What is shown: continuations, whole characters, stop strings.

use infernet_engine::{Engine, Generate};
use infernet_protocol::inference::{EndReason, Prompt, Sampling};
use proptest::prelude::*;

use crate::harness::{Answer, answer, model, question, request, smollm2, text, tiny};

fn sampled(engine: &dyn Engine, prompt: Prompt, seed: u64) -> Generate {
    Generate {
        sampling: Sampling {
            temperature: 0.8,
            top_p: 0.95,
            top_k: 50,
            seed,
        },
        ..request(engine, prompt)
    }
}

/// Whoever goes on after the first tokens of an answer gives exactly the rest.
fn check_continuations(engine: &dyn Engine, request: &Generate, cuts: &[usize]) {
    let whole = answer(engine, request.clone());
    for &cut in cuts.iter().filter(|&&cut| cut <= whole.ids.len()) {
        let rest = answer(
            engine,
            Generate {
                prefix: whole.ids[..cut].to_vec(),
                ..request.clone()
            },
        );
        let expected = Answer {
            ids: whole.ids[cut..].to_vec(),
            pieces: whole.pieces[cut..].to_vec(),
            ..whole.clone()
        };
        assert_eq!(rest, expected, "after {cut} tokens");
    }
}

#[test]
fn a_continuation_is_what_one_engine_would_have_said() {
    let engine = tiny();
    let all: Vec<usize> = (0..=48).collect();
    check_continuations(engine, &request(engine, text("The sea and")), &all);
    check_continuations(engine, &sampled(engine, text("The sea and"), 7), &all);
    let whole = answer(engine, request(engine, text("1 2 3"))).text();
    let stopped = Generate {
        stop: vec![whole.chars().skip(20).take(4).collect()],
        ..request(engine, text("1 2 3"))
    };
    check_continuations(engine, &stopped, &all);
}

#[test]
fn smollm2_continues_what_another_began() {
    let Some(engine) = smollm2("smollm2_continues_what_another_began") else {
        return;
    };
    let prompt = question("Tell me of the sea.");
    let cuts = [0, 1, 13, 47, 48];
    check_continuations(engine, &request(engine, prompt.clone()), &cuts);
    check_continuations(engine, &sampled(engine, prompt, 1234), &cuts);
}

#[test]
fn seeds_decide() {
    let engine = tiny();
    let say = |seed| answer(engine, sampled(engine, text("The sea"), seed)).ids;
    assert_eq!(say(1), say(1));
    assert_ne!(say(1), say(2));
}

#[test]
fn smollm2_shows_whole_emoji() {
    let Some(engine) = smollm2("smollm2_shows_whole_emoji") else {
        return;
    };
    let got = answer(engine, request(engine, text(&"👋🌊 ".repeat(8))));
    assert!(got.text().contains('🌊'), "{}", got.text());
    // An emoji has several tokens: the pieces before its last one are empty.
    assert!(got.pieces.iter().any(String::is_empty));
    for piece in &got.pieces {
        assert!(!piece.contains('\u{fffd}'), "half a character in {piece:?}");
    }
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let Some(engine) = smollm2("a_stop_string_ends_the_answer_before_it") else {
        return;
    };
    let plain = request(engine, question("Count from one to ten in words."));
    let whole = answer(engine, plain.clone());
    let ends: Vec<usize> = (0..whole.ids.len())
        .map(|tokens| whole.pieces[..tokens].concat().len())
        .collect();
    // From inside one token into the next but one.
    let (from, to) = (ends[6] - 1, ends[8] + 1);
    let stop = whole.text()[from..to].to_owned();
    let before = whole.text().split(&stop).next().unwrap().to_owned();
    let got = answer(
        engine,
        Generate {
            stop: vec!["never said".into(), stop],
            ..plain
        },
    );
    assert_eq!(got.text(), before);
    assert_eq!(got.reason(), EndReason::Stop);
    assert_eq!(got.ids, whole.ids[..got.ids.len()]);
    assert!(got.ids.len() < whole.ids.len());
}

#[test]
fn the_end_token_is_a_token_without_text() {
    let Some(engine) = smollm2("the_end_token_is_a_token_without_text") else {
        return;
    };
    let got = answer(
        engine,
        request(engine, question("What is the capital of France?")),
    );
    assert_eq!(got.reason(), EndReason::Stop);
    assert_eq!(got.ids.last(), Some(&2));
    assert_eq!(got.pieces.last().unwrap(), "");
    assert_eq!(got.text(), "The capital of France is Paris.");
}

#[test]
fn the_context_s_end_is_the_answer_s() {
    let engine = tiny();
    let prompt = text(&"x".repeat(120));
    assert_eq!(engine.count_tokens(&model(engine), &prompt), Ok(120));
    let got = answer(engine, request(engine, prompt));
    assert_eq!(got.reason(), EndReason::Length);
    assert_eq!(got.ids.len(), 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With any seed and any stop string, the text is that of the tokens, up to
    /// the stop string.
    #[test]
    fn the_text_is_that_of_the_tokens(seed: u64, stop in "[a-z ]{1,2}") {
        let engine = tiny();
        let got = answer(engine, Generate {
            stop: vec![stop.clone()],
            ..sampled(engine, text("The"), seed)
        });
        let decoded = engine.decode(&model(engine), &got.ids).unwrap();
        let expected = decoded.split(&stop).next().unwrap().to_owned();
        prop_assert_eq!(got.text(), expected);
        let stopped = decoded.contains(&stop) || [0, 2].contains(got.ids.last().unwrap());
        prop_assert_eq!(got.reason() == EndReason::Stop, stopped);
    }
}
