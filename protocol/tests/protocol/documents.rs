//! The documents under `nips/` say what the code does: every field, tag, word,
//! kind and bound in their tables is held against it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use infernet_protocol::batch::{Answer, Question};
use infernet_protocol::bounds::*;
use infernet_protocol::event::Body;
use infernet_protocol::inference::{Message, Prompt, Role, Sampling};
use infernet_protocol::kinds;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{
    Chain, Control, Decline, Generate, Input, News, Output, Payload as _, Piece, Product, Progress,
    Proof, Vector, Wish, Work,
};
use infernet_protocol::seal::Salt;
use infernet_protocol::tab::{SignedTotals, Statement, Totals};
use infernet_protocol::tensor::{Element, Tensor};
use nostr::EventId;
use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::{generate, parties};

/// The documents that are about this crate.
const OURS: [&str; 16] = [
    "README.md",
    "aggregator.md",
    "announcement.md",
    "batch.md",
    "escrow.md",
    "offer-and-bid.md",
    "award.md",
    "progress-and-control.md",
    "result.md",
    "receipt.md",
    "verdict.md",
    "attestation.md",
    "cancel.md",
    "sealing.md",
    "tab.md",
    "reputation.md",
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../nips")
}

pub fn document(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The cells of the first table under a heading, without its head.
pub fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let heading = format!("## {heading}\n");
    let start = document
        .find(&heading)
        .unwrap_or_else(|| panic!("no {heading}"));
    let lines = document[start + heading.len()..].lines();
    let rows = lines
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    rows.skip(2).map(cells).collect()
}

/// The names in the first column; a cell may hold several.
fn first_column(document: &str, heading: &str) -> BTreeSet<String> {
    let rows = table(document, heading);
    let names = rows.iter().flat_map(|row| row[0].split(", "));
    names
        .map(|name| name.trim_matches('`').to_owned())
        .collect()
}

/// The paths of a JSON value's leaves: `a.b[].c`. An event, an object whose names are
/// data, and one that is described elsewhere, are leaves.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if !is_leaf(map, path) => {
            for (name, value) in map {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(value, &format!("{path}{dot}{name}"), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                leaves(item, &format!("{path}[]"), found);
            }
        }
        Value::Array(_) => {}
        _ => drop(found.insert(path.to_owned())),
    }
}

fn is_leaf(map: &serde_json::Map<String, Value>, path: &str) -> bool {
    let ends = ["figures", "thresholds", "requests[]"];
    map.contains_key("sig") || ends.iter().any(|end| path.ends_with(end))
}

/// All that bodies of a kind can hold, and all their tags, seen in many of them.
fn seen<B: Body + std::fmt::Debug>(
    bodies: impl Strategy<Value = B>,
) -> (BTreeSet<String>, BTreeSet<String>, Vec<Value>) {
    let mut runner = TestRunner::deterministic();
    let (mut fields, mut tags, mut all) = (BTreeSet::new(), BTreeSet::new(), vec![]);
    for _ in 0..100 {
        let body = bodies.new_tree(&mut runner).unwrap().current();
        let value = serde_json::to_value(&body).unwrap();
        leaves(&value, "", &mut fields);
        tags.extend(body.tags().iter().map(|tag| tag.as_slice()[0].clone()));
        all.push(value);
    }
    tags.insert("alt".into());
    (fields, tags, all)
}

fn describes<B: Body + std::fmt::Debug>(
    name: &str,
    (content, tags): (&str, &str),
    bodies: impl Strategy<Value = B>,
) {
    let text = document(name);
    let (seen_fields, seen_tags, bodies) = seen(bodies);
    assert_eq!(
        first_column(&text, content),
        seen_fields,
        "{name}: {content}"
    );
    assert_eq!(first_column(&text, tags), seen_tags, "{name}: {tags}");
    for word in words(&bodies) {
        assert!(text.contains(&format!("`{word}`")), "{name}: {word}");
    }
}

/// The fixed words that bodies use as values.
fn words(bodies: &[Value]) -> BTreeSet<String> {
    let fixed = [
        "/status",
        "/hardware/device",
        "/checkers",
        "/task",
        "/dtype",
        "/ended",
        "/side",
        "/judgement",
        "/experience",
        "/reason",
        "/models/0/task",
        "/models/0/dtype",
        "/terms/0/kind",
        "/terms/0",
        "/terms/kind",
        "/terms",
        "/tasks/0",
        "/checking",
    ];
    let values = bodies.iter().flat_map(|body| {
        fixed
            .iter()
            .filter_map(|pointer| body.pointer(pointer)?.as_str().map(Into::into))
    });
    values.collect()
}

const CONTENT: (&str, &str) = ("Content", "Tags");

#[test]
fn describe_every_field_tag_and_word() {
    describes("announcement.md", CONTENT, generate::announcement());
    let offer = ("Content of an offer", "Tags of an offer");
    describes("offer-and-bid.md", offer, generate::offer());
    let bid = ("Content of a bid", "Tags of a bid");
    describes("offer-and-bid.md", bid, generate::bid());
    describes("award.md", CONTENT, generate::award());
    describes("result.md", CONTENT, generate::result());
    describes("receipt.md", CONTENT, generate::receipt());
    describes("verdict.md", CONTENT, generate::verdict());
    describes("attestation.md", CONTENT, generate::attestation());
    describes("cancel.md", CONTENT, generate::cancel());
    describes("aggregator.md", CONTENT, generate::aggregator());
    let quote = ("Content of a quote", "Tags of a quote");
    describes("batch.md", quote, generate::quote());
    let order = ("Content of an order", "Tags of an order");
    describes("batch.md", order, generate::order());
    let settlement = ("Content of a settlement", "Tags of a settlement");
    describes("batch.md", settlement, generate::settlement());
}

fn tensor() -> Tensor {
    Tensor {
        name: "x".into(),
        dtype: Element::U8,
        shape: vec![1],
        data: vec![7],
    }
}

fn generation(prompt: Prompt) -> Work {
    Work::TextGeneration(Generate {
        prompt,
        sampling: Sampling::default(),
        max_tokens: 1,
        stop: vec!["x".into()],
        prefix: vec![1],
    })
}

#[test]
fn describe_every_field_of_inputs_and_outputs() {
    let salt = Salt::from_bytes([1; 32]);
    let chat = Prompt::Chat(vec![Message {
        role: Role::User,
        content: "x".into(),
    }]);
    let texts = vec!["x".into()];
    let works = [
        generation(chat),
        generation(Prompt::Text("x".into())),
        Work::Embedding { texts },
        Work::Tensors {
            inputs: vec![tensor()],
        },
        generate::shard(),
        generate::checks(),
    ];
    let mut fields = BTreeSet::new();
    for work in works {
        let input = Input {
            salt,
            work,
            prove: true,
        };
        leaves(&serde_json::to_value(&input).unwrap(), "", &mut fields);
    }
    assert_eq!(first_column(&document("award.md"), "The input"), fields);

    let (text, tokens) = ("x".into(), vec![1]);
    let products = [
        Product::TextGeneration { text, tokens },
        Product::Embedding {
            vectors: vec![Vector(vec![1.0])],
        },
        Product::Tensors {
            outputs: vec![tensor()],
        },
        Product::Shard {
            answers: generate::every_generated(),
        },
        Product::Verify {
            verdicts: vec![parties::event(
                &generate::one(generate::verdict()),
                &parties::stranger(),
            )],
        },
    ];
    let mut fields = BTreeSet::new();
    for product in products {
        let output = Output {
            salt,
            product,
            proofs: vec![Proof(vec![1])],
        };
        leaves(&serde_json::to_value(&output).unwrap(), "", &mut fields);
    }
    assert_eq!(first_column(&document("result.md"), "The output"), fields);
}

#[test]
fn unknown_names_in_inputs_and_outputs_are_refused_as_they_say() {
    let salt = "11".repeat(32);
    let generate = serde_json::to_value(generation(Prompt::Text("x".into()))).unwrap();
    let input = serde_json::json!({ "salt": salt, "work": generate });
    let texts = serde_json::json!({ "embedding": { "texts": ["x"] } });
    let embedding = serde_json::json!({ "salt": salt, "work": texts });
    let tensors = serde_json::json!({ "tensors": { "inputs": [tensor()] } });
    let tensors = serde_json::json!({ "salt": salt, "work": tensors });
    for (value, within) in [
        (&input, ""),
        (&input, "/work/text-generation"),
        (&input, "/work/text-generation/sampling"),
        (&embedding, "/work/embedding"),
        (&tensors, "/work/tensors"),
        (&tensors, "/work/tensors/inputs/0"),
    ] {
        assert!(Input::from_bytes(value.to_string().as_bytes()).is_ok());
        let mut value = value.clone();
        value.pointer_mut(within).unwrap()["new"] = 1.into();
        let read = Input::from_bytes(value.to_string().as_bytes());
        assert!(read.is_err(), "{within}");
    }
    for product in [
        serde_json::json!({ "text-generation": { "text": "", "tokens": [], "new": 1 } }),
        serde_json::json!({ "embedding": { "vectors": [], "new": 1 } }),
        serde_json::json!({ "tensors": { "outputs": [], "new": 1 } }),
    ] {
        let output = serde_json::json!({ "salt": salt, "product": product });
        assert!(Output::from_bytes(output.to_string().as_bytes()).is_err());
    }
}

fn every_news() -> Vec<News> {
    let piece = Piece {
        seq: 0,
        tokens: vec![],
        text: String::new(),
        digest: Chain::start(&EventId::all_zeros()).digest(),
    };
    let due = News::Due {
        invoice: Some("x".into()),
    };
    let refused = News::RefundRefused {
        detail: String::new(),
    };
    let declined = News::Declined {
        reason: Decline::Busy,
        detail: String::new(),
    };
    let (accepted, alive) = (News::Accepted { ahead: 0 }, News::Alive { ahead: 0 });
    let payable = News::Payable {
        invoice: "x".into(),
    };
    vec![
        accepted,
        declined,
        alive,
        News::Piece(piece),
        due,
        News::Refunding,
        refused,
        payable,
    ]
}

fn signed_totals() -> SignedTotals {
    let statement = Statement {
        buyer: parties::buyer().public_key(),
        provider: parties::provider().public_key(),
        award: EventId::all_zeros(),
        totals: Totals::default(),
    };
    statement.signed(&parties::provider())
}

fn every_wish() -> [Wish; 6] {
    [
        Wish::Resend { from: 0 },
        Wish::Acknowledge {
            tab: signed_totals(),
        },
        Wish::Invoice { most_msat: Msat(1) },
        Wish::Refund {
            invoice: "x".into(),
        },
        Wish::Payout(generate::payout()),
        Wish::Stop,
    ]
}

/// The names in an object, lists whole.
fn names(value: &Value) -> impl Iterator<Item = String> {
    value.as_object().unwrap().keys().cloned()
}

#[test]
fn describe_every_message() {
    let text = document("progress-and-control.md");
    let award = EventId::all_zeros();
    let (mut fields, mut types) = (BTreeSet::new(), BTreeSet::new());
    for news in every_news() {
        let tab = Some(signed_totals());
        let value = serde_json::to_value(Progress { award, tab, news }).unwrap();
        fields.extend(names(&value));
        types.insert(value["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(first_column(&text, "Progress"), fields);
    let mut fields = BTreeSet::new();
    for wish in every_wish() {
        let value = serde_json::to_value(Control { award, wish }).unwrap();
        fields.extend(names(&value));
        types.insert(value["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(first_column(&text, "Control"), fields);
    let reasons = [
        Decline::Busy,
        Decline::Closing,
        Decline::Model,
        Decline::Terms,
        Decline::Late,
        Decline::TooLong,
        Decline::Continuation,
        Decline::Input,
    ];
    let reason = |reason: Decline| {
        serde_json::to_value(reason)
            .unwrap()
            .as_str()
            .unwrap()
            .into()
    };
    types.extend(reasons.map(reason));
    for word in types {
        assert!(text.contains(&format!("`{word}`")), "{word}");
    }
}

/// Many of them, as JSON.
fn many<T: serde::Serialize + std::fmt::Debug>(values: impl Strategy<Value = T>) -> Vec<Value> {
    let mut runner = TestRunner::deterministic();
    let value = |_| values.new_tree(&mut runner).unwrap().current();
    let values = (0..200).map(value);
    values
        .map(|value| serde_json::to_value(value).unwrap())
        .collect()
}

#[test]
fn describe_what_is_said_of_batches() {
    let text = document("batch.md");
    let questions = many::<Question>(generate::question());
    let answers = many::<Answer>(generate::answer());
    for (heading, messages) in [("Questions", &questions), ("Answers", &answers)] {
        let fields: BTreeSet<_> = messages.iter().flat_map(names).collect();
        assert_eq!(first_column(&text, heading), fields);
        let types = messages.iter().filter_map(|value| value["type"].as_str());
        for word in types {
            assert!(text.contains(&format!("`{word}`")), "{word}");
        }
    }
    let mut progress = BTreeSet::new();
    let mut phases = BTreeSet::new();
    for answer in &answers {
        let Some(standing) = answer.get("progress") else {
            continue;
        };
        progress.extend(names(standing));
        match &answer["phase"] {
            Value::String(word) => phases.extend([word.clone()]),
            Value::Object(phase) => {
                let inner = phase.iter();
                phases.extend(
                    inner.flat_map(|(phase, of)| names(of).map(move |n| format!("{phase}.{n}"))),
                );
            }
            _ => {}
        }
    }
    assert_eq!(first_column(&text, "Progress"), progress);
    assert_eq!(first_column(&text, "Phases of a group"), phases);
    let mut outcomes = BTreeSet::new();
    for outcome in generate::every_outcome() {
        leaves(&serde_json::to_value(outcome).unwrap(), "", &mut outcomes);
    }
    assert_eq!(first_column(&text, "Lines and outcomes"), outcomes);
}

#[test]
fn describe_a_payout() {
    let payout = serde_json::to_value(generate::payout()).unwrap();
    let mut fields = BTreeSet::new();
    leaves(&payout, "", &mut fields);
    assert_eq!(
        first_column(&document("escrow.md"), "Aggregator and provider"),
        fields
    );
}

#[test]
fn list_every_kind() {
    let text = document("README.md");
    let listed: BTreeSet<_> = first_column(&text, "Kinds");
    let all: BTreeSet<_> = kinds::ALL.iter().map(u16::to_string).collect();
    assert_eq!(listed, all);
}

#[test]
fn list_every_bound() {
    macro_rules! bounds {
        ($($name:ident),+ $(,)?) => {
            [$((stringify!($name).to_owned(), ($name as u64).to_string())),+]
        };
    }
    let bounds = bounds![
        MAX_EVENT_BYTES,
        MAX_PAYLOAD_BYTES,
        MAX_ANNOUNCEMENT_BYTES,
        MAX_TERMS_BYTES,
        MAX_RECORD_BYTES,
        MAX_TAGS,
        MAX_NAME_BYTES,
        MAX_REASON_BYTES,
        MAX_MODELS,
        MAX_ACCEPTED_MODELS,
        MAX_RELAYS,
        MAX_RELAY_URL_BYTES,
        MAX_ATTEMPTS,
        MAX_BIDS,
        MAX_OUTPUT_TOKENS,
        MAX_CONTEXT_TOKENS,
        MAX_MESSAGES,
        MAX_STOP_STRINGS,
        MAX_STOP_BYTES,
        MAX_TEXTS,
        MAX_REQUESTS,
        MAX_CHECKS,
        MAX_REJECTED,
        MAX_PROOF_BYTES,
        MAX_GROUP_LINES,
        MAX_GROUPS,
        MAX_GROUP_RESULTS,
        MAX_BLOB_BYTES,
        MAX_BLOB_PAYLOAD_BYTES,
        MAX_SEALED_BYTES,
        MAX_BLOB_SERVERS,
        MAX_FEE_PPM,
        MAX_TENSORS,
        MAX_DIMENSIONS,
        MAX_SAFE_INTEGER,
        MAX_TIMESTAMP,
        MAX_DURATION_MS,
        MAX_FIGURES,
        MAX_PAYMENTS,
        MAX_INVOICE_BYTES,
    ];
    let source = include_str!("../../src/bounds.rs");
    assert_eq!(source.matches("pub const MAX_").count(), bounds.len());
    let rows = table(&document("README.md"), "Bounds");
    let listed = rows.iter().map(|row| {
        let name = row[0].trim_matches('`').to_owned();
        (name, row[1].replace(',', ""))
    });
    assert_eq!(listed.collect::<BTreeSet<_>>(), BTreeSet::from(bounds));
}

#[test]
fn link_to_what_is_there_and_to_every_example() {
    let mut linked = BTreeSet::new();
    for name in OURS {
        let text = document(name);
        let links = text.split("](").skip(1);
        for link in links.map(|rest| rest.split(')').next().unwrap()) {
            assert!(folder().join(link).exists(), "{name}: {link}");
            linked.insert(link.to_owned());
        }
    }
    for entry in std::fs::read_dir(folder().join("examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let theirs = ["model", "sampling", "thresholds", "toploc", "verification"];
        let theirs = theirs.iter().any(|prefix| name.starts_with(prefix));
        let link = format!("examples/{name}");
        assert!(theirs || linked.contains(&link), "{name} is in no document");
    }
}

#[test]
fn describe_the_totals_of_a_tab() {
    let value = serde_json::to_value(signed_totals()).unwrap();
    assert_eq!(
        first_column(&document("tab.md"), "Totals"),
        names(&value).collect()
    );
}
