//! The market over a relay that asks for much: work of every new key, an identity of everybody, and a slow pace.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use infernet_tests::{Lightning, Market, Process, WALLET, binary};
use serde_json::{Value, json};

use crate::words;

const SOON: Duration = Duration::from_secs(120);

/// New keys have to work from the first event on, and again after 300; nobody writes or reads unidentified; nobody may
/// have more than 100 events a second for long, this machine's programs included.
const DEMANDING: &str = r#"
[auth]
read = "identified"
write = "identified"

[work]
min_bits = 12
standing_events = 300

[limits]
count_loopback = true

[limits.key]
events = { per_second = 100, burst = 200 }
bytes = { per_second = 1048576, burst = 4194304 }

[limits.address]
events = { per_second = 200, burst = 1000 }
requests = { per_second = 20, burst = 100 }
"#;

/// Runs a job, and says how long its first token took, beside the same at a relay that asks for nothing.
fn first_token(market: &Market, buyer: &str, arguments: &[&str]) -> (Value, u64) {
    let mut all = vec!["submit", "--json"];
    all.extend(arguments);
    all.push("hello");
    let done = market.client(buyer).json(&all).unwrap();
    assert_eq!(done["status"], "done", "{done}");
    assert_eq!(done["attempts"], 1, "{done}");
    let first = done["first_token_ms"].as_u64().unwrap();
    (done, first)
}

#[test]
fn jobs_go_through_a_relay_that_asks_for_work_and_an_identity() {
    let open = Market::open().unwrap();
    let demanding = Market::open_with(DEMANDING).unwrap();
    // More pieces than the relay takes for one work.
    let text = words(400);
    let script = ["--scripted-text", &text, "--scripted-speed", "50"];
    let mut firsts = vec![];
    for market in [&open, &demanding] {
        let _alpha = market.scripted_provider("alpha", &script).unwrap();
        let (done, direct) = first_token(market, "buyer", &["-n", "400"]);
        assert_eq!(done["text"], text);
        // A new key, and a known one.
        let (_, auction) = first_token(market, "other", &["-n", "5", "--auction"]);
        let (_, again) = first_token(market, "buyer", &["-n", "5"]);
        firsts.push([direct, auction, again]);
    }
    println!("first tokens in ms, direct, by auction, again: {firsts:?}, the latter with demands");
}

#[test]
fn a_batch_goes_through_a_relay_that_asks_for_work_and_an_identity() {
    let market = Market::open_with(DEMANDING).unwrap();
    let _alpha = market.scripted_provider("alpha", &[]).unwrap();
    let _beta = market.scripted_provider("beta", &[]).unwrap();
    let _aggregator = market
        .aggregator("aggregator", &["--shard-tokens", "512"])
        .unwrap();
    let folder = market.folder("files");
    let (input, output) = (chats(&folder, 100), folder.join("output.jsonl"));
    let (input, answers) = (input.to_str().unwrap(), output.to_str().unwrap());
    let batch = ["batch", input, "-o", answers, "--yes", "--checking", "none"];
    let done = market.client("buyer").run(&batch).unwrap();
    assert!(done.status.success(), "{}", done.stderr);
    let text = std::fs::read_to_string(output).unwrap();
    let answered = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    let answers: Vec<Value> = text.lines().map(answered).collect();
    assert_eq!(answers.len(), 100);
    assert!(answers.iter().all(|answer| answer["error"] == Value::Null));
}

fn chats(folder: &Path, lines: usize) -> std::path::PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("input.jsonl");
    let line = |n: usize| {
        let messages = json!([{ "role": "user", "content": format!("question {n}") }]);
        let body = json!({ "model": "scripted", "messages": messages, "max_tokens": 32 });
        let url = "/v1/chat/completions";
        json!({ "custom_id": format!("chat-{n}"), "method": "POST", "url": url, "body": body })
    };
    let lines: String = (0..lines).map(|n| format!("{}\n", line(n))).collect();
    std::fs::write(&path, lines).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tab_is_paid_over_a_relay_that_asks_for_work_and_an_identity() {
    let lightning = Lightning::start_play(&["buyer", "alpha"]).await.unwrap();
    let before = lightning.balances().await.unwrap();
    let market = Market::open_with(DEMANDING).unwrap();
    let text = words(160);
    let paid = ["--price-in", "1000000", "--price-out", "200000000"];
    let mut script = vec!["--engine", "scripted", "--scripted-text", &text];
    script.extend(["--scripted-speed", "80"]);
    script.extend(paid);
    let wallet = [(WALLET, lightning.connection("alpha").unwrap())];
    let _alpha = market.provider_with(&wallet, "alpha", &script).unwrap();
    let buyer = market.client("buyer");
    let buyer = buyer.with(WALLET, lightning.connection("buyer").unwrap());
    let mut job = vec!["submit", "--json", "-n", "160", "--max-sats", "200"];
    job.extend(["--max-price", "1000000:200000000", "hello"]);
    let done = buyer.json(&job).unwrap();
    assert_eq!(done["text"], text);
    let closed = buyer.run(&["tab", "close", "all", "--json"]).unwrap();
    assert!(closed.status.success(), "{}", closed.stderr);
    let comparison = lightning.add_up(&before).await.unwrap();
    let moved = |line: usize| comparison.lines[line].after - comparison.lines[line].before;
    assert_eq!(moved(0), -moved(1), "{comparison:?}");
    assert!((32_000..32_100).contains(&moved(1)), "{comparison:?}");
}

#[test]
fn a_relay_that_asks_for_too_much_is_named_with_what_it_wants() {
    let mut market = Market::open().unwrap();
    let provider = market.scripted_provider("alpha", &[]).unwrap();
    let far_too_much = "[work]\nmin_bits = 40\nmax_bits = 40\n";
    market.relay.restart_with(far_too_much).unwrap();
    let said = |said: &str| said.contains("asks for 40 bits").then_some(());
    provider.process.wait_stderr(SOON, said).unwrap();
    let mut command = Command::new(binary("infernet-provider"));
    command.arg("status").env("INFERNET_HOME", &provider.home);
    let mut status = Process::start("status", &mut command).unwrap();
    assert!(status.ended(SOON).unwrap().success(), "{}", status.stderr());
    let status = status.stdout();
    assert!(status.contains(&market.relay.url), "{status}");
    assert!(status.contains("40 bits of proof of work"), "{status}");

    let asked = market.client("buyer").run(&["submit", "hello"]).unwrap();
    assert!(!asked.status.success());
    assert!(asked.stderr.contains("40 bits"), "{}", asked.stderr);
    assert!(asked.stderr.contains(&market.relay.url), "{}", asked.stderr);
}
