//! A flood of valid events by fresh keys, while buyers whom nobody knows either want their jobs done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use infernet_tests::Market;
use infernet_tests::load::{Sendings, junk, steady};

const PER_SECOND: f64 = 1_500.0;
const LASTS_SECS: u64 = 12;
const CONNECTIONS: usize = 10;
/// What a job may take, mining and a busy machine counted in.
const JOB_WITHIN: Duration = Duration::from_secs(60);

/// What is free to strangers, so that a small flood uses it up at once.
const LITTLE_IS_FREE: &str = "\
[work.free]
events = { per_second = 20, burst = 500 }
bytes = { per_second = 16384, burst = 1048576 }
";

#[tokio::test(flavor = "multi_thread")]
async fn jobs_end_while_strangers_flood_the_relay() {
    let market = Arc::new(Market::open_with(LITTLE_IS_FREE).unwrap());
    let provider = market
        .scripted_provider("alpha", &["--slots", "4"])
        .unwrap();
    let junk = Arc::new(junk(PER_SECOND as u64 * LASTS_SECS));
    let sendings = Arc::new(Sendings::new(&junk));
    let flooding = Arc::new(AtomicBool::new(true));
    let jobs: Vec<_> = (0..2).map(|n| buy(&market, n, &flooding)).collect();

    let url = market.relay.url.clone();
    let outcome = steady(&url, &junk, CONNECTIONS, PER_SECOND, &sendings).await;
    flooding.store(false, Ordering::Release);
    let mut ended = 0;
    for buyer in jobs {
        ended += buyer.await.unwrap();
    }
    assert!(ended >= 4, "{ended} jobs");
    // Most of it was refused, for want of work, and before it could reach the provider.
    let (taken, asked) = (outcome.accepted.len(), outcome.refused.get("pow"));
    assert!(
        taken < junk.len() / 4,
        "{taken} of {} were taken",
        junk.len()
    );
    assert!(
        *asked.unwrap_or(&0) > junk.len() / 2,
        "{:?} {:?}",
        outcome.refused,
        outcome.broken
    );
    drop(provider);
}

/// Buys one job after the other while the flood lasts, each with a new key; answers how many ended.
fn buy(
    market: &Arc<Market>,
    nth: usize,
    flooding: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<usize> {
    let (market, flooding) = (market.clone(), flooding.clone());
    tokio::task::spawn_blocking(move || {
        let mut jobs = 0;
        while flooding.load(Ordering::Acquire) {
            let buyer = market.client(&format!("buyer-{nth}-{jobs}"));
            let began = Instant::now();
            let done = buyer.json(&["submit", "--json", "hello"]).unwrap();
            assert!(done["job"].is_string(), "{done}");
            assert!(
                began.elapsed() < JOB_WITHIN,
                "it took {:?}",
                began.elapsed()
            );
            jobs += 1;
        }
        jobs
    })
}
