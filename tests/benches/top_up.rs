//! How long a top-up takes in a job that is paid as it streams, and how long a bare payment between two ldk-node
//! nodes in the same run: an invoice asked for, heard of, checked, paid over a real channel, and credited.
//!
//! The provider's own log says when: when its tab needs money, when the invoice is made, when the tab has the money.
//! Jobs and bare payments take turns, so that both meet the same machine.
//!
//! `cargo bench -p infernet-tests --bench top_up`; figures belong into docs/benchmarks.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod bare;
mod measure;

use std::collections::BTreeMap;
use std::time::Duration;

use infernet_client::{Client, Request, Step};
use infernet_protocol::money::Price;
use infernet_tests::{Market, WALLET};
use serde_json::Value;

use self::bare::Bare;
use self::measure::{BUYER, SELLER, median, percentile, verdict};

/// At 100 tokens a second one top-up of 10 sat in half a second, as in the demo.
const PRICE: Price = Price {
    input_msat: 50_000_000,
    output_msat: 200_000_000,
};
const TOKENS_PER_S: &str = "100";
const TOKENS: u32 = 300;
/// Each has about six top-ups.
const JOBS: usize = 11;
/// Top-ups and payments that are not counted: caches are cold.
const WARM_UP: usize = 6;
/// The pause before each bare payment, so that one is as far from the last as top-ups are: a channel is busy for a
/// while after each.
const PAUSE: Duration = Duration::from_millis(500);
/// What a top-up may take, in bare payments.
const AIM: f64 = 1.5;

/// How long one took, in milliseconds: from the need for an invoice, and from the invoice.
#[derive(Clone, Copy)]
struct Round {
    from_need: f64,
    from_invoice: f64,
}

#[tokio::main]
async fn main() {
    let Some(lightning) = measure::wallets("top_up").await else {
        return;
    };
    let mut bare = Bare::start();
    let market = Market::open().unwrap();
    let environment = [
        (WALLET, lightning.connection(SELLER).unwrap()),
        ("INFERNET_LOG", "info,infernet_provider::till=debug"),
        ("INFERNET_LOG_JSON", "1"),
    ];
    let (text, prices) = (measure::words(400), measure::price_flags(PRICE));
    let mut arguments = vec!["--engine", "scripted", "--scripted-text", &text];
    arguments.extend(["--scripted-speed", TOKENS_PER_S]);
    arguments.extend(prices.iter().map(String::as_str));
    let provider = market
        .provider_with(&environment, SELLER, &arguments)
        .unwrap();
    let client = measure::buyer(&market, BUYER, measure::rail(&lightning, BUYER)).await;

    let mut payments = Vec::new();
    for _ in 0..JOBS {
        for _ in 0..buy(&client).await {
            tokio::time::sleep(PAUSE).await;
            payments.push(bare.pay());
        }
    }
    client.close().await;
    let top_ups = of_log(&provider.process.stderr());
    report(&top_ups[WARM_UP..], &payments[WARM_UP..]);
}

/// Buys an answer; how often it was paid for while it ran.
async fn buy(client: &Client) -> usize {
    let request = Request::chat("scripted", "hello")
        .max_tokens(TOKENS)
        .max_price(PRICE);
    let mut paid = 0;
    measure::see(client, request, |step| {
        paid += usize::from(matches!(step, Step::Paid { .. }));
    })
    .await;
    paid
}

fn report(top_ups: &[Round], payments: &[Round]) {
    let (need, invoice) = (
        |round: &Round| round.from_need,
        |round: &Round| round.from_invoice,
    );
    println!(
        "in ms: median, 95th percentile; {} top-ups, {} bare payments",
        top_ups.len(),
        payments.len()
    );
    let ours = line("top-up, from the invoice", top_ups, invoice);
    let theirs = line("bare payment, from the invoice", payments, invoice);
    said("from the invoice", ours / theirs);
    let ours = line("top-up, from the need for one", top_ups, need);
    let theirs = line("bare payment, with the invoice", payments, need);
    said("with the invoice", ours / theirs);
}

fn line(what: &str, rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let times: Vec<f64> = rounds.iter().map(of).collect();
    let middle = median(&times);
    println!("  {what:32} {middle:7.1} {:7.1}", percentile(&times, 95));
    middle
}

fn said(what: &str, ratio: f64) {
    println!(
        "  ratio {what}: {ratio:.2} (at most {AIM}: {})",
        verdict(ratio <= AIM)
    );
}

/// The top-ups that a provider's log tells of, in the order of their ends.
fn of_log(log: &str) -> Vec<Round> {
    let (mut needed, mut made, mut rounds) = (0.0, BTreeMap::new(), Vec::new());
    for line in log.lines() {
        let Ok(said) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let payment = said["payment"].as_str().unwrap_or_default().to_owned();
        match said["message"].as_str() {
            // One at a time is asked for.
            Some("a top-up is needed") => needed = at(&said),
            Some("asks for a top-up") => {
                made.insert(payment, (needed, at(&said)));
            }
            Some("a top-up has come") => {
                let (needed, made) = made.remove(&payment).expect("it was asked for");
                rounds.push(Round {
                    from_need: at(&said) - needed,
                    from_invoice: at(&said) - made,
                });
            }
            _ => {}
        }
    }
    rounds
}

/// Milliseconds of the day; a run over midnight shows at once.
fn at(said: &Value) -> f64 {
    let stamp = said["timestamp"].as_str().expect("a time");
    let (_, time) = stamp.trim_end_matches('Z').split_once('T').unwrap();
    let parts = time.split(':').map(|part| part.parse::<f64>().unwrap());
    parts.fold(0.0, |sum, part| sum * 60.0 + part) * 1_000.0
}
