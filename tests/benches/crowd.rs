//! A hundred paid jobs at a time through one channel: from a hundred buyers who share a wallet, and from one buyer over
//! one tab. All of them must end, no payment may be left, and all books must say the same.
//!
//! `cargo bench -p infernet-tests --bench crowd`; figures belong into docs/benchmarks.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod measure;

use std::process::Command;
use std::time::{Duration, Instant};

use futures::future::join_all;
use infernet_client::purse::Books;
use infernet_client::{Client, Request, Step, Summary};
use infernet_payments::rail::{Direction, Payment, State};
use infernet_protocol::money::{Msat, Price};
use infernet_tests::lightning::Balance;
use infernet_tests::{Lightning, Market, Process, WALLET, binary};
use nostr::Timestamp;
use serde_json::Value;

use self::measure::{BUYER, SELLER, percentile};

/// At a time.
const JOBS: usize = 100;
/// Slow enough for two cores to sign and check what a hundred streams say.
const TOKENS_PER_S: &str = "10";
const TOKENS: u32 = 100;
/// The demo's: two top-ups in a job of its own.
const PRICE: Price = Price {
    input_msat: 50_000_000,
    output_msat: 200_000_000,
};
/// A twentieth, where all jobs share what one buyer risks.
const SHARED_PRICE: Price = Price {
    input_msat: 2_500_000,
    output_msat: 10_000_000,
};
/// A job of ten seconds, and room for a hundred payments.
const DEADLINE: Duration = Duration::from_secs(300);
/// A command of a provider's.
const SOON: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() {
    let Some(lightning) = measure::wallets("crowd").await else {
        return;
    };
    let names: Vec<String> = (0..JOBS).map(|n| format!("buyer-{n}")).collect();
    run(&lightning, "a hundred buyers", &names, PRICE).await;
    run(&lightning, "one buyer", &[BUYER.to_owned()], SHARED_PRICE).await;
}

/// What the wallets were before.
struct Before {
    balances: Vec<Balance>,
    payments: usize,
}

/// A hundred jobs, shared out among these buyers.
async fn run(lightning: &Lightning, what: &str, names: &[String], price: Price) {
    let before = Before {
        balances: lightning.balances().await.unwrap(),
        payments: lightning.payments(BUYER).await.unwrap().len(),
    };
    let market = Market::open().unwrap();
    let _provider = provider(&market, lightning, price);
    let rail = measure::rail(lightning, BUYER);
    let open = names
        .iter()
        .map(|name| measure::buyer(&market, name, rail.clone()));
    let buyers = join_all(open).await;

    let began = Instant::now();
    let jobs = (0..JOBS).map(|n| buy(&buyers[n % buyers.len()], price));
    let jobs = join_all(jobs).await;
    let took = began.elapsed();
    join_all(buyers.into_iter().map(Client::close)).await;

    let payments = lightning.payments(BUYER).await.unwrap();
    report(what, took, &jobs, &payments[before.payments..]);
    agree(&market, lightning, names, &before).await;
}

fn provider(market: &Market, lightning: &Lightning, price: Price) -> infernet_tests::Provider {
    let (text, prices) = (measure::words(TOKENS as usize), measure::price_flags(price));
    let places = JOBS.to_string();
    let mut arguments = vec!["--engine", "scripted", "--scripted-text", &text];
    arguments.extend(["--scripted-speed", TOKENS_PER_S]);
    arguments.extend(["--slots", &places, "--queue", &places]);
    arguments.extend(prices.iter().map(String::as_str));
    let wallet = [(WALLET, lightning.connection(SELLER).unwrap())];
    market.provider_with(&wallet, SELLER, &arguments).unwrap()
}

/// One job that was seen to its end.
struct Job {
    summary: Summary,
    first_text: Duration,
}

async fn buy(client: &Client, price: Price) -> Job {
    let request = Request::chat("scripted", "hello")
        .max_tokens(TOKENS)
        .max_price(price)
        .deadline(DEADLINE);
    let (began, mut first) = (Instant::now(), None);
    let summary = measure::see(client, request, |step| {
        if matches!(step, Step::Text(_)) {
            first.get_or_insert_with(|| began.elapsed());
        }
    })
    .await;
    assert_eq!(summary.output_tokens, u64::from(TOKENS));
    Job {
        summary,
        first_text: first.expect("every answer has text"),
    }
}

fn report(what: &str, took: Duration, jobs: &[Job], payments: &[Payment]) {
    let outgoing = |of: fn(&State) -> bool| {
        let payments = payments.iter();
        payments
            .filter(|one| one.direction == Direction::Outgoing && of(&one.state))
            .count()
    };
    let settled = outgoing(|state| matches!(state, State::Settled { .. }));
    let failed = outgoing(|state| matches!(state, State::Failed | State::Expired));
    let open = outgoing(|state| matches!(state, State::Pending | State::Held));
    let again = jobs.iter().filter(|job| job.summary.attempts > 1).count();
    let firsts: Vec<f64> = jobs
        .iter()
        .map(|job| job.first_text.as_secs_f64())
        .collect();
    println!(
        "{what}: {JOBS} jobs in {:.1} s, {again} of them in more than one attempt; first text after {:.1} s (median), \
         {:.1} s (last); {settled} payments, {failed} failed, {open} left open",
        took.as_secs_f64(),
        percentile(&firsts, 50),
        percentile(&firsts, 100),
    );
    assert_eq!(open, 0, "a payment is stuck");
}

/// Holds the books of all against each other and against the wallets.
async fn agree(market: &Market, lightning: &Lightning, names: &[String], before: &Before) {
    let (mut charged, mut paid) = (0, 0);
    for name in names {
        let books = Books::open(&market.folder(name)).await.unwrap();
        let spent = books.spending(Timestamp::from(0)).await.unwrap();
        let unfinished = books.tabs().await.unwrap();
        assert!(unfinished.iter().all(|tab| tab.unfinished == 0));
        assert!(
            unfinished
                .iter()
                .all(|tab| tab.under_way_msat == Msat::ZERO)
        );
        charged += spent.charged_msat.0;
        paid += spent.paid_msat.0;
        books.close().await;
    }
    let earned = provider_says(market, lightning, "earnings");
    assert_eq!(earned["earned_msat"], charged, "{earned}");
    assert_eq!(earned["received_msat"], paid, "{earned}");
    let reconciled = provider_says(market, lightning, "reconcile");
    assert_eq!(reconciled["explained"], true, "{reconciled}");
    let comparison = lightning.add_up(&before.balances).await.unwrap();
    let of_seller = comparison.lines.iter().find(|line| line.name == SELLER);
    let gained = of_seller.map(|line| line.after - line.before);
    assert_eq!(gained, Some(i128::from(paid)), "{comparison}");
    println!("  {charged} msat charged, {paid} msat paid: both ledgers, both wallets");
}

fn provider_says(market: &Market, lightning: &Lightning, command: &str) -> Value {
    let mut line = Command::new(binary("infernet-provider"));
    line.args([command, "--json"])
        .env("INFERNET_HOME", market.folder(SELLER))
        .env(WALLET, lightning.connection(SELLER).unwrap());
    let mut process = Process::start(command, &mut line).unwrap();
    process.ended(SOON).unwrap();
    serde_json::from_str(&process.stdout()).unwrap()
}
