//! Durable events a second.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use infernet_relay::store::{Saved, Store};
use nostr::Filter;
use nostr_database::NostrDatabase as _;
use nostr_lmdb::NostrLMDB;
use tempfile::TempDir;

use super::events::{self, Made};

/// With one event at a time a figure takes this part of the events.
const PATIENCE: usize = 150;

/// Prints how many events a second each store saves with so many under way.
pub async fn measure(in_flight: usize, most: usize, folder: &impl Fn() -> TempDir, alone: bool) {
    let count = most.min(in_flight * PATIENCE + most / 20);
    let made = events::events(0..count);
    let bytes: usize = made.iter().map(|(_, json)| json.len()).sum();
    println!(
        "{in_flight} in flight, {count} events of {} bytes:",
        bytes / count
    );
    let ours = folder();
    let store = Store::open(ours.path()).unwrap();
    let (acknowledged, indexed) = save(&store, &made, in_flight).await;
    println!(
        "  infernet   {:>7.0} events/s acknowledged, {:>7.0} events/s until all are indexed",
        rate(count, acknowledged),
        rate(count, indexed)
    );
    drop(store);
    if !alone {
        let theirs = folder();
        let lmdb = NostrLMDB::open(theirs.path()).unwrap();
        let start = Instant::now();
        let saves = stream::iter(&made).map(|(event, _)| lmdb.save_event(event));
        saves
            .buffer_unordered(in_flight)
            .for_each(|saved| async move { assert!(saved.unwrap().is_success()) })
            .await;
        println!(
            "  nostr-lmdb {:>7.0} events/s",
            rate(count, start.elapsed())
        );
    }
}

/// Saves events and answers how long it took until the last was acknowledged, and until all were indexed.
pub async fn save(store: &Store, made: &[Made], in_flight: usize) -> (Duration, Duration) {
    let start = Instant::now();
    let saves = stream::iter(made).map(|(event, json)| store.save(event.clone(), json.clone()));
    saves
        .buffer_unordered(in_flight)
        .for_each(|saved| async move { assert_eq!(saved.unwrap(), Saved::New) })
        .await;
    let acknowledged = start.elapsed();
    // A read waits for the index.
    store.query(Filter::new(), 1).await.unwrap();
    (acknowledged, start.elapsed())
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
