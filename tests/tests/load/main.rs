//! Our relay under more than it should bear, as a real process: what was acknowledged is kept, who is owed an event
//! gets it or is told, and jobs end.
//!
//! What runs here is small. `make bench PART="relay load"` runs the same in earnest.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod flood;
mod full;
mod kills;
mod readers;

use std::sync::Arc;

use infernet_tests::load::{Connection, Population, Ready};
use nostr::Timestamp;

/// Has the relay hold back nothing and take every kind.
const UNLIMITED: &str = "\
general = true
blobs = false
[work]
max_bits = 0
[limits.all]
events = { per_second = 0, burst = 0 }
bytes = { per_second = 0, burst = 0 }
[limits]
connections = 15000
";

/// Filters name so many ids at a time.
const IDS: usize = 100;

fn people(readers: u64) -> Population {
    Population::new(50, readers, Timestamp::now() - 600u64, 5)
}

fn events(readers: u64, count: u64) -> Arc<Vec<Ready>> {
    Arc::new(people(readers).ready(0..count))
}

/// Asks for each of the accepted events; answers how many are missing.
async fn missing(url: &str, events: &[Ready], accepted: &[u64]) -> usize {
    look_for(url, events, accepted).await.unwrap()
}

/// The same, where the relay may say that it cannot look.
async fn look_for(url: &str, events: &[Ready], accepted: &[u64]) -> anyhow::Result<usize> {
    let mut connection = Connection::open(url).await?;
    let mut accepted = accepted.to_vec();
    accepted.sort_unstable();
    let taken = |event: &&Ready| accepted.binary_search(&event.number).is_ok();
    let ids: Vec<&str> = events.iter().filter(taken).map(Ready::id).collect();
    assert_eq!(
        ids.len(),
        accepted.len(),
        "the relay acknowledged what nobody sent"
    );
    let mut found = 0;
    for ids in ids.chunks(IDS) {
        let filter = format!(r#"{{"ids":{ids:?}}}"#);
        found += connection.request("kept", &filter).await?;
    }
    Ok(accepted.len() - found)
}
