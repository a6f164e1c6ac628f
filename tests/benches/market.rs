//! What the market adds to the first token: jobs through a real relay and a real
//! provider. The engine is scripted; its own time to the first token, as each result
//! states it, is measured in the same run and taken off.
//!
//! `cargo bench -p infernet-tests --bench market`; figures belong into docs/benchmarks.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod measure;

use std::time::{Duration, Instant};

use infernet_client::{Client, Options, Request, Route, Step};
use infernet_tests::Market;

use measure::percentile;
use measure::usage::Usage;

/// Jobs of each row.
const JOBS: usize = 400;
/// Jobs at a time in a crowded round.
const CROWD: usize = 20;
/// An engine that says its first token at once, and all the others with it.
const AT_ONCE: (&str, &str) = ("at-once", "1000000");
/// An engine as fast as a good one is for each reader.
const STEADY: (&str, &str) = ("steady", "100");
/// From one offer to the next: a provider bids on twenty of strangers' a second.
const BETWEEN_OFFERS: Duration = Duration::from_millis(60);
/// From the end of one round to the next, which begins at rest.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() {
    let bench = Bench::open().await;
    println!("submit to first text in ms, over {JOBS} jobs, and processor time of a whole job");
    println!(
        "{:38} {:>6} {:>6} | less the engine's {:>6} {:>6} | ms of client, relay, provider",
        "", "median", "99 %", "median", "99 %"
    );
    for model in [AT_ONCE.0, STEADY.0] {
        bench.row(model, "direct, one at a time", Way::Turns).await;
        bench
            .row(model, "direct, twenty at a time", Way::Crowd)
            .await;
    }
    bench
        .row(AT_ONCE.0, "auction, one at a time", Way::Auctions)
        .await;
    bench.client.close().await;
}

/// How jobs come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// One after another.
    Turns,
    /// Many at once, round after round.
    Crowd,
    /// One after another, by auction, no faster than a provider bids.
    Auctions,
}

struct Bench {
    client: Client,
    /// The process of the relay, and of the provider of each model.
    relay: u32,
    providers: Vec<(&'static str, u32)>,
    /// Keeps the processes alive.
    _market: (Market, Vec<infernet_tests::Provider>),
}

/// How long a job's first text took.
#[derive(Clone, Copy)]
struct Took {
    all_ms: f64,
    /// Of the engine itself.
    engine_ms: f64,
    /// In which a window for bids was waited for to its end.
    window_ms: f64,
}

impl Bench {
    async fn open() -> Self {
        let market = Market::open().unwrap();
        let started: Vec<_> = [AT_ONCE, STEADY]
            .map(|engine| provider(&market, engine))
            .into();
        let options = Options::new([market.relay.url.clone()]);
        let client = Client::connect(options).await.unwrap();
        let bench = Self {
            client,
            relay: market.relay.process.id(),
            providers: started
                .iter()
                .map(|(model, it)| (*model, it.process.id()))
                .collect(),
            _market: (market, started.into_iter().map(|(_, it)| it).collect()),
        };
        // The first jobs learn what is on sale; a program asks more than once.
        for model in [AT_ONCE.0, STEADY.0] {
            bench.first_token(model, Route::Direct).await;
        }
        bench
    }

    /// Measures one way and says how it went.
    async fn row(&self, model: &'static str, what: &str, way: Way) {
        tokio::time::sleep(BETWEEN_ROUNDS).await;
        let before = self.used(model);
        let times = match way {
            Way::Turns => self.in_turn(model, Route::Direct, Duration::ZERO).await,
            Way::Crowd => self.crowded(model).await,
            Way::Auctions => self.in_turn(model, Route::Auction, BETWEEN_OFFERS).await,
        };
        tokio::time::sleep(BETWEEN_ROUNDS).await;
        let used = self.used(model);
        let each = |n: usize| (used[n] - before[n]) * 1_000.0 / times.len() as f64;
        let all: Vec<f64> = times.iter().map(|took| took.all_ms).collect();
        let added = |took: &Took| took.all_ms - took.engine_ms - took.window_ms;
        let added: Vec<f64> = times.iter().map(added).collect();
        println!(
            "{:38} {:6.1} {:6.1} |                   {:6.1} {:6.1} | {:.2} {:.2} {:.2}",
            format!("{what}, engine {model}"),
            percentile(&all, 50),
            percentile(&all, 99),
            percentile(&added, 50),
            percentile(&added, 99),
            each(0),
            each(1),
            each(2),
        );
        let waited = times.iter().filter(|took| took.window_ms > 0.0).count();
        if way == Way::Auctions {
            println!(
                "    the window was waited for in {waited} of {} auctions",
                times.len()
            );
        }
    }

    /// Seconds of processor time: of this client, the relay and the model's provider.
    fn used(&self, model: &str) -> [f64; 3] {
        let seller = self.providers.iter().find(|(name, _)| *name == model);
        let (_, seller) = seller.expect("every model has its provider");
        [std::process::id(), self.relay, *seller].map(|pid| Usage::of(pid).unwrap().cpu_s)
    }

    async fn in_turn(&self, model: &'static str, route: Route, apart: Duration) -> Vec<Took> {
        let mut times = Vec::with_capacity(JOBS);
        for _ in 0..JOBS {
            let began = tokio::time::Instant::now();
            times.push(self.first_token(model, route.clone()).await);
            tokio::time::sleep_until(began + apart).await;
        }
        times
    }

    async fn crowded(&self, model: &'static str) -> Vec<Took> {
        let mut times = Vec::with_capacity(JOBS);
        for _ in 0..JOBS / CROWD {
            let one = || {
                let client = self.client.clone();
                tokio::spawn(async move { first_token(&client, model, Route::Direct).await })
            };
            let jobs: Vec<_> = (0..CROWD).map(|_| one()).collect();
            for job in jobs {
                times.push(job.await.unwrap());
            }
            tokio::time::sleep(BETWEEN_ROUNDS).await;
        }
        times
    }

    async fn first_token(&self, model: &str, route: Route) -> Took {
        first_token(&self.client, model, route).await
    }
}

fn provider(
    market: &Market,
    (model, speed): (&'static str, &str),
) -> (&'static str, infernet_tests::Provider) {
    let crowd = CROWD.to_string();
    let arguments = [
        ["--slots", &crowd],
        ["--queue", &crowd],
        ["--scripted-name", model],
        ["--scripted-speed", speed],
    ];
    let started = market.scripted_provider(model, arguments.as_flattened());
    (model, started.unwrap())
}

/// From the call to the first text; the job is seen to its end.
async fn first_token(client: &Client, model: &str, route: Route) -> Took {
    let request = Request::chat(model, "hello").max_tokens(8).route(route);
    let window = Options::new([""]).auction_window;
    let began = Instant::now();
    let (mut first, mut offered, mut awarded) = (None, None, None);
    let mut answer = client.submit(request).await.unwrap();
    while let Some(step) = answer.step().await {
        let seen = match step {
            Step::Offered { .. } => &mut offered,
            Step::Awarded { .. } => &mut awarded,
            Step::Text(_) => &mut first,
            _ => continue,
        };
        seen.get_or_insert_with(|| began.elapsed());
    }
    let summary = answer.finish().await.unwrap();
    let timing = summary.evidence.result.timing;
    let waited = awarded
        .zip(offered)
        .map(|(to, from)| to.saturating_sub(from));
    let is_whole = waited.is_some_and(|waited| waited >= window);
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    Took {
        all_ms: ms(first.expect("every answer has text")),
        engine_ms: timing.first_token_ms.saturating_sub(timing.queued_ms) as f64,
        window_ms: if is_whole { ms(window) } else { 0.0 },
    }
}
