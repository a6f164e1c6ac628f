//! What an aggregator buys: shards on escrow terms, and checks; and `verify`, which has a job checked.

use infernet_client::{Client, Error, Evidence, Request, Step};
use infernet_protocol::event::{Attestation, Checkers, Experience, Judgement, Signed, Verdict};
use infernet_protocol::inference::{Prompt, Sampling};
use infernet_protocol::kinds;
use infernet_protocol::money::{Msat, PaymentKind, Price};
use infernet_protocol::payload::{Generate, Input, Payload};
use infernet_protocol::verification::{Activations, Margins, Thresholds};
use nostr::ToBech32;

use crate::command::User;
use crate::fake::{Conduct, Script, checking_model};
use crate::{Life, Market, ask, live};

const MARGINS: Margins = Margins {
    clip: 8.0,
    accept: 0.1,
    reject: 0.5,
    window: 1.0,
    pooled: 0.05,
};

const THRESHOLDS: Thresholds = Thresholds {
    sampled: MARGINS,
    greedy: MARGINS,
    activations: Activations {
        exponents: 38.0,
        worst_exponents: 64.0,
        mantissa_mean: 10.0,
        mantissa_median: 8.0,
    },
    least_cosine: 0.99,
};

fn generate(text: &str) -> Generate {
    Generate {
        prompt: Prompt::Text(text.into()),
        sampling: Sampling::default(),
        max_tokens: 4,
        stop: vec![],
        prefix: vec![],
    }
}

fn shard() -> Request {
    let price = Price {
        input_msat: 1_000_000,
        output_msat: 1_000_000,
    };
    Request::shard("tiny", [generate("one"), generate("two")])
        .max_price(price)
        .checkers(Checkers::Aggregator)
        .prove()
}

/// A seller of text at a millisatoshi a token, in escrow.
fn in_escrow(conduct: Conduct) -> Script {
    let mut script = Script::new("ada", conduct);
    script.model.price = Price {
        input_msat: 1_000_000,
        output_msat: 1_000_000,
    };
    script
}

async fn aggregator(market: &Market) -> Client {
    let mut options = market.options();
    options.escrow = true;
    Client::connect(options).await.unwrap()
}

#[tokio::test]
async fn a_shard_is_bought_in_escrow_with_evidence_and_attested_by_whoever_checks_it() {
    let market = Market::of([in_escrow(Conduct::Honest)]).await;
    let client = aggregator(&market).await;
    let mut request = shard();
    request.attest = false;
    let life = live(&client, request).await;
    let summary = life.summary();
    let texts: Vec<_> = summary
        .texts
        .iter()
        .map(|text| text.text.as_str())
        .collect();
    assert_eq!(texts, ["text 0", "text 1"]);
    assert_eq!(
        (summary.due_msat, summary.charged_msat),
        (Msat(10), Msat::ZERO)
    );
    let evidence = &summary.evidence;
    assert_eq!(evidence.award.terms, PaymentKind::Escrow);
    assert_eq!(evidence.award.checkers, Checkers::Aggregator);
    assert_eq!(evidence.result.id(), summary.result);
    let input = evidence
        .award
        .input
        .open_with(evidence.input_key.as_bytes())
        .unwrap();
    assert!(Input::from_bytes(&input).unwrap().prove);
    evidence
        .result
        .output
        .open_with(evidence.output_key.as_bytes())
        .unwrap();
    client.close().await;
    assert!(market.stored(kinds::ATTESTATION).await.is_empty());
}

#[tokio::test]
async fn without_escrow_nobody_buys_in_escrow() {
    let market = Market::of([in_escrow(Conduct::Honest)]).await;
    let client = market.client().await;
    let error = live(&client, shard()).await.outcome.unwrap_err();
    assert!(matches!(error, Error::NotFree { .. }), "{error}");
}

#[tokio::test]
async fn a_shard_that_asks_for_what_failed_is_not_valid_and_its_provider_to_blame() {
    let market = Market::of([in_escrow(Conduct::AsksForFailures)]).await;
    let client = aggregator(&market).await;
    let mut request = shard();
    request.attest = false;
    let life: Life = live(&client, request).await;
    assert!(life.outcome.is_err());
    let blamed = |step: &Step| match step {
        Step::Failed {
            provider, blame, ..
        } => Some((*provider, *blame)),
        _ => None,
    };
    let blamed: Vec<_> = life.steps.iter().filter_map(blamed).collect();
    assert_eq!(
        blamed,
        [(market.providers[0].key(), Some(Experience::Invalid))]
    );
    // Who sends what is not valid is attested in any case.
    market.eventually(kinds::ATTESTATION, 1).await;
}

/// A seller, a checker of this conduct, and a job of the seller's.
async fn checked(conduct: Conduct) -> (Market, Client, Evidence) {
    let mut checker = Script::new("bob", conduct);
    checker.model = checking_model();
    let market = Market::of([Script::new("ada", Conduct::Honest), checker]).await;
    let client = market.client().await;
    let life = live(&client, ask()).await;
    let evidence = life.summary().evidence.clone();
    (market, client, evidence)
}

#[tokio::test]
async fn a_checker_is_given_keys_and_answers_with_verdicts() {
    let (market, client, evidence) = checked(Conduct::Judges(Judgement::Accepted)).await;
    let model = evidence.award.model.to_string();
    let checks = [evidence.check(), evidence.check()];
    let life = live(&client, Request::verify(model, checks, THRESHOLDS)).await;
    let verdicts = &life.summary().verdicts;
    assert_eq!(verdicts.len(), 2);
    assert_eq!(verdicts[0].author(), market.providers[1].key());
    assert_eq!(verdicts[0].result, evidence.result.id());
}

#[tokio::test]
async fn verdicts_by_others_are_not_valid() {
    let (_market, client, evidence) = checked(Conduct::ForgesVerdicts).await;
    let model = evidence.award.model.to_string();
    let life = live(
        &client,
        Request::verify(model, [evidence.check()], THRESHOLDS),
    )
    .await;
    let invalid = |step: &&Step| {
        matches!(
            step,
            Step::Failed {
                blame: Some(Experience::Invalid),
                ..
            }
        )
    };
    assert_eq!(life.steps.iter().filter(invalid).count(), 1);
    assert!(life.outcome.is_err());
}

/// A user who has asked `tiny` something, the job's id, and a file of thresholds.
async fn asked(checkers: Vec<Script>) -> (Market, User, String, String) {
    let scripts = std::iter::once(Script::new("ada", Conduct::Honest)).chain(checkers);
    let market = Market::of(scripts).await;
    let user = User::at(&market.url);
    let submit = [
        "submit",
        "--model",
        "tiny",
        "--prove",
        "--checkers",
        "market",
        "Say words",
    ];
    assert_eq!(user.run(&submit).await.code, Some(0));
    let jobs = user.json(&["jobs", "--json"]).await;
    let job = jobs[0]["id"].as_str().unwrap().to_owned();
    let file = user.home().join("thresholds.json");
    std::fs::write(&file, serde_json::to_string(&THRESHOLDS).unwrap()).unwrap();
    (market, user, job, file.display().to_string())
}

fn checker(name: &'static str, conduct: Conduct) -> Script {
    let mut script = Script::new(name, conduct);
    script.model = checking_model();
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_checked_and_the_verdict_published() {
    let bob = checker("bob", Conduct::Judges(Judgement::Accepted));
    let (market, user, job, file) = asked(vec![bob]).await;
    let award = market.providers[0].seen.lock().unwrap().awards[0].clone();
    assert_eq!(award.checkers, Checkers::Market);
    assert!(market.providers[0].seen.lock().unwrap().inputs[0].prove);
    let ran = user
        .run(&["verify", &job[..8], "--thresholds", &file])
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.starts_with("Accepted: bob"), "{}", ran.out);
    assert!(ran.out.contains("11 of 12"), "{}", ran.out);
    let verdict = market.eventually(kinds::VERDICT, 1).await.remove(0);
    let verdict = Signed::<Verdict>::verify(verdict).unwrap();
    assert_eq!(verdict.author(), market.providers[1].key());
    let rejected = |event: nostr::Event| {
        Signed::<Attestation>::verify(event).unwrap().experience == Experience::Rejected
    };
    assert!(
        !market
            .stored(kinds::ATTESTATION)
            .await
            .into_iter()
            .any(rejected)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_job_is_said_and_attested() {
    let checkers = vec![
        checker("bob", Conduct::Judges(Judgement::Accepted)),
        checker("eve", Conduct::Judges(Judgement::Rejected)),
    ];
    let (market, user, job, file) = asked(checkers).await;
    let eve = market.providers[2].key().to_bech32().unwrap();
    let verify = [
        "verify",
        &job,
        "--thresholds",
        &file,
        "--checker",
        &eve,
        "--json",
    ];
    let ran = user.run(&verify).await;
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(found["judgement"], "rejected");
    let said = market.eventually(kinds::ATTESTATION, 3).await.into_iter();
    let said = said.map(|event| Signed::<Attestation>::verify(event).unwrap());
    let rejected: Vec<_> = said
        .filter(|a| a.experience == Experience::Rejected)
        .collect();
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].provider, market.providers[0].key());
    assert_eq!(
        rejected[0].id().to_hex(),
        found["attestation"].as_str().unwrap()
    );
    assert!(rejected[0].verdict.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_the_work_does_not_check_it() {
    let (_market, user, job, file) = asked(vec![]).await;
    let ran = user.run(&["verify", &job, "--thresholds", &file]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(ran.err.contains("nobody else"), "{}", ran.err);
}
