//! From sending to delivery, with few and many subscribers.

use std::sync::Arc;
use std::time::Duration;

use infernet_tests::load::{Audience, Cpu, Population};
use nostr::Timestamp;
use tempfile::TempDir;

use super::peers::{AUTHORS, Peer};

const LASTS_SECS: u64 = 4;

const AUDIENCES: [Audience; 4] = [
    Audience {
        subscribers: 1,
        all: false,
    },
    Audience {
        subscribers: 100,
        all: false,
    },
    Audience {
        subscribers: 100,
        all: true,
    },
    Audience {
        subscribers: 5_000,
        all: false,
    },
];

const RATES: [u64; 2] = [100, 500];

pub async fn run(peers: &[Peer]) {
    println!(
        "| relay | subscribers | events/s | ms, median | ms, 99 % | lost | relay's cores | load's cores |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for audience in AUDIENCES {
        for rate in RATES {
            for peer in peers {
                measure(*peer, audience, rate).await;
            }
        }
    }
}

async fn measure(peer: Peer, audience: Audience, rate: u64) {
    let readers = audience.subscribers;
    let people = Population::new(AUTHORS, readers, Timestamp::now(), 1_000 / rate);
    let events = Arc::new(people.ready(0..rate * LASTS_SECS));
    let folder = TempDir::new().unwrap();
    let relay = peer.start(folder.path()).await;
    let listening = audience.listen(&relay.url, &people, events).await.unwrap();

    let (theirs, own) = (relay.cpu(), Cpu::of(std::process::id()));
    let outcome = listening.publish(&relay.url, rate as f64).await;
    let (theirs, own) = (theirs.share(), own.share());
    let delivery = listening.finish(outcome).await.unwrap();

    let (times, lost) = (delivery.times(), delivery.lost());
    println!(
        "| {} | {readers}, {} | {rate} | {:.2} | {:.2} | {lost} of {} | {theirs:.2} | {own:.2} |",
        peer.name(),
        if audience.all { "all match" } else { "own" },
        ms(times.at(500)),
        ms(times.at(990)),
        lost + times.count(),
    );
    let outcome = &delivery.outcome;
    if delivery.closed() + outcome.refusals() + outcome.broken.len() > 0 {
        let (refused, broken) = (&outcome.refused, &outcome.broken);
        println!(
            "  {} were closed; {refused:?} {broken:?}",
            delivery.closed()
        );
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
