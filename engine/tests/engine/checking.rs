//! An answer that was given is found honest, and whatever is wrong with one is found.

use infernet_engine::{CheckText, Engine, Generate, Script, ScriptedEngine, Standing};
use infernet_protocol::inference::{Dtype, EndReason, Prompt, Sampling};
use infernet_protocol::payload::{Generated, Proof};
use infernet_protocol::verification::{ChunkDistance, Fault, TextFigures};

use crate::harness::{
    answer, load, question, reference_folder, request, smollm2, text, tiny, wait,
};

/// Asks, and gives what it takes to check the answer.
fn answered(engine: &dyn Engine, request: Generate) -> CheckText {
    let request = Generate {
        prove: true,
        ..request
    };
    let answer = answer(engine, request.clone());
    CheckText {
        model: request.model,
        prompt: request.prompt,
        sampling: request.sampling,
        max_tokens: request.max_tokens,
        stop: request.stop,
        prefix: request.prefix,
        answer: Generated {
            text: answer.text(),
            tokens: answer.ids.clone(),
            input_tokens: answer.input_tokens.unwrap(),
            ended: answer.reason(),
            error: None,
        },
        proof: answer.proof,
        clip: 10.0,
        standing: Standing::default(),
    }
}

fn check(engine: &dyn Engine, check: &CheckText) -> TextFigures {
    wait(engine.check(check.clone()).unwrap().wait()).unwrap()
}

fn sampled(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.0,
        top_p: 0.95,
        top_k: 100,
        seed,
    }
}

/// Every figure that is not as an honest answer's is a failure.
fn assert_honest(engine: &dyn Engine, asked: &CheckText) {
    let figures = check(engine, asked);
    assert_eq!(figures.fault, None);
    assert_eq!(figures.greedy, asked.sampling.temperature == 0.0);
    let tokens = asked.answer.tokens.len();
    assert_eq!(figures.margins.len(), tokens);
    let far = figures.margins.iter().filter(|margin| **margin > 1e-3);
    assert_eq!(far.count(), 0, "{:?}", figures.margins);
    assert_eq!(figures.chunks.len(), tokens.div_ceil(32));
    for chunk in figures.chunks {
        assert!(
            chunk.exponents <= 4 && chunk.mantissa_mean < 1.0,
            "{chunk:?}"
        );
    }
}

#[test]
fn honest_answers_are_found_honest() {
    let engine = tiny();
    for seed in 0..4 {
        for sampling in [sampled(seed), Sampling::default()] {
            let plain = Generate {
                sampling,
                max_tokens: 70,
                ..request(engine, text("The sea is"))
            };
            assert_honest(engine, &answered(engine, plain.clone()));
            let whole = answer(engine, plain.clone()).ids;
            let continued = Generate {
                prefix: whole[..whole.len() / 3].to_vec(),
                ..plain
            };
            assert_honest(engine, &answered(engine, continued));
        }
    }
}

#[test]
fn a_real_model_finds_itself_honest() {
    let Some(engine) = smollm2("a_real_model_finds_itself_honest") else {
        return;
    };
    let prompt = question("Which colours has a rainbow?");
    for sampling in [sampled(5), Sampling::default()] {
        let request = Generate {
            sampling,
            ..request(engine, prompt.clone())
        };
        assert_honest(engine, &answered(engine, request));
    }
}

#[test]
fn eight_bits_are_a_little_far_and_other_weights_very_far() {
    let engine = tiny();
    let plain = Generate {
        sampling: sampled(3),
        max_tokens: 96,
        ..request(engine, text("The sea is"))
    };
    let honest = answered(engine, plain.clone());
    let mut invented = honest.clone();
    invented.answer.tokens.reverse();
    invented.answer.ended = EndReason::Length;
    invented.answer.text = engine
        .decode(&honest.model, &invented.answer.tokens)
        .unwrap();
    let figures = check(engine, &invented);
    let mean =
        |figures: &TextFigures| figures.margins.iter().sum::<f32>() / figures.margins.len() as f32;
    assert!(
        figures.fault.is_some() || mean(&figures) > 0.5,
        "{figures:?}"
    );
    let eight = load(reference_folder().join("tiny-llama"), Dtype::Int8);
    let mut asked = answered(
        &eight,
        Generate {
            model: eight.models()[0].id,
            ..plain
        },
    );
    asked.model = honest.model;
    let figures = check(engine, &asked);
    let different = |chunk: &ChunkDistance| chunk.exponents > 0 || chunk.mantissa_mean > 0.2;
    assert!(figures.chunks.iter().any(different), "{figures:?}");
}

/// Makes an answer wrong; it is told the model's end token.
type Spoil = fn(&mut CheckText, u32);

/// Whatever is wrong in itself, with a name for each.
#[test]
fn what_is_certainly_wrong_is_found() {
    let engine = tiny();
    let plain = Generate {
        sampling: sampled(1),
        max_tokens: 20,
        ..request(engine, text("The sea is"))
    };
    let honest = answered(engine, plain.clone());
    assert_eq!(honest.answer.tokens.len(), 20);
    assert_eq!(honest.answer.ended, EndReason::Length);
    let end = end_token();
    let cases: [(Fault, Spoil); 12] = [
        (Fault::UnknownToken, |c, _| c.answer.tokens[3] = 999_999),
        (Fault::TooLong, |c, _| c.max_tokens = 19),
        (Fault::GoesOnAfterEnd, |c, end| c.answer.tokens[3] = end),
        (Fault::GoesOnAfterEnd, |c, _| {
            c.stop = vec![c.answer.text.chars().take(2).collect()];
        }),
        (Fault::EndsFalsely, |c, _| c.answer.ended = EndReason::Stop),
        (Fault::EndsFalsely, |c, _| {
            c.answer.ended = EndReason::Cancelled
        }),
        (Fault::EndsFalsely, |c, _| {
            c.answer.tokens.pop();
        }),
        // One that the model does not draw there.
        (Fault::EndsFalsely, |c, end| {
            cut(c, 12);
            c.answer.tokens.push(end);
        }),
        (Fault::TextDiffers, |c, _| c.answer.text.push('!')),
        (Fault::InputMiscounted, |c, _| c.answer.input_tokens += 1),
        (Fault::NoProof, |c, _| c.proof = Some(Proof(vec![]))),
        (Fault::NoProof, |c, _| c.proof = Some(Proof(vec![0; 259]))),
    ];
    for (number, (fault, spoil)) in cases.into_iter().enumerate() {
        let mut asked = honest.clone();
        spoil(&mut asked, end);
        let figures = check(engine, &asked);
        assert_eq!(figures.fault, Some(fault), "case {number}");
    }
    let mut unproven = honest;
    unproven.proof = None;
    let figures = check(engine, &unproven);
    assert!(figures.fault.is_none() && figures.chunks.is_empty());
}

/// Leaves so many tokens and a false reason.
fn cut(asked: &mut CheckText, tokens: usize) {
    asked.answer.tokens.truncate(tokens);
    asked.answer.ended = EndReason::Stop;
    asked.answer.text = tiny().decode(&asked.model, &asked.answer.tokens).unwrap();
    asked.clip = 2.0;
}

/// The tiny Llama's.
fn end_token() -> u32 {
    2
}

#[test]
fn an_answer_without_tokens_is_judged_by_its_end() {
    let engine = tiny();
    let whole = answered(
        engine,
        Generate {
            max_tokens: 5,
            ..request(engine, text("The sea is"))
        },
    );
    let mut rest = CheckText {
        prefix: whole.answer.tokens.clone(),
        ..whole
    };
    rest.answer.tokens.clear();
    rest.answer.text.clear();
    rest.proof = Some(Proof(vec![]));
    assert_eq!(check(engine, &rest).fault, None);
    rest.prefix.pop();
    assert_eq!(check(engine, &rest).fault, Some(Fault::EndsFalsely));
}

#[test]
fn a_scripted_engine_proves_and_checks() {
    let engine = ScriptedEngine::new(Script {
        tokens_per_second: 1e6,
        ..Script::default()
    });
    let prompt = Prompt::Text("one two".into());
    let honest = answered(
        &engine,
        Generate {
            stop: vec!["boat".into()],
            ..request(&engine, prompt.clone())
        },
    );
    assert_honest(&engine, &honest);
    assert_honest(
        &engine,
        &answered(&engine, request(&engine, prompt.clone())),
    );
    engine.set_fault(infernet_engine::Fault::WrongAfter(0));
    let wrong = answered(&engine, request(&engine, prompt));
    let figures = check(&engine, &honest);
    assert!(figures.margins.iter().all(|margin| *margin == 10.0));
    engine.set_fault(infernet_engine::Fault::None);
    let figures = check(&engine, &wrong);
    assert!(figures.margins.contains(&10.0));
    assert!(figures.chunks[0].exponents > 60);
}
