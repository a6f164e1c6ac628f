//! A real model answers through the real market.

use infernet_tests::Market;

use crate::{MINILM, SMOLLM2, model};

#[test]
fn a_real_model_answers_as_the_reference_does() {
    let test = "a_real_model_answers_as_the_reference_does";
    let Some(smollm2) = model(test, SMOLLM2) else {
        return;
    };
    let market = Market::open().unwrap();
    let _provider = market
        .provider(
            "alpha",
            &["--model", smollm2.to_str().unwrap(), "--threads", "1"],
        )
        .unwrap();
    let buyer = market.client("buyer");
    let (question, max_tokens, answer) = reference();
    let ask = |route: &[&str]| {
        let mut arguments = vec!["submit", "--json", "-n", &max_tokens];
        arguments.extend(route);
        arguments.push(&question);
        buyer.json(&arguments).unwrap()
    };

    let direct = ask(&[]);
    let auction = ask(&["--auction"]);
    for done in [&direct, &auction] {
        assert_eq!(done["status"], "done");
        assert_eq!(done["attempts"], 1);
        assert_eq!(done["provider_name"], "alpha");
        assert_eq!(done["text"], answer);
    }

    let drawn = ["--temperature", "0.9", "--seed", "7"];
    let (first, second) = (ask(&drawn), ask(&drawn));
    assert_eq!(first["text"], second["text"], "a seed repeats its draw");
    assert_ne!(first["text"], direct["text"]);

    audit_finds_nothing_wrong(
        &buyer,
        direct["job"].as_str().unwrap(),
        &["award", "result", "attestation"],
    );
    audit_finds_nothing_wrong(
        &buyer,
        auction["job"].as_str().unwrap(),
        &["offer", "bid", "award", "result", "attestation"],
    );

    let providers = buyer.json(&["providers", "--json"]).unwrap();
    let score = providers[0]["score"].as_f64().unwrap();
    assert!(score > 0.5, "four good jobs do not show in {score}");
}

/// The longest answer to a chat of one message: the question, its length, and transformers' greedy answer to it.
fn reference() -> (String, String, String) {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../engine/tests/reference/answers.json"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let answers: serde_json::Value = serde_json::from_str(&text).unwrap();
    let one = answers["answers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|answer| {
            let chat = answer["prompt"]["chat"].as_array();
            chat.is_some_and(|chat| chat.len() == 1)
        })
        .max_by_key(|answer| answer["output"].as_array().map(Vec::len))
        .unwrap();
    let question = one["prompt"]["chat"][0]["content"].as_str().unwrap();
    let tokens = one["output"].as_array().unwrap().len();
    let text = one["text"].as_str().unwrap();
    (question.into(), tokens.to_string(), text.into())
}

fn audit_finds_nothing_wrong(buyer: &infernet_tests::Client, job: &str, kinds: &[&str]) {
    let shown = buyer.run(&["show", job]).unwrap();
    for kind in kinds {
        assert!(
            shown.stdout.contains(kind),
            "{kind} is not in\n{}",
            shown.stdout
        );
    }
    let audit = buyer.run(&["audit", job]).unwrap();
    assert!(audit.status.success(), "{}", audit.stdout);
    assert!(audit.stdout.contains(" 0 wrong"), "{}", audit.stdout);
    assert!(audit.stdout.contains("output hash"), "{}", audit.stdout);
}

#[test]
fn sentences_become_vectors() {
    let Some(minilm) = model("sentences_become_vectors", MINILM) else {
        return;
    };
    let market = Market::open().unwrap();
    let _provider = market
        .provider(
            "alpha",
            &["--model", minilm.to_str().unwrap(), "--threads", "1"],
        )
        .unwrap();
    let done = market
        .client("buyer")
        .json(&[
            "embed",
            "--json",
            "a cat sleeps",
            "a kitten naps",
            "tax law",
        ])
        .unwrap();
    let vectors: Vec<Vec<f64>> = serde_json::from_value(done["vectors"].clone()).unwrap();
    assert_eq!(vectors.len(), 3);
    assert!(vectors.iter().all(|vector| vector.len() == 384));
    let likeness = |a: usize, b: usize| -> f64 {
        vectors[a].iter().zip(&vectors[b]).map(|(x, y)| x * y).sum()
    };
    assert!((likeness(0, 0) - 1.0).abs() < 1e-4, "not of length 1");
    assert!(likeness(0, 1) > likeness(0, 2) + 0.2, "meaning is lost");
}
