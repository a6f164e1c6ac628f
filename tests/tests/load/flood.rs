//! Junk by fresh keys, while jobs run.

use std::sync::Arc;
use std::time::Duration;

use infernet_tests::Market;
use infernet_tests::load::{Flood, junk};

const PER_SECOND: u32 = 1_500;
const LASTS_SECS: u32 = 12;
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
    let _provider = market.scripted_provider("alpha", &["--slots", "4"]);
    let junk = Arc::new(junk((PER_SECOND * LASTS_SECS).into()));
    let flood = Flood {
        junk: junk.clone(),
        per_second: PER_SECOND.into(),
        connections: 10,
        buyers: 2,
    };
    let flooded = flood.run(&market).await.unwrap();
    assert!(flooded.jobs.count() >= 4, "{} jobs", flooded.jobs.count());
    assert!(flooded.jobs.at(1_000) < JOB_WITHIN, "{}", flooded.jobs);
    // Most of it was refused, for want of work, and never reached the provider.
    let outcome = &flooded.outcome;
    let (taken, asked) = (outcome.accepted.len(), outcome.refused.get("pow"));
    assert!(taken < junk.len() / 4, "{taken} were taken");
    let (refused, broken) = (&outcome.refused, &outcome.broken);
    assert!(
        asked.is_some_and(|asked| *asked > junk.len() / 2),
        "{refused:?} {broken:?}"
    );
}
