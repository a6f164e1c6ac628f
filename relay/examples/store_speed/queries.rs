//! Time to answer filters over a large store.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use infernet_relay::store::Store;
use nostr::{Alphabet, Filter, Kind, SingleLetterTag, Timestamp};
use nostr_database::NostrDatabase as _;
use nostr_lmdb::NostrLMDB;
use tempfile::TempDir;

use super::events::{self, KEYS, START, job, key, scatter};
use super::saves;

/// Events made at a time.
const STEP: usize = 50_000;

/// Events answered to a filter that sets no limit, as the relay does it.
const LIMIT: usize = 500;

/// A filter of some shape, by a number.
type Shape = fn(u64, u64) -> Filter;

const SHAPES: [(&str, Shape); 11] = [
    ("one id", |number, _| {
        Filter::new().id(events::event(number).0.id)
    }),
    ("20 ids", |number, count| {
        Filter::new().ids((0..20).map(|step| events::event((number + step * 977) % count).0.id))
    }),
    ("author + kind", |number, _| {
        Filter::new()
            .author(key(number % KEYS))
            .kind(Kind::from(8_603))
    }),
    ("author", |number, _| {
        Filter::new().author(key(number % KEYS))
    }),
    ("kind", |number, _| {
        Filter::new().kind(Kind::from(8_600 + (number % 6) as u16))
    }),
    ("#e", |number, _| Filter::new().event(job(number / 6))),
    ("#p + kind", |number, _| {
        Filter::new()
            .pubkey(key(number % KEYS))
            .kind(Kind::from(8_601))
    }),
    ("50 #e + 2 kinds", |number, count| {
        let jobs = (0..50).map(|step| job((number + step * 977) % count / 6));
        Filter::new()
            .events(jobs)
            .kinds([8_601, 8_603].map(Kind::from))
    }),
    ("2 kinds, an hour", |number, _| {
        let since = START + number / 10;
        let kinds = [8_600, 8_605].map(Kind::from);
        Filter::new()
            .kinds(kinds)
            .since(Timestamp::from_secs(since))
            .until(Timestamp::from_secs(since + 3_600))
    }),
    ("frequent #t + author", |number, _| {
        Filter::new()
            .custom_tag(SingleLetterTag::lowercase(Alphabet::T), "chat")
            .author(key(number % KEYS))
    }),
    ("everything", |_, _| Filter::new()),
];

/// Prints how long each shape of filter takes, once `count` events are there.
pub async fn measure(count: usize, filters: usize, folder: &impl Fn() -> TempDir, alone: bool) {
    let (ours, theirs) = (folder(), folder());
    let store = Store::open(ours.path()).unwrap();
    fill(&store, count).await;
    let lmdb = match alone {
        true => None,
        false => Some(NostrLMDB::open(theirs.path()).unwrap()),
    };
    if let Some(lmdb) = &lmdb {
        fill_lmdb(lmdb, count).await;
    }
    println!(
        "{:<22} {:>7} {:>22} {:>22}",
        "ms over all events", "answer", "infernet p50/p99", "nostr-lmdb p50/p99"
    );
    for (name, shape) in SHAPES {
        let asked: Vec<Filter> = (0..filters as u64)
            .map(|turn| shape(scatter(turn) % count as u64, count as u64).limit(LIMIT))
            .collect();
        let (mut own, mut other, mut found) = (Vec::new(), Vec::new(), 0);
        for filter in asked {
            let start = Instant::now();
            found += store.query(filter.clone(), LIMIT).await.unwrap().len();
            own.push(start.elapsed());
            if let Some(lmdb) = &lmdb {
                let start = Instant::now();
                lmdb.query(filter).await.unwrap();
                other.push(start.elapsed());
            }
        }
        println!(
            "{name:<22} {:>7} {:>22} {:>22}",
            found / filters,
            figures(&mut own),
            figures(&mut other)
        );
    }
}

async fn fill(store: &Store, count: usize) {
    let (mut took, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for start in (0..count).step_by(STEP) {
        let made = events::events(start..count.min(start + STEP));
        let (_, indexed) = saves::save(store, &made, 2_000).await;
        took += indexed;
        slowest = slowest.max(indexed);
    }
    let rate = |count: usize, took: Duration| count as f64 / took.as_secs_f64();
    println!(
        "infernet took {count} events at {:.0} a second, {:.0} in its slowest {STEP}, until all were indexed; its index has {} MB",
        rate(count, took),
        rate(STEP.min(count), slowest),
        store.disk_bytes() >> 20,
    );
}

async fn fill_lmdb(lmdb: &NostrLMDB, count: usize) {
    for start in (0..count).step_by(STEP) {
        let made = events::events(start..count.min(start + STEP));
        let saves = stream::iter(&made).map(|(event, _)| lmdb.save_event(event));
        saves
            .buffer_unordered(2_000)
            .for_each(|saved| async move { assert!(saved.is_ok()) })
            .await;
    }
}

fn figures(times: &mut [Duration]) -> String {
    times.sort();
    let at = |part: f64| times.get(((times.len() - 1) as f64 * part) as usize);
    match times {
        [] => "-".to_owned(),
        _ => format!(
            "{:.2} / {:.2}",
            at(0.5).unwrap().as_secs_f64() * 1e3,
            at(0.99).unwrap().as_secs_f64() * 1e3
        ),
    }
}
