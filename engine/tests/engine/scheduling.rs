//! Several requests at once: all progress, any can be stopped, the queue has
//! an end.

use std::time::{Duration, Instant};

use infernet_engine::{Engine, Error, Generate, MAX_AHEAD, Options, Step, TorchEngine};
use infernet_protocol::inference::EndReason;

use crate::harness::{
    Answer, answer, finish, load, options, question, reference_folder, request, smollm2, text,
    tiny, wait,
};
use infernet_engine::ModelSource;
use infernet_protocol::inference::Dtype;

/// A request that runs for many seconds if it is left alone.
fn long(engine: &dyn Engine) -> Generate {
    Generate {
        max_tokens: 2000,
        ..request(engine, text("1, 2, 3, 4, 5, 6, 7, 8,"))
    }
}

#[test]
fn a_short_request_overtakes_a_long_one() {
    let Some(engine) = smollm2("a_short_request_overtakes_a_long_one") else {
        return;
    };
    let mut slow = engine.generate(long(engine)).unwrap();
    let mut got = Answer::default();
    wait(async {
        while got.ids.len() < 3 {
            got.take(slow.next().await.unwrap());
        }
    });
    let quick = answer(
        engine,
        request(engine, question("What is the capital of France?")),
    );
    assert_eq!(quick.text(), "The capital of France is Paris.");
    slow.cancel();
    let rest = finish(slow);
    assert_eq!(rest.reason(), EndReason::Cancelled);
    // The long one went on beside the short one, and stopped soon.
    assert!(rest.ids.len() >= quick.ids.len() - 1, "{}", rest.ids.len());
    assert!(rest.ids.len() < 1000);
}

/// What is not read is not computed: whoever pays as it reads leaves little
/// unpaid.
#[test]
fn a_reader_that_is_behind_holds_up_its_own_answer_alone() {
    let Some(engine) = smollm2("a_reader_that_is_behind_holds_up_its_own_answer_alone") else {
        return;
    };
    let unread = engine.generate(long(engine)).unwrap();
    let beside = Generate {
        max_tokens: 100,
        ..long(engine)
    };
    // The two take turns, so that the first could have drawn as many.
    let read = answer(engine, beside);
    assert_eq!(read.ids.len(), 100);
    unread.cancel();
    let got = finish(unread);
    assert_eq!(got.reason(), EndReason::Cancelled);
    let ahead = got.ids.len();
    assert!((MAX_AHEAD / 2..=MAX_AHEAD).contains(&ahead), "{ahead}");
    assert_eq!(got.ids, read.ids[..ahead], "and it is the same answer");
}

#[test]
fn cancelling_ends_between_tokens_and_keeps_what_was_said() {
    let Some(engine) = smollm2("cancelling_ends_between_tokens_and_keeps_what_was_said") else {
        return;
    };
    let generation = engine.generate(long(engine)).unwrap();
    generation.cancel();
    let got = finish(generation);
    assert_eq!(got.reason(), EndReason::Cancelled);
    assert!(got.ids.len() <= 2);
}

#[test]
fn dropping_a_generation_frees_its_slot() {
    let Some(folder) = crate::harness::fetched(
        "dropping_a_generation_frees_its_slot",
        "smollm2-135m-instruct",
    ) else {
        return;
    };
    let engine = TorchEngine::load(Options {
        slots: Some(1),
        queue: 1,
        ..options(vec![ModelSource::new(folder)])
    })
    .unwrap();
    let mut first = engine.generate(long(&engine)).unwrap();
    // It has the slot as soon as it has started.
    assert!(matches!(wait(first.next()), Some(Step::Started { .. })));
    let second = engine.generate(long(&engine)).unwrap();
    assert!(matches!(engine.generate(long(&engine)), Err(Error::Busy)));
    drop((first, second));
    let short = Generate {
        max_tokens: 1,
        ..long(&engine)
    };
    // The queue's place is free when the worker has looked at it.
    let deadline = Instant::now() + Duration::from_secs(60);
    let got = loop {
        match engine.generate(short.clone()) {
            Ok(generation) => break finish(generation),
            Err(error) => assert_eq!(error, Error::Busy),
        }
        assert!(Instant::now() < deadline, "the slot was never freed");
        std::thread::yield_now();
    };
    assert_eq!(got.reason(), EndReason::Length);
}

#[test]
fn stopping_the_engine_fails_what_runs() {
    let engine = load(reference_folder().join("tiny-llama"), Dtype::F32);
    let generations: Vec<_> = (0..40)
        .map(|_| engine.generate(request(&engine, text("The sea"))).unwrap())
        .collect();
    drop(engine);
    for generation in generations {
        let mut generation = generation;
        let last = wait(async {
            let mut last = None;
            while let Some(step) = generation.next().await {
                last = Some(step);
            }
            last
        });
        // Done before the end, stopped while running, or never begun.
        match last {
            Some(Step::Ended { .. } | Step::Failed(Error::Stopped)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn many_at_once_answer_as_one_alone() {
    let alone = answer(tiny(), request(tiny(), text("The sea")));
    let generations: Vec<_> = (0..20)
        .map(|_| tiny().generate(request(tiny(), text("The sea"))).unwrap())
        .collect();
    for generation in generations {
        assert_eq!(finish(generation), alone);
    }
}
