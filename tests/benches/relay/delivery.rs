//! From sending to delivery, with few and many subscribers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use infernet_tests::load::{Cpu, Listener, Population, Ready, Sendings, Times, steady};
use nostr::Timestamp;
use tempfile::TempDir;

use super::peers::{AUTHORS, Peer, Running};

const SENDERS: usize = 4;
const LASTS_SECS: u64 = 5;
/// How long what was sent last may take.
const LATE: Duration = Duration::from_secs(10);
/// Subscriptions that are begun at a time.
const AT_A_TIME: usize = 64;

/// Who listens to what.
#[derive(Clone, Copy)]
struct Audience {
    subscribers: u64,
    /// Whether each gets every event, or only those that name it.
    all: bool,
}

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
    let people = Population::new(
        AUTHORS,
        audience.subscribers,
        Timestamp::now(),
        1_000 / rate,
    );
    let events = Arc::new(people.ready(0..rate * LASTS_SECS));
    let folder = TempDir::new().unwrap();
    let relay = peer.start(folder.path()).await;
    let sendings = Arc::new(Sendings::new(&events));
    let listeners = subscribe(&relay, &people, audience, &events, &sendings).await;

    let cpu = (relay.cpu(), Cpu::of(std::process::id()));
    let outcome = steady(&relay.url, &events, SENDERS, rate as f64, &sendings).await;
    let (theirs, own) = (cpu.0.share(), cpu.1.share());

    let by = Instant::now() + LATE;
    let (mut times, mut lost, mut ended) = (Vec::new(), 0, 0);
    for listener in listeners {
        let heard = listener.finish(by).await.unwrap();
        times.extend(heard.times);
        lost += heard.lost;
        ended += usize::from(heard.ended.is_some());
    }
    let times = Times::new(times);
    let whole = if audience.all { "all match" } else { "own" };
    println!(
        "| {} | {}, {whole} | {rate} | {:.2} | {:.2} | {lost} of {} | {theirs:.2} | {own:.2} |",
        peer.name(),
        audience.subscribers,
        ms(times.at(500)),
        ms(times.at(990)),
        lost + times.count(),
    );
    if ended + outcome.refusals() + outcome.broken.len() > 0 {
        println!(
            "  {ended} were ended; {:?} {:?}",
            outcome.refused, outcome.broken
        );
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

async fn subscribe(
    relay: &Running,
    people: &Population,
    audience: Audience,
    events: &[Ready],
    sendings: &Arc<Sendings>,
) -> Vec<Listener> {
    let count = events.len() as u64;
    let start = |n: u64| async move {
        let named = format!(r##"{{"#p":["{}"],"limit":1}}"##, people.reader(n).to_hex());
        let every = format!(r#"{{"kinds":{:?},"limit":1}}"#, people.kinds());
        // Events name readers in turn.
        let own = (count + audience.subscribers - 1 - n) / audience.subscribers;
        let (filter, expected) = if audience.all {
            (every, count)
        } else {
            (named, own)
        };
        Listener::start(&relay.url, &filter, expected as usize, sendings.clone()).await
    };
    let listeners = stream::iter(0..audience.subscribers).map(start);
    let listeners: Vec<_> = listeners.buffer_unordered(AT_A_TIME).collect().await;
    listeners.into_iter().map(Result::unwrap).collect()
}
