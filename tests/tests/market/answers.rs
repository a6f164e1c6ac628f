//! A real model answers through the real market.

use infernet_protocol::tensor::Tensor;
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
    assert!(score > 0.35, "four good jobs do not show in {score}");
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

/// What libtorch's Python gives for the same tensors.
#[test]
fn a_module_gives_what_python_gives() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/reference/");
    let market = Market::open().unwrap();
    let module = format!("{folder}tiny-classifier");
    let _provider = market
        .provider("alpha", &["--model", &module, "--threads", "1"])
        .unwrap();
    let reference = std::fs::read(format!("{folder}tiny-classifier.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_slice(&reference).unwrap();
    let files = tempfile::tempdir().unwrap();
    let buyer = market.client("buyer");
    for case in reference["cases"].as_array().unwrap() {
        let inputs: Vec<Tensor> = serde_json::from_value(case["inputs"].clone()).unwrap();
        let expected: Vec<Tensor> = serde_json::from_value(case["outputs"].clone()).unwrap();
        let [images, temperature] = &inputs[..] else {
            panic!("{inputs:?}");
        };
        let file = files.path().join("images.npy");
        std::fs::write(&file, npy("|u1", images)).unwrap();
        let images = format!("images={}", file.display());
        let file = files.path().join("temperature.json");
        let number: [u8; 4] = temperature.data[..].try_into().unwrap();
        std::fs::write(&file, f32::from_le_bytes(number).to_string()).unwrap();
        let temperature = format!("temperature={}", file.display());
        let folder = files.path().join("outputs");
        let arguments = [
            "run",
            "--json",
            "-m",
            "tiny-classifier",
            "-i",
            &images,
            "-i",
            &temperature,
            "-o",
            folder.to_str().unwrap(),
        ];
        let done = buyer.json(&arguments).unwrap();
        let tensors: Vec<Tensor> = serde_json::from_value(done["tensors"].clone()).unwrap();
        let class = std::fs::read(folder.join("class.npy")).unwrap();
        assert!(class.ends_with(&expected[1].data));
        assert_eq!(tensors[1], expected[1]);
        assert_eq!(tensors[0].shape, expected[0].shape);
        let pairs = floats(&tensors[0]).zip(floats(&expected[0]));
        for (got, expected) in pairs {
            assert!((got - expected).abs() < 1e-5, "{got} {expected}");
        }
        let job = done["job"].as_str().unwrap();
        audit_finds_nothing_wrong(&buyer, job, &["award", "result", "attestation"]);
    }
    let wrong = format!("images={}", files.path().join("temperature.json").display());
    let ran = buyer
        .run(&["run", "-m", "tiny-classifier", "-i", &wrong])
        .unwrap();
    assert!(!ran.status.success());
    assert!(ran.stderr.contains("images, temperature"), "{}", ran.stderr);
}

/// A tensor as numpy.save writes it.
fn npy(format: &str, tensor: &Tensor) -> Vec<u8> {
    let shape: String = tensor.shape.iter().map(|n| format!("{n}, ")).collect();
    let mut header =
        format!("{{'descr': '{format}', 'fortran_order': False, 'shape': ({shape}), }}");
    header.push_str(&" ".repeat(117 - header.len()));
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(header.as_bytes());
    bytes.push(b'\n');
    bytes.extend(&tensor.data);
    bytes
}

fn floats(tensor: &Tensor) -> impl Iterator<Item = f32> {
    let (floats, rest) = tensor.data.as_chunks();
    assert!(rest.is_empty());
    floats.iter().map(|bytes| f32::from_le_bytes(*bytes))
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
