//! Batches through the whole market: split, bought, checked, merged, whatever dies.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use infernet_tests::{Aggregator, Market, Process};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);

/// A file of so many chats.
fn chats(folder: &Path, lines: usize) -> PathBuf {
    let line = |n: usize| {
        json!({
            "custom_id": format!("chat-{n}"),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "scripted",
                "messages": [{"role": "user", "content": format!("question {n}")}],
                "max_tokens": 32,
            },
        })
    };
    file(folder, (0..lines).map(line))
}

fn file(folder: &Path, lines: impl Iterator<Item = Value>) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("input.jsonl");
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, lines).unwrap();
    path
}

/// The arguments of a batch that nobody checks.
fn unchecked<'a>(input: &'a Path, output: &'a Path) -> Vec<&'a str> {
    let mut all = batch(input, output);
    all.extend(["--checking", "none"]);
    all
}

fn batch<'a>(input: &'a Path, output: &'a Path) -> Vec<&'a str> {
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    vec!["batch", input, "-o", output, "--yes"]
}

/// The answers, which must be as many as the chats, in their order, and without errors.
fn answers(output: &Path, lines: usize) -> Vec<Value> {
    let text = std::fs::read_to_string(output).unwrap();
    let answers: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(answers.len(), lines);
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer["custom_id"], format!("chat-{n}"));
        assert_eq!(answer["error"], Value::Null, "line {n}");
        assert_eq!(answer["response"]["status_code"], 200);
    }
    answers
}

/// Waits until the aggregator says this of its status.
fn wait_status(aggregator: &Aggregator, holds: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + SOON;
    loop {
        let status = aggregator.ask("status").unwrap();
        if holds(&status) {
            return status;
        }
        assert!(Instant::now() < until, "it did not come to that: {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn done(status: &Value) -> u64 {
    status["orders"][0]["standing"]["progress"]["done"]
        .as_u64()
        .unwrap_or(0)
}

/// Shards that ended well, by all providers.
fn shards(aggregator: &Aggregator) -> u64 {
    let providers = aggregator.ask("providers").unwrap();
    let done = |p: &Value| p["done"].as_u64().unwrap();
    providers.as_array().unwrap().iter().map(done).sum()
}

fn ends_well(client: &mut Process) {
    let status = client.ended(SOON).unwrap();
    assert!(status.success(), "{}", client.stderr());
}

#[test]
fn a_batch_is_split_over_providers_and_comes_back_in_order() {
    let market = Market::open().unwrap();
    let _alpha = market.scripted_provider("alpha", &[]).unwrap();
    let _beta = market.scripted_provider("beta", &[]).unwrap();
    let aggregator = market
        .aggregator("aggregator", &["--shard-tokens", "512"])
        .unwrap();
    let folder = market.folder("files");
    let (input, output) = (chats(&folder, 200), folder.join("output.jsonl"));
    let buyer = market.client("buyer");
    let run = buyer.run(&unchecked(&input, &output)).unwrap();
    assert!(run.status.success(), "{}", run.stderr);
    for answer in answers(&output, 200) {
        let body = &answer["response"]["body"];
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
        assert!(body["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    }
    let providers = aggregator.ask("providers").unwrap();
    for provider in providers.as_array().unwrap() {
        assert!(
            provider["done"].as_u64().unwrap() > 0,
            "{provider} got nothing"
        );
    }
    let jobs = aggregator.ask("jobs").unwrap();
    assert_eq!(jobs[0]["standing"]["progress"]["done"], 200);
    assert!(!jobs[0]["closed"].is_null(), "all its lines are done");
    // Neither lines nor answers stay behind where work was handed over long ago.
    let work = aggregator.home.join("aggregator/work");
    assert!(work.exists(), "{}", work.display());
}

#[test]
fn a_line_that_no_context_holds_fails_alone() {
    let market = Market::open().unwrap();
    let _alpha = market.scripted_provider("alpha", &[]).unwrap();
    let _beta = market.scripted_provider("beta", &[]).unwrap();
    // A shard for each line: what nobody can do is then all of one.
    let arguments = ["--shard-tokens", "64"];
    let _aggregator = market.aggregator("aggregator", &arguments).unwrap();
    let folder = market.folder("files");
    let words = |n: usize| match n {
        1 => "word ".repeat(20_000),
        _ => "a question".to_owned(),
    };
    let line = |n: usize| {
        json!({
            "custom_id": format!("chat-{n}"),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "scripted",
                "messages": [{"role": "user", "content": words(n)}],
                "max_tokens": 8,
            },
        })
    };
    let (input, output) = (file(&folder, (0..3).map(line)), folder.join("output.jsonl"));
    let buyer = market.client("buyer");
    let mut client = buyer.start(&unchecked(&input, &output)).unwrap();
    client.ended(SOON).unwrap();
    let text = std::fs::read_to_string(&output).unwrap();
    let answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 3);
    let why = answers[1]["error"]["message"].as_str().unwrap();
    assert!(why.contains("context"), "{why}");
    for n in [0, 2] {
        assert_eq!(answers[n]["response"]["status_code"], 200, "{}", answers[n]);
    }
}

#[test]
fn texts_are_embedded_and_every_result_is_checked_by_the_market() {
    let market = Market::open().unwrap();
    let _alpha = market.scripted_provider("alpha", &["--verify"]).unwrap();
    let _beta = market.scripted_provider("beta", &["--verify"]).unwrap();
    let aggregator = market.aggregator("aggregator", &[]).unwrap();
    let folder = market.folder("files");
    let line = |n: usize| {
        let input = match n % 2 {
            0 => json!(format!("text {n}")),
            _ => json!([format!("text {n}"), "another"]),
        };
        json!({
            "custom_id": format!("text-{n}"),
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": "scripted-embed", "input": input},
        })
    };
    let input = file(&folder, (0..50).map(line));
    let output = folder.join("output.jsonl");
    let mut arguments = batch(&input, &output);
    arguments.extend(["--checking", "full", "--checkers", "market"]);
    let run = market.client("buyer").run(&arguments).unwrap();
    assert!(run.status.success(), "{}", run.stderr);
    let text = std::fs::read_to_string(&output).unwrap();
    assert_eq!(text.lines().count(), 50);
    for (n, line) in text.lines().enumerate() {
        let answer: Value = serde_json::from_str(line).unwrap();
        let vectors = answer["response"]["body"]["data"].as_array().unwrap();
        assert_eq!(vectors.len(), 1 + n % 2, "line {n}");
    }
    let providers = aggregator.ask("providers").unwrap();
    let streaks = |p: &Value| p["trust"][0]["streak"].as_u64().unwrap_or(0);
    let streaks: u64 = providers.as_array().unwrap().iter().map(streaks).sum();
    assert_eq!(
        streaks,
        shards(&aggregator),
        "each shard was checked and passed"
    );
}

#[test]
fn an_aggregator_that_is_killed_goes_on_and_buys_no_finished_shard_again() {
    let market = Market::open().unwrap();
    let slow = ["--scripted-speed", "40"];
    let _alpha = market.scripted_provider("alpha", &slow).unwrap();
    let _beta = market.scripted_provider("beta", &slow).unwrap();
    let arguments = ["--shard-tokens", "512"];
    let mut aggregator = market.aggregator("aggregator", &arguments).unwrap();
    let folder = market.folder("files");
    let (input, output) = (chats(&folder, 600), folder.join("output.jsonl"));
    let buyer = market.client("buyer");
    let mut client = buyer.start(&unchecked(&input, &output)).unwrap();
    let mut before = 0;
    for fraction in [5, 2] {
        wait_status(&aggregator, |status| done(status) > 600 / fraction);
        before = done(&aggregator.ask("status").unwrap());
        aggregator.process.signal("KILL").unwrap();
        aggregator.process.ended(SOON).unwrap();
        aggregator = market.aggregator("aggregator", &arguments).unwrap();
        let after = wait_status(&aggregator, |status| done(status) > 0);
        assert!(
            done(&after) >= before,
            "{} is less than {before}",
            done(&after)
        );
    }
    assert!(before > 0);
    ends_well(&mut client);
    answers(&output, 600);
    let order = &aggregator.ask("jobs").unwrap()[0];
    assert_eq!(order["standing"]["progress"]["done"], 600);
    assert_eq!(order["standing"]["progress"]["failed"], 0);
}

#[test]
fn a_provider_that_dies_is_bought_around() {
    let market = Market::open().unwrap();
    let slow = ["--scripted-speed", "60"];
    let _alpha = market.scripted_provider("alpha", &slow).unwrap();
    let doomed = market.scripted_provider("doomed", &slow).unwrap();
    let aggregator = market
        .aggregator("aggregator", &["--shard-tokens", "512"])
        .unwrap();
    let folder = market.folder("files");
    let (input, output) = (chats(&folder, 300), folder.join("output.jsonl"));
    let buyer = market.client("buyer");
    let mut client = buyer.start(&unchecked(&input, &output)).unwrap();
    wait_status(&aggregator, |status| done(status) > 0);
    doomed.process.signal("KILL").unwrap();
    ends_well(&mut client);
    answers(&output, 300);
}

#[test]
fn what_nobody_sells_is_not_quoted_and_what_one_stops_is_stopped() {
    let market = Market::open().unwrap();
    let _alpha = market
        .scripted_provider("alpha", &["--scripted-speed", "5"])
        .unwrap();
    let aggregator = market.aggregator("aggregator", &[]).unwrap();
    let folder = market.folder("files");
    let (input, output) = (chats(&folder, 20), folder.join("output.jsonl"));
    let buyer = market.client("buyer");
    let mut other = unchecked(&input, &output);
    other.extend(["--model", "something-else"]);
    let run = buyer.run(&other).unwrap();
    assert!(!run.status.success());
    assert!(run.stderr.contains("nobody sells"), "{}", run.stderr);

    // A soft stop ends within its patience, and the work goes on at the next start.
    let mut client = buyer.start(&unchecked(&input, &output)).unwrap();
    wait_status(&aggregator, |status| {
        status["running_shards"].as_u64() > Some(0)
    });
    let mut aggregator = aggregator;
    aggregator.process.signal("INT").unwrap();
    aggregator.process.signal("INT").unwrap();
    let status = aggregator.process.ended(SOON).unwrap();
    assert!(status.success(), "{}", aggregator.process.stderr());
    let _aggregator = market.aggregator("aggregator", &[]).unwrap();
    ends_well(&mut client);
    answers(&output, 20);
}

#[test]
fn who_stalls_is_bought_around_without_being_waited_for() {
    let market = Market::open().unwrap();
    let _alpha = market.scripted_provider("alpha", &[]).unwrap();
    let stalls = ["--scripted-stall-after", "3"];
    let _stuck = market.scripted_provider("stuck", &stalls).unwrap();
    let aggregator = market
        .aggregator("aggregator", &["--shard-tokens", "256"])
        .unwrap();
    let folder = market.folder("files");
    let (input, output) = (chats(&folder, 100), folder.join("output.jsonl"));
    let run = market
        .client("buyer")
        .run(&unchecked(&input, &output))
        .unwrap();
    assert!(run.status.success(), "{}", run.stderr);
    answers(&output, 100);
    let providers = aggregator.ask("providers").unwrap();
    let named = |name: &str| {
        let mut all = providers.as_array().unwrap().iter();
        all.find(|p| p["name"] == name).unwrap().clone()
    };
    assert_eq!(named("stuck")["done"], 0);
    assert!(named("alpha")["done"].as_u64().unwrap() > 0);
}
