//! Our relay beside nostr-rs-relay and nostr-relay-builder on LMDB: the same load from the same process, one relay
//! after the other.
//!
//! `make bench PART=relay`, or `cargo bench -p infernet-tests --bench relay -- PART [RELAY...]`; figures belong into
//! docs/benchmarks.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod delivery;
mod flood;
mod peers;
mod queries;
mod writing;

use peers::Peer;

const USAGE: &str = "usage: relay PART [RELAY...]

  writing    events a second that are answered OK: 20 clients that wait, 8 that pipeline
  delivery   from sending to delivery, with 1, 100 and 5,000 subscribers
  fill       write a million events into .cache/relay-bench, for queries
  queries    time to EOSE by shape of filter over that million
  load       junk from fresh keys while jobs run (ours alone)
  all        each of these

RELAY: ours, ours-default, nostr-rs-relay, relay-builder (all of them if none is named)";

// One core is the load's; the others are the relay's.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut words = arguments.iter().filter(|word| !word.starts_with("--"));
    let part = words.next().map(String::as_str);
    let named: Vec<Peer> = words.map(|name| peer(name)).collect();
    let peers = if named.is_empty() {
        Peer::ALL.to_vec()
    } else {
        named
    };
    match part {
        Some("writing") => writing::run(&peers).await,
        Some("delivery") => delivery::run(&peers).await,
        Some("fill") => queries::fill(&peers).await,
        Some("queries") => queries::run(&peers).await,
        Some("load") => flood::run().await,
        Some("all") => {
            writing::run(&peers).await;
            delivery::run(&peers).await;
            queries::fill(&peers).await;
            queries::run(&peers).await;
            flood::run().await;
        }
        // `cargo test --benches` says nothing.
        _ => println!("{USAGE}"),
    }
}

fn peer(name: &str) -> Peer {
    let peer = Peer::ALL.into_iter().find(|peer| peer.name() == name);
    peer.unwrap_or_else(|| panic!("no relay is called {name}\n{USAGE}"))
}
