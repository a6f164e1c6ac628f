//! The link against relays: real ones that stop and start, and one that lies.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod demanding;
mod fake;
mod faults;
mod publishing;
mod several_relays;

use std::net::SocketAddr;
use std::time::Duration;

use infernet_node::link::{Delivery, Link, Options, Subscription};
use nostr::{Event, EventBuilder, Filter, Keys, Kind, RelayUrl};
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{RateLimit, RelayBuilder};
use tokio::time::timeout;

/// Nothing here takes so long unless it is broken.
const DEADLINE: Duration = Duration::from_secs(20);

const STORED: Kind = Kind::Custom(8_600);
const EPHEMERAL: Kind = Kind::Custom(24_600);

/// A library relay, on a port of its own choice or on `port`.
async fn relay(port: Option<u16>) -> (LocalRelay, RelayUrl) {
    relay_with(port, |builder| builder).await
}

async fn relay_with(
    port: Option<u16>,
    change: impl Fn(RelayBuilder) -> RelayBuilder,
) -> (LocalRelay, RelayUrl) {
    let begun = tokio::time::Instant::now();
    loop {
        let mut builder = RelayBuilder::default().rate_limit(RateLimit {
            max_reqs: 500,
            notes_per_minute: 1_000_000,
        });
        if let Some(port) = port {
            builder = builder.port(port);
        }
        let relay = LocalRelay::new(change(builder));
        // A port that has just been left, or taken by somebody else, is tried again.
        match relay.run().await {
            Ok(()) => {
                let url = relay.url().await;
                return (relay, url);
            }
            Err(error) if begun.elapsed() > DEADLINE => panic!("{error}"),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// The address of a relay that is not there.
fn absent() -> RelayUrl {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    RelayUrl::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap()
}

fn port(url: &RelayUrl) -> u16 {
    let address = url.as_str_without_trailing_slash().strip_prefix("ws://");
    address.unwrap().parse::<SocketAddr>().unwrap().port()
}

fn options(relays: impl IntoIterator<Item = RelayUrl>) -> Options {
    Options {
        retry_first: Duration::from_millis(20),
        retry_most: Duration::from_millis(100),
        ..Options::new(relays, Keys::generate())
    }
}

async fn link(relays: impl IntoIterator<Item = RelayUrl>) -> Link {
    let link = Link::connect(options(relays)).await.unwrap();
    wait_until(&link, |connected| connected == link.relays().len()).await;
    link
}

/// Waits until the number of connected relays is as wanted.
async fn wait_until(link: &Link, wanted: impl Fn(usize) -> bool) {
    let mut changes = link.changes();
    let reached = changes.wait_for(|relays| {
        let connected = relays.iter().filter(|relay| relay.connected).count();
        wanted(connected)
    });
    timeout(DEADLINE, reached).await.unwrap().unwrap();
}

fn event(kind: Kind, content: &str) -> Event {
    let builder = EventBuilder::new(kind, content);
    builder.sign_with_keys(&Keys::generate()).unwrap()
}

fn of(kind: Kind) -> Vec<Filter> {
    vec![Filter::new().kind(kind)]
}

async fn next(subscription: &mut Subscription) -> Delivery {
    let next = timeout(DEADLINE, subscription.next()).await;
    next.expect("no delivery in time").expect("the link ended")
}

/// The next event, past whatever else is delivered.
async fn next_event(subscription: &mut Subscription) -> Event {
    loop {
        if let Delivery::Event(event) = next(subscription).await {
            return *event;
        }
    }
}

async fn wait_for(subscription: &mut Subscription, wanted: Delivery) {
    while next(subscription).await != wanted {}
}
