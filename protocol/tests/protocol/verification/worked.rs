//! The document's worked examples, which another program computed.

use std::collections::BTreeMap;

use infernet_protocol::event::{
    Body as _, Checking, Judgement, ModelThresholds, Signed, V1, Verdict,
};
use infernet_protocol::inference::{Dtype, ModelId};
use infernet_protocol::seal::Digest;
use infernet_protocol::verification::{
    ChunkDistance, Fault, Figures, Pool, Secret, TextFigures, Texts, Thresholds, Trust,
};
use nostr::{EventId, Keys};
use serde::Deserialize;

use super::even;

#[derive(Deserialize)]
struct Worked {
    thresholds: Thresholds,
    judged: Vec<Case>,
    pooled: Vec<Bet>,
    adaptive: Adaptive,
    secret: Choices,
}

#[derive(Deserialize)]
struct Case {
    case: String,
    texts: Vec<Text>,
    figures: BTreeMap<String, f64>,
    judgement: Judgement,
}

#[derive(Deserialize)]
struct Text {
    margins: Vec<f32>,
    greedy: bool,
    chunks: Vec<Chunk>,
    fault: Option<Fault>,
}

#[derive(Deserialize)]
struct Chunk {
    exponents: u32,
    mantissa_mean: f64,
    mantissa_median: f64,
}

#[derive(Deserialize)]
struct Bet {
    mean: f32,
    evidence: f64,
    rejected: bool,
}

#[derive(Deserialize)]
struct Adaptive {
    least_ppm: u32,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    judgement: Judgement,
    streak: u32,
    chance_ppm: u32,
}

#[derive(Deserialize)]
struct Choices {
    secret: Secret,
    commitment: Digest,
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    result: EventId,
    at_100000_ppm: bool,
    at_500000_ppm: bool,
}

fn worked() -> Worked {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../nips/examples/verification.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

impl Text {
    fn figures(&self) -> TextFigures {
        let distance = |chunk: &Chunk| ChunkDistance {
            exponents: chunk.exponents,
            mantissa_mean: chunk.mantissa_mean,
            mantissa_median: chunk.mantissa_median,
        };
        TextFigures {
            margins: self.margins.clone(),
            greedy: self.greedy,
            chunks: self.chunks.iter().map(distance).collect(),
            fault: self.fault,
        }
    }
}

/// A verdict that holds these figures.
fn verdict(figures: BTreeMap<String, f64>, method: &str) -> Verdict {
    let id = EventId::from_byte_array([1; 32]);
    Verdict {
        v: V1,
        job: id,
        award: id,
        result: id,
        provider: Keys::generate().public_key(),
        model: ModelId::from_bytes([2; 32]),
        judgement: Judgement::Accepted,
        method: method.into(),
        figures,
        dtype: Dtype::F32,
        engine: "test".into(),
    }
}

#[test]
fn results_are_judged_as_the_document_says() {
    let worked = worked();
    for case in &worked.judged {
        let texts: Vec<_> = case.texts.iter().map(Text::figures).collect();
        let figures = Figures::Texts(Texts::of(&texts, &worked.thresholds));
        let map = figures.to_map();
        assert_eq!(
            map.keys().collect::<Vec<_>>(),
            case.figures.keys().collect::<Vec<_>>(),
            "{}",
            case.case
        );
        for (name, figure) in &map {
            let close = (figure - case.figures[name]).abs() < 1e-9;
            assert!(close, "{}: {name} is {figure}", case.case);
        }
        assert_eq!(
            figures.judge(&worked.thresholds),
            case.judgement,
            "{}",
            case.case
        );
        assert!(figures.hold_together(&worked.thresholds), "{}", case.case);
        let read = Figures::of(&verdict(map, figures.method())).unwrap();
        assert_eq!(read, figures, "{}", case.case);
    }
}

#[test]
fn pools_grow_as_the_document_says() {
    let worked = worked();
    let mut pool = Pool::default();
    for bet in &worked.pooled {
        let texts = Texts::of(&[even(64, bet.mean)], &worked.thresholds);
        pool = pool.with(&texts, &worked.thresholds);
        assert!((pool.evidence - bet.evidence).abs() < 1e-9);
        assert_eq!(pool.is_rejected(), bet.rejected);
    }
}

#[test]
fn trust_grows_and_falls_as_the_document_says() {
    let adaptive = worked().adaptive;
    let checking = Checking::Adaptive {
        least_ppm: adaptive.least_ppm,
    };
    let mut trust = Trust::default();
    for step in adaptive.steps {
        trust = trust.after(step.judgement);
        assert_eq!(trust.streak, step.streak);
        assert_eq!(trust.chance_ppm(checking), step.chance_ppm);
    }
}

#[test]
fn the_secret_commits_and_chooses_as_the_document_says() {
    let Choices {
        secret,
        commitment,
        choices,
    } = worked().secret;
    assert_eq!(secret.commitment(), commitment);
    for choice in choices {
        assert_eq!(
            secret.chooses(&choice.result, 100_000),
            choice.at_100000_ppm
        );
        assert_eq!(
            secret.chooses(&choice.result, 500_000),
            choice.at_500000_ppm
        );
    }
}

#[test]
fn figures_that_cannot_be_are_refused() {
    let method = "token-difr+toploc/1";
    for (name, figure) in [
        ("sampled.tokens", -1.0),
        ("sampled.tokens", 0.5),
        ("sampled.tokens", 1e300),
        ("sampled.margin_sum", -0.1),
        ("evidence", f64::NAN),
        ("activations.exponents", f64::INFINITY),
        ("fault.no-proof", 0.5),
    ] {
        let map = BTreeMap::from([(name.to_owned(), figure)]);
        assert!(
            Figures::of(&verdict(map, method)).is_err(),
            "{name} {figure}"
        );
    }
    assert!(Figures::of(&verdict(BTreeMap::new(), "a guess")).is_err());
    // Names that are not known are passed over.
    let map = BTreeMap::from([("mood".to_owned(), -3.0)]);
    assert!(Figures::of(&verdict(map, method)).is_ok());
}

#[test]
fn thresholds_are_published_whole_or_refused() {
    let model = ModelId::from_bytes([3; 32]);
    let body = ModelThresholds {
        v: V1,
        id: ModelThresholds::id_of(&model, Dtype::Bf16),
        model,
        name: "tiny".into(),
        dtype: Dtype::Bf16,
        engine: "test".into(),
        thresholds: worked().thresholds,
        measured: BTreeMap::from([("answers".to_owned(), 96.0)]),
    };
    let keys = Keys::generate();
    let signed = |body: &ModelThresholds| {
        let event = body.to_unsigned(
            keys.public_key(),
            nostr::Timestamp::from_secs(1_790_000_000),
        );
        Signed::<ModelThresholds>::verify(event.sign_with_keys(&keys).unwrap())
    };
    assert_eq!(*signed(&body).unwrap(), body);
    let mut other = body.clone();
    other.dtype = Dtype::F32;
    assert!(signed(&other).is_err());
    let mut none = body;
    none.thresholds.greedy.pooled = 0.0;
    assert!(signed(&none).is_err());
}
