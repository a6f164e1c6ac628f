//! Of what travels encrypted.

use infernet_protocol::bounds::*;
use infernet_protocol::inference::{Message, Prompt, Role, Sampling};
use infernet_protocol::payload::{
    Decline, Generate, Input, News, Output, Payload as _, Product, Progress, Vector, Work,
};
use infernet_protocol::seal::Salt;
use infernet_protocol::tensor::{Element, Tensor};
use proptest::prelude::*;

use super::of_bytes;
use crate::generate;

/// Sets one thing to a size.
type Change = fn(&mut Generate, usize);

fn generation() -> Generate {
    Generate {
        prompt: Prompt::Text("Say it.".into()),
        sampling: Sampling::default(),
        max_tokens: 10,
        stop: vec![],
        prefix: vec![],
    }
}

fn accepted(generate: Generate) -> bool {
    let input = Input {
        salt: Salt::from_bytes([1; 32]),
        work: Work::TextGeneration(generate),
        prove: false,
    };
    Input::from_bytes(&input.to_bytes()).is_ok_and(|read| read == input)
}

#[test]
fn of_an_input() {
    let with = |change: Change, n: usize| {
        let mut generate = generation();
        change(&mut generate, n);
        accepted(generate)
    };
    let chat: Change = |g, n| {
        let message = Message {
            role: Role::User,
            content: "x".into(),
        };
        g.prompt = Prompt::Chat(vec![message; n]);
    };
    let bounds: [(usize, Change); 6] = [
        (MAX_OUTPUT_TOKENS as usize, |g, n| g.max_tokens = n as u32),
        (MAX_STOP_STRINGS, |g, n| g.stop = vec!["x".into(); n]),
        (MAX_STOP_BYTES, |g, n| g.stop = vec![of_bytes(n)]),
        (MAX_MESSAGES, chat),
        (10, |g, n| g.prefix = vec![7; n]),
        (MAX_SAFE_INTEGER as usize, |g, n| g.sampling.seed = n as u64),
    ];
    for (bound, change) in bounds {
        assert!(with(change, bound), "at {bound}");
        assert!(!with(change, bound + 1), "over {bound}");
    }
    let refused: [Change; 6] = [
        |g, _| g.max_tokens = 0,
        |g, _| g.stop = vec![String::new()],
        |g, _| g.prompt = Prompt::Chat(vec![]),
        |g, _| g.prompt = Prompt::Text(String::new()),
        |g, _| g.sampling.top_p = 0.0,
        |g, _| g.sampling.temperature = f32::NAN,
    ];
    for (n, change) in refused.into_iter().enumerate() {
        assert!(!with(change, 0), "{n}");
    }
    for (temperature, top_p, holds) in [
        (0.0, 1.0, true),
        (2.0, 0.001, true),
        (2.001, 1.0, false),
        (-0.001, 1.0, false),
        (1.0, 1.001, false),
    ] {
        let sampling = Sampling {
            temperature,
            top_p,
            ..Sampling::default()
        };
        assert_eq!(
            accepted(Generate {
                sampling,
                ..generation()
            }),
            holds
        );
    }
}

#[test]
fn of_texts_to_embed() {
    let accepted = |texts: Vec<String>| {
        let input = Input {
            salt: Salt::from_bytes([1; 32]),
            work: Work::Embedding { texts },
            prove: false,
        };
        Input::from_bytes(&input.to_bytes()).is_ok()
    };
    assert!(accepted(vec!["x".into(); MAX_TEXTS]));
    assert!(!accepted(vec!["x".into(); MAX_TEXTS + 1]));
    assert!(!accepted(vec![]));
    assert!(!accepted(vec!["x".into(), String::new()]));
}

fn tensors_are_accepted(inputs: Vec<Tensor>) -> bool {
    let input = Input {
        salt: Salt::from_bytes([1; 32]),
        work: Work::Tensors { inputs },
        prove: false,
    };
    Input::from_bytes(&input.to_bytes()).is_ok_and(|read| read == input)
}

proptest! {
    #[test]
    fn of_tensors_that_are_what_they_say(tensor in generate::tensor()) {
        prop_assert!(tensor.validate().is_ok());
        prop_assert_eq!(tensor.tokens(), tensor.data.len().div_ceil(4) as u64);
        prop_assert!(tensors_are_accepted(vec![tensor.clone()]));
        let longer = Tensor { data: [&tensor.data[..], &[0]].concat(), ..tensor };
        prop_assert!(!tensors_are_accepted(vec![longer]));
    }
}

#[test]
fn of_tensors() {
    let tensor = |n: usize| Tensor {
        name: format!("x{n}"),
        dtype: Element::I16,
        shape: vec![2],
        data: vec![1, 0, 2, 0],
    };
    let with = |change: fn(&mut Tensor)| {
        let mut one = tensor(0);
        change(&mut one);
        tensors_are_accepted(vec![one])
    };
    assert!(tensors_are_accepted((0..MAX_TENSORS).map(tensor).collect()));
    assert!(!tensors_are_accepted(
        (0..=MAX_TENSORS).map(tensor).collect()
    ));
    assert!(!tensors_are_accepted(vec![]));
    assert!(!tensors_are_accepted(vec![tensor(0), tensor(0)]));
    let dimensions = |n| {
        let mut one = tensor(0);
        one.shape = [vec![1; n - 1], vec![2]].concat();
        tensors_are_accepted(vec![one])
    };
    assert!(dimensions(MAX_DIMENSIONS));
    assert!(!dimensions(MAX_DIMENSIONS + 1));
    let refused: [fn(&mut Tensor); 8] = [
        |t| t.name = String::new(),
        |t| t.name = "../up".into(),
        |t| t.name = ".hidden".into(),
        |t| t.name = of_bytes(MAX_NAME_BYTES + 1),
        |t| t.shape = vec![3],
        // Their product is 4 with 64 bits.
        |t| t.shape = vec![1 << 63, 1 << 63, 2],
        |t| t.dtype = Element::I32,
        |t| t.dtype = Element::Bool,
    ];
    for (n, change) in refused.into_iter().enumerate() {
        assert!(!with(change), "{n}");
    }
    assert!(with(|t| {
        t.name = of_bytes(MAX_NAME_BYTES);
        t.shape = vec![];
        t.data.truncate(2);
    }));
}

#[test]
fn of_an_output_and_of_news() {
    let accepted = |product| {
        let output = Output {
            salt: Salt::from_bytes([1; 32]),
            product,
            proofs: vec![],
        };
        Output::from_bytes(&output.to_bytes()).is_ok()
    };
    let vectors = |n| Product::Embedding {
        vectors: vec![Vector(vec![1.0]); n],
    };
    assert!(accepted(vectors(MAX_TEXTS)));
    assert!(!accepted(vectors(MAX_TEXTS + 1)));
    let news = |detail| {
        let progress = Progress {
            award: nostr::EventId::all_zeros(),
            tab: None,
            news: News::Declined {
                reason: Decline::Busy,
                detail,
            },
        };
        Progress::from_bytes(&progress.to_bytes()).is_ok()
    };
    assert!(news(of_bytes(MAX_REASON_BYTES)));
    assert!(!news(of_bytes(MAX_REASON_BYTES + 1)));
    assert!(!news("\u{1b}[2J".into()));
}
