//! The scripted engine behaves as the real one where it is not told otherwise.

use infernet_engine::{Embed, Engine, Error, Fault, Generate, Script, ScriptedEngine};
use infernet_protocol::inference::{Dtype, EndReason};

use crate::harness::{Answer, answer, request, text, wait};

fn engine(fault: Fault) -> ScriptedEngine {
    ScriptedEngine::new(Script {
        text: "one two  three four 🌊".into(),
        tokens_per_second: 10_000.0,
        capacity: 1,
        fault,
        ..Script::default()
    })
}

#[test]
fn it_says_its_text() {
    let engine = engine(Fault::None);
    assert_eq!(engine.models()[0].dtype, Dtype::Scripted);
    let got = answer(&engine, request(&engine, text("go on")));
    assert_eq!(got.text(), "one two  three four 🌊");
    assert_eq!(got.ids, [0, 1, 2, 3, 4, 5]);
    assert_eq!(got.pieces, ["one", " two", "  three", " four", " 🌊", ""]);
    assert_eq!(got.reason(), EndReason::Stop);
    assert_eq!(got.input_tokens, Some(2));
}

#[test]
fn it_continues_and_stops_as_the_real_one() {
    let engine = engine(Fault::None);
    let plain = Generate {
        stop: vec!["ee fo".into()],
        ..request(&engine, text("go on"))
    };
    let whole = answer(&engine, plain.clone());
    assert_eq!(whole.text(), "one two  thr");
    for cut in 0..=whole.ids.len() {
        let rest = answer(
            &engine,
            Generate {
                prefix: whole.ids[..cut].to_vec(),
                ..plain.clone()
            },
        );
        let expected = Answer {
            ids: whole.ids[cut..].to_vec(),
            pieces: whole.pieces[cut..].to_vec(),
            ..whole.clone()
        };
        assert_eq!(rest, expected, "after {cut}");
    }
    let short = Generate {
        max_tokens: 2,
        ..request(&engine, text("go on"))
    };
    let got = answer(&engine, short);
    assert_eq!(
        (got.text().as_str(), got.reason()),
        ("one two", EndReason::Length)
    );
}

#[test]
fn it_fails_and_errs_on_demand() {
    let engine = engine(Fault::FailAfter(2));
    let got = answer(&engine, request(&engine, text("go on")));
    assert_eq!(got.text(), "one two");
    assert!(matches!(got.error(), Error::Computation(_)));

    engine.set_fault(Fault::WrongAfter(1));
    let got = answer(&engine, request(&engine, text("go on")));
    assert_eq!(got.ids[0], 0);
    assert_ne!(got.ids[1], 1);

    engine.set_fault(Fault::Refuse);
    let refused = engine.generate(request(&engine, text("go on")));
    assert_eq!(refused.unwrap_err(), Error::Busy);
}

#[test]
fn it_stalls_until_cancelled_and_counts_its_places() {
    let engine = engine(Fault::StallAfter(1));
    let mut stalled = engine.generate(request(&engine, text("go on"))).unwrap();
    let mut got = Answer::default();
    wait(async {
        while got.ids.is_empty() {
            got.take(stalled.next().await.unwrap());
        }
    });
    let second = engine.generate(request(&engine, text("go on")));
    assert_eq!(second.unwrap_err(), Error::Busy);
    stalled.cancel();
    got.take(wait(stalled.next()).unwrap());
    assert_eq!(got.reason(), EndReason::Cancelled);
    engine.set_fault(Fault::None);
    // The place is free as soon as the last step has come.
    assert_eq!(answer(&engine, request(&engine, text("go"))).ids.len(), 6);
}

#[test]
fn it_embeds() {
    let engine = engine(Fault::None);
    let model = engine.models()[1].id;
    let embed = |word: &str| {
        let texts = vec![word.to_owned()];
        wait(engine.embed(Embed { model, texts }).unwrap().wait()).unwrap()
    };
    assert_eq!(embed("sea"), embed("sea"));
    assert_ne!(embed("sea"), embed("sky"));
    let length: f32 = embed("sea").vectors[0].iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-5);
}
