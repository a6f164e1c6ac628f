//! What the market adds to the first token: jobs through a real relay and a real
//! provider, whose scripted engine says its first token at once (a millionth of a
//! second later), so that all of the time is the market's.
//!
//! `cargo bench -p infernet-tests`; figures belong into docs/benchmarks.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use infernet_client::{Client, Options, Request, Route, Step};
use infernet_tests::Market;

/// Jobs one after another, and jobs in all of each crowded round.
const JOBS: usize = 200;
/// Jobs at a time in a crowded round.
const CROWD: usize = 20;
/// The scripted engine's speed.
const TOKENS_PER_S: &str = "1000000";

#[tokio::main]
async fn main() {
    let market = Market::open().unwrap();
    let crowd = CROWD.to_string();
    let _provider = market
        .scripted_provider(
            "alpha",
            &[
                "--slots",
                &crowd,
                "--queue",
                &crowd,
                "--scripted-speed",
                TOKENS_PER_S,
            ],
        )
        .unwrap();
    let client = Client::connect(Options::new([market.relay.url.clone()]))
        .await
        .unwrap();
    // The first job learns what is on sale; a program asks more than once.
    first_token(&client, Route::Direct).await;

    println!("submit to first text in ms, over {JOBS} jobs: median, 99th percentile");
    report(
        "direct, one job at a time",
        &in_turn(&client, Route::Direct).await,
    );
    report("direct, twenty at a time", &crowded(&client).await);
    report(
        "auction, one job at a time",
        &in_turn(&client, Route::Auction).await,
    );
    client.close().await;
}

fn report(what: &str, times: &[Duration]) {
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1_000.0;
    println!("  {what:28} {:6.1} {:6.1}", at(50), at(99));
}

async fn in_turn(client: &Client, route: Route) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..JOBS {
        times.push(first_token(client, route.clone()).await);
    }
    sorted(times)
}

async fn crowded(client: &Client) -> Vec<Duration> {
    let client = Arc::new(client.clone());
    let mut times = Vec::new();
    for _ in 0..JOBS / CROWD {
        let jobs = (0..CROWD).map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { first_token(&client, Route::Direct).await })
        });
        let jobs: Vec<_> = jobs.collect();
        for job in jobs {
            times.push(job.await.unwrap());
        }
    }
    sorted(times)
}

/// From the call to the first text; the job is seen to its end.
async fn first_token(client: &Client, route: Route) -> Duration {
    let request = Request::chat("scripted", "hello")
        .max_tokens(8)
        .route(route);
    let began = Instant::now();
    let mut answer = client.submit(request).await.unwrap();
    let mut first = None;
    while let Some(step) = answer.step().await {
        if matches!(step, Step::Text(_)) {
            first.get_or_insert_with(|| began.elapsed());
        }
    }
    answer.finish().await.unwrap();
    first.expect("every answer has text")
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    times
}
