//! Time to EOSE by shape of filter, over a million events.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use infernet_tests::load::{Connection, Population, Times, pipeline};
use nostr::Timestamp;

use super::peers::{AUTHORS, Peer};

const EVENTS: u64 = 1_000_000;
/// Signed and sent at a time.
const CHUNK: u64 = 100_000;
/// Two and a half seconds apart: a month's.
const MILLIS_EACH: u64 = 2_500;
/// Requests of each shape.
const REQUESTS: u64 = 100;
/// A chunk takes the slowest relay a minute.
const PATIENCE: Duration = Duration::from_secs(600);
/// What stands beside a store: when its events begin.
const BEGIN: &str = "begin";

fn people(begin: Timestamp) -> Population {
    Population::new(AUTHORS, 5_000, begin, MILLIS_EACH)
}

fn folder(peer: Peer) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../.cache/relay-bench")
        .join(peer.name())
}

/// Fills the stores of those that have none.
pub async fn fill(peers: &[Peer]) {
    let empty = |peer: &&Peer| !folder(**peer).join(BEGIN).exists() && **peer != Peer::OursDefault;
    for peer in peers.iter().filter(empty) {
        let folder = folder(*peer);
        let _ = std::fs::remove_dir_all(&folder);
        let begin = Timestamp::now() - EVENTS * MILLIS_EACH / 1_000;
        let people = people(begin);
        let relay = peer.start(&folder).await;
        let mut took = Duration::ZERO;
        for chunk in 0..EVENTS / CHUNK {
            let events = Arc::new(people.ready(chunk * CHUNK..(chunk + 1) * CHUNK));
            let outcome = pipeline(&relay.url, &events, 4, 256, PATIENCE).await;
            assert_eq!(
                outcome.accepted.len() as u64,
                CHUNK,
                "{:?} {:?}",
                outcome.refused,
                outcome.broken
            );
            took += outcome.took;
        }
        std::fs::write(folder.join(BEGIN), begin.as_secs().to_string()).unwrap();
        let rate = EVENTS as f64 / took.as_secs_f64();
        println!(
            "{}: {EVENTS} events in {:.0} s, {rate:.0} a second",
            peer.name(),
            took.as_secs_f64()
        );
    }
}

type Shape = fn(&Population, u64) -> String;

const SHAPES: [(&str, Shape); 10] = [
    ("one id", |people, n| {
        format!(r#"{{"ids":["{}"]}}"#, people.unsigned(n).id().to_hex())
    }),
    ("author and kind, limit 50", |people, n| {
        let kind = people.kinds()[0];
        let author = people.author(n).to_hex();
        format!(r#"{{"authors":["{author}"],"kinds":[{kind}],"limit":50}}"#)
    }),
    ("kind, limit 100", |people, n| {
        format!(
            r#"{{"kinds":[{}],"limit":100}}"#,
            people.kinds()[(n % 4) as usize]
        )
    }),
    ("#e of a job", |people, n| {
        format!(r##"{{"#e":["{}"]}}"##, people.job(n))
    }),
    ("#e of 100 jobs", |people, n| {
        let jobs: Vec<String> = (0..100)
            .map(|more| people.job((n + more * 9_973) % EVENTS))
            .collect();
        format!(r##"{{"#e":{jobs:?}}}"##)
    }),
    ("#p and kind, limit 50", |people, n| {
        let kind = people.kinds()[0];
        format!(
            r##"{{"#p":["{}"],"kinds":[{kind}],"limit":50}}"##,
            people.reader(n).to_hex()
        )
    }),
    ("kinds in a window of 20 min", |people, n| {
        let since = people.written(n).as_secs();
        format!(
            r#"{{"kinds":{:?},"since":{since},"until":{}}}"#,
            people.kinds(),
            since + 1_200
        )
    }),
    ("anything, limit 100", |_, _| r#"{"limit":100}"#.to_owned()),
    ("a tag that all have, limit 50", |_, _| {
        r##"{"#t":["text-generation"],"limit":50}"##.to_owned()
    }),
    ("20 authors, limit 100", |people, n| {
        let authors: Vec<String> = (0..20)
            .map(|more| people.author(n + more * 97).to_hex())
            .collect();
        format!(r#"{{"authors":{authors:?},"limit":100}}"#)
    }),
];

/// Measures over what was filled.
pub async fn run(peers: &[Peer]) {
    println!("| filter | relay | events | ms, median | ms, 99 % |");
    println!("|---|---|---|---|---|");
    let filled = |peer: &Peer| folder(*peer).join(BEGIN).exists();
    let mut open = Vec::new();
    for peer in peers.iter().copied().filter(filled) {
        let begin = std::fs::read_to_string(folder(peer).join(BEGIN)).unwrap();
        let relay = peer.start(&folder(peer)).await;
        let connection = Connection::open(&relay.url).await.unwrap();
        open.push((
            peer,
            people(Timestamp::from(begin.parse::<u64>().unwrap())),
            connection,
            relay,
        ));
    }
    for (what, shape) in SHAPES {
        for (peer, people, connection, _relay) in &mut open {
            ask(*peer, what, connection, |n| shape(people, n)).await;
        }
    }
}

async fn ask(peer: Peer, what: &str, connection: &mut Connection, filter: impl Fn(u64) -> String) {
    let (mut times, mut events) = (Vec::new(), 0);
    for nth in 0..REQUESTS {
        // All over the store.
        let filter = filter(nth * 7_919_993 % EVENTS);
        let began = Instant::now();
        events += connection.request("ask", &filter).await.unwrap();
        times.push(began.elapsed());
        connection.close("ask").await.unwrap();
    }
    let times = Times::new(times);
    let ms = |per_mille| times.at(per_mille).as_secs_f64() * 1_000.0;
    let mean = events as f64 / REQUESTS as f64;
    println!(
        "| {what} | {} | {mean:.1} | {:.2} | {:.2} |",
        peer.name(),
        ms(500),
        ms(990)
    );
}
