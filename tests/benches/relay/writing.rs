//! Events a second that are answered `OK true`: by clients that wait for each answer, and by clients that do not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use infernet_tests::load::{Connection, Cpu, Outcome, Population, Ready, pipeline, stop_and_wait};
use nostr::Timestamp;
use tempfile::TempDir;

use super::peers::{AUTHORS, Peer, Running};

const CLIENTS: usize = 20;
const WAITING: Duration = Duration::from_secs(5);
const PIPELINES: usize = 8;
const IN_FLIGHT: usize = 256;
const PIPELINING: Duration = Duration::from_secs(12);
/// More than the fastest takes.
const EVENTS: u64 = 400_000;

pub async fn run(peers: &[Peer]) {
    let people = Population::new(AUTHORS, 5_000, Timestamp::now() - 3_600u64, 5);
    let events = Arc::new(people.ready(0..EVENTS));
    let bytes: usize = events.iter().map(|event| event.message.len()).sum();
    println!(
        "events of {} bytes at the mean, of 2,000 keys",
        bytes / events.len()
    );
    println!(
        "| relay | clients | events/s | refused | relay's cores | load's cores | memory | index behind |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for peer in peers {
        waiting(*peer, &events).await;
    }
    for peer in peers {
        pipelining(*peer, &events).await;
    }
}

async fn waiting(peer: Peer, events: &Arc<Vec<Ready>>) {
    let folder = TempDir::new().unwrap();
    let relay = peer.start(folder.path()).await;
    let cpu = (relay.cpu(), Cpu::of(std::process::id()));
    let outcome = stop_and_wait(&relay.url, events, CLIENTS, WAITING).await;
    report(peer, "20 that wait", &relay, cpu, &outcome, events).await;
}

async fn pipelining(peer: Peer, events: &Arc<Vec<Ready>>) {
    let folder = TempDir::new().unwrap();
    let relay = peer.start(folder.path()).await;
    let cpu = (relay.cpu(), Cpu::of(std::process::id()));
    let outcome = pipeline(&relay.url, events, PIPELINES, IN_FLIGHT, PIPELINING).await;
    report(peer, "8 with 256 in flight", &relay, cpu, &outcome, events).await;
}

async fn report(
    peer: Peer,
    what: &str,
    relay: &Running,
    (theirs, own): (Cpu, Cpu),
    outcome: &Outcome,
    events: &[Ready],
) {
    let (theirs, own, memory) = (theirs.share(), own.share(), relay.memory() >> 20);
    let behind = behind(relay, outcome, events).await;
    println!(
        "| {} | {what} | {:.0} | {} | {theirs:.2} | {own:.2} | {memory} MiB | {:.0} ms |",
        peer.name(),
        outcome.rate(),
        outcome.refusals(),
        behind.as_secs_f64() * 1_000.0,
    );
    if outcome.refusals() + outcome.broken.len() > 0 {
        println!("  {:?} {:?}", outcome.refused, outcome.broken);
    }
    assert!(outcome.sent < events.len(), "there were too few events");
}

/// How long it takes until the last event that was taken is found.
async fn behind(relay: &Running, outcome: &Outcome, events: &[Ready]) -> Duration {
    let Some(last) = outcome.accepted.last() else {
        return Duration::ZERO;
    };
    let last = events.iter().find(|event| event.number == *last).unwrap();
    let filter = format!(r#"{{"ids":["{}"]}}"#, last.id());
    let began = Instant::now();
    let mut connection = Connection::open(&relay.url).await.unwrap();
    while connection.request("last", &filter).await.unwrap() == 0 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "an event that was taken is not found"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}
