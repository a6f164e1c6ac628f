//! A way to a relay that can be held up: connections stay open, and nothing passes.

use nostr::RelayUrl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    port: u16,
    held: watch::Sender<bool>,
}

impl Proxy {
    pub async fn to(relay: &RelayUrl) -> Self {
        let target = relay.as_str().trim_start_matches("ws://");
        let target = target.trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (held, watched) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&target).await.unwrap();
                let (near, far) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near.0, far.1, watched.clone()));
                tokio::spawn(pass(far.0, near.1, watched.clone()));
            }
        });
        Self { port, held }
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    pub fn hold(&self, hold: bool) {
        self.held.send_replace(hold);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
    let mut bytes = vec![0; 4_096];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if held.wait_for(|held| !held).await.is_err()
            || to.write_all(&bytes[..count]).await.is_err()
        {
            return;
        }
    }
}
