//! Ten thousand junk events a second from as many fresh keys, while jobs run: our relay as it comes.

use std::sync::Arc;

use infernet_tests::Market;
use infernet_tests::load::{Cpu, Flood, junk};

const PER_SECOND: u64 = 10_000;
const LASTS_SECS: u64 = 30;
const CONNECTIONS: usize = 20;
const BUYERS: [usize; 2] = [1, 2];

pub async fn run() {
    println!(
        "| junk/s sent | taken | refused | jobs | s, median | s, slowest | relay's cores | load's cores |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for buyers in BUYERS {
        for flood in [0, LASTS_SECS] {
            measure(buyers, flood).await;
        }
    }
}

/// Jobs under so many seconds of a flood; without any, beside a trickle that lasts a while.
async fn measure(buyers: usize, lasts_secs: u64) {
    let market = Arc::new(Market::open().unwrap());
    let _provider = market.scripted_provider("alpha", &["--slots", "4"]);
    let (events, per_second) = match lasts_secs {
        0 => (10, 1.0),
        secs => (secs * PER_SECOND, PER_SECOND as f64),
    };
    let flood = Flood {
        junk: Arc::new(junk(events)),
        per_second,
        connections: CONNECTIONS,
        buyers,
    };
    let (theirs, own) = (
        Cpu::of(market.relay.process.id()),
        Cpu::of(std::process::id()),
    );
    let flooded = flood.run(&market).await.unwrap();
    let (theirs, own) = (theirs.share(), own.share());
    let (outcome, jobs) = (&flooded.outcome, &flooded.jobs);
    println!(
        "| {:.0} | {} | {:?} | {}, {buyers} at a time | {:.2} | {:.2} | {theirs:.2} | {own:.2} |",
        outcome.sent as f64 / outcome.took.as_secs_f64(),
        outcome.accepted.len(),
        outcome.refused,
        jobs.count(),
        jobs.at(500).as_secs_f64(),
        jobs.at(1_000).as_secs_f64(),
    );
    if !outcome.broken.is_empty() {
        println!("  {:?}", outcome.broken);
    }
}
