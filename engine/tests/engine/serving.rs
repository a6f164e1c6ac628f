//! Many requests in one batch, over a cache that they share: each is answered as if it
//! were alone.

use infernet_engine::{Engine, Error, Generate, ModelSource, Options, Standing, TorchEngine};
use infernet_protocol::inference::Sampling;

use crate::harness::{
    Answer, answer, fetched, finish, model, options, question, reference_folder, request, smollm2,
    text, tiny,
};

/// Answers all at the same time.
fn together(engine: &dyn Engine, requests: &[Generate]) -> Vec<Answer> {
    let requests = requests.iter().cloned();
    let generations: Vec<_> = requests.map(|r| engine.generate(r).unwrap()).collect();
    generations.into_iter().map(finish).collect()
}

/// Prompts of many lengths, every other one sampled.
fn mixed(engine: &dyn Engine, count: u32) -> Vec<Generate> {
    let mixed = (0..count).map(|number| {
        let words = "the sea and the sky ".repeat(number as usize % 4);
        Generate {
            max_tokens: 5 + number * 3 % 40,
            sampling: Sampling {
                temperature: if number % 2 == 0 { 0.0 } else { 0.9 },
                seed: number.into(),
                ..Sampling::default()
            },
            standing: Standing {
                customer: u64::from(number) % 3,
                price: u64::from(number) % 5,
            },
            ..request(engine, text(&format!("{words}{number}")))
        }
    });
    mixed.collect()
}

#[test]
fn a_batch_answers_as_each_alone() {
    let requests = mixed(tiny(), 24);
    let alone: Vec<_> = requests.iter().map(|r| answer(tiny(), r.clone())).collect();
    assert_eq!(together(tiny(), &requests), alone);
    // Now with whatever is left in the cache.
    assert_eq!(together(tiny(), &requests), alone);
}

#[test]
fn smollm2_answers_in_a_batch_as_alone() {
    let Some(engine) = smollm2("smollm2_answers_in_a_batch_as_alone") else {
        return;
    };
    let long = format!(
        "{} Which numbers were these?",
        "one two three four ".repeat(100)
    );
    let asked = [
        "What is the capital of France?",
        "Tell me of the sea.",
        "Hi",
        &long,
    ];
    let requests = asked.map(|asked| request(engine, question(asked)));
    let alone = requests.clone().map(|request| answer(engine, request));
    assert_eq!(together(engine, &requests), alone);
}

#[test]
fn more_than_the_cache_holds_is_answered_one_after_the_other() {
    let engine = TorchEngine::load(Options {
        slots: Some(64),
        // 64 blocks of 32 tokens.
        cache_mib: Some(1),
        ..options(vec![ModelSource::new(
            reference_folder().join("tiny-llama"),
        )])
    })
    .unwrap();
    let capacity = engine.capacity(&model(&engine)).unwrap();
    assert_eq!((capacity.slots, capacity.cache_tokens), (64, 64 * 32));
    assert_eq!(capacity.cache_bytes, 1 << 20);
    let requests: Vec<_> = (0..60)
        .map(|number| Generate {
            max_tokens: 80,
            ..request(
                &engine,
                text(&format!("The {number}th sea, and all that is in it")),
            )
        })
        .collect();
    let alone: Vec<_> = requests.iter().map(|r| answer(tiny(), r.clone())).collect();
    assert_eq!(together(&engine, &requests), alone);
}

#[test]
fn what_the_cache_cannot_hold_is_refused_and_not_announced() {
    let test = "what_the_cache_cannot_hold_is_refused_and_not_announced";
    let Some(folder) = fetched(test, "smollm2-135m-instruct") else {
        return;
    };
    let engine = TorchEngine::load(Options {
        // Four blocks of 32 tokens, in f32.
        cache_mib: Some(6),
        ..options(vec![ModelSource::new(folder)])
    })
    .unwrap();
    assert_eq!(engine.models()[0].context, 128);
    let long = request(&engine, text(&"word ".repeat(200)));
    let Error::PromptTooLong { tokens, context } = answer(&engine, long).error() else {
        panic!("it was not refused for its length");
    };
    assert!(tokens >= 200 && context == 128);
    let short = request(&engine, question("What is the capital of France?"));
    assert_eq!(
        answer(&engine, short).text(),
        "The capital of France is Paris."
    );
}

#[test]
fn a_long_prompt_that_is_cancelled_frees_its_place() {
    let Some(engine) = smollm2("a_long_prompt_that_is_cancelled_frees_its_place") else {
        return;
    };
    let long = request(engine, text(&"so many words ".repeat(600)));
    let long: Vec<_> = (0..8)
        .map(|_| engine.generate(long.clone()).unwrap())
        .collect();
    drop(long);
    let short = request(engine, question("What is the capital of France?"));
    assert_eq!(
        answer(engine, short).text(),
        "The capital of France is Paris."
    );
}
