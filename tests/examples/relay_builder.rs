//! nostr-relay-builder on nostr-lmdb as a program, with nothing limited: a peer that our relay is measured beside.
//!
//! `relay_builder FOLDER` prints `listening on ws://…`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;

use nostr_lmdb::NostrLMDB;
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{RateLimit, RelayBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

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
        let Ok((mut stream, address)) = listener.accept().await else {
            continue;
        };
        let relay = relay.clone();
        tokio::spawn(async move {
            // Its own loop would let small messages wait in the kernel.
            let _ = stream.set_nodelay(true);
            if upgrade(&mut stream).await.is_some() {
                let _ = relay.take_connection(stream, address).await;
            }
        });
    }
}

/// Answers the websocket's handshake, which the library leaves to whoever hands it a connection.
async fn upgrade(stream: &mut TcpStream) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        (stream.read_buf(&mut request).await.ok()? > 0).then_some(())?;
    }
    let request = String::from_utf8(request).ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let is_key = name.eq_ignore_ascii_case("sec-websocket-key");
        is_key.then(|| value.trim().to_owned())
    };
    let key = request.lines().find_map(header)?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    stream.write_all(answer.as_bytes()).await.ok()
}
