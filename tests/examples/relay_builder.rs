//! nostr-relay-builder on nostr-lmdb as a program, with nothing limited: a peer that our relay is measured beside.
//!
//! `relay_builder FOLDER` prints `listening on ws://…`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;

use nostr_lmdb::NostrLMDB;
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{RateLimit, RelayBuilder};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let folder = std::env::args().nth(1).expect("a folder");
    let relay = LocalRelay::new(
        RelayBuilder::default()
            .database(NostrLMDB::open(folder).unwrap())
            .rate_limit(RateLimit {
                max_reqs: usize::MAX,
                notes_per_minute: u32::MAX,
            }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on ws://{}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    loop {
        let Ok((stream, address)) = listener.accept().await else {
            continue;
        };
        let relay = relay.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let _ = relay.take_connection(stream, address).await;
        });
    }
}
