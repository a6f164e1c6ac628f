//! The wallet's own relay: on this machine alone, for this wallet's messages alone, in memory.
//!
//! Paying never depends on a public relay. Nothing else in this crate knows nostr-relay-builder.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use nostr::{Event, PublicKey, RelayUrl};
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{PolicyResult, RateLimit, RelayBuilder, WritePolicy};
use nostr_relay_builder::prelude::BoxedFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::nip47::{INFO, NOTIFICATION, NOTIFICATION_LEGACY, REQUEST, RESPONSE};
use crate::record::Connection;

/// How many processes of this machine may be connected at once; each is a task and a buffer.
const MAX_CONNECTIONS: usize = 256;

/// How many subscriptions a connection may have: a client needs one or two, the wallet one for each connection made
/// since it started.
const MAX_SUBSCRIPTIONS: usize = 256;

/// How long a client may take to begin.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Our key and the client's, of each connection: the relay takes nothing that is not from one of them.
#[derive(Clone, Debug, Default)]
pub struct Services(Arc<RwLock<Keys>>);

#[derive(Debug, Default)]
struct Keys {
    services: HashSet<PublicKey>,
    clients: HashSet<PublicKey>,
}

impl Services {
    /// Adds some.
    pub fn add(&self, connections: &[Connection]) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for one in connections {
            keys.services.insert(one.service.public_key());
            keys.clients.insert(one.client);
        }
    }

    fn takes(&self, event: &Event) -> bool {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let is_ours = [INFO, RESPONSE, NOTIFICATION, NOTIFICATION_LEGACY].contains(&event.kind);
        let from = match is_ours {
            true => &keys.services,
            false => &keys.clients,
        };
        (is_ours || event.kind == REQUEST) && from.contains(&event.pubkey)
    }
}

/// A relay with two doors: one for the wallet itself, and one for its clients that opens once the wallet listens. A
/// request that came before would be lost, since relays do not store it.
#[derive(Debug)]
pub struct Relay {
    /// Where clients find it.
    pub url: RelayUrl,
    /// The port alone.
    pub port: u16,
    /// Where the wallet finds it.
    pub own_url: RelayUrl,
    relay: LocalRelay,
    door: TcpListener,
    stop: CancellationToken,
}

/// Why it does not listen.
#[derive(Debug, thiserror::Error)]
#[error("the wallet's own relay cannot listen on {address}: {reason}")]
pub struct Error {
    address: SocketAddr,
    reason: String,
}

impl Relay {
    /// Starts the relay; clients that come to `address` wait until it is [opened](Self::open).
    ///
    /// # Errors
    /// An address that is taken.
    pub async fn start(
        address: SocketAddr,
        services: Services,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let relay = LocalRelay::new(
            RelayBuilder::default()
                .write_policy(Admission(services))
                .rate_limit(RateLimit {
                    max_reqs: MAX_SUBSCRIPTIONS,
                    // The wallet bounds requests itself, and answers those it refuses.
                    notes_per_minute: u32::MAX,
                }),
        );
        let (door, port, url) = bind(address).await?;
        let (own_door, _, own_url) = bind(SocketAddr::new(address.ip(), 0)).await?;
        tokio::spawn(listen(own_door, relay.clone(), stop.clone()));
        Ok(Self {
            url,
            port,
            own_url,
            relay,
            door,
            stop,
        })
    }

    /// Lets clients in, until the wallet stops.
    pub fn open(self) {
        tokio::spawn(listen(self.door, self.relay, self.stop));
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, u16, RelayUrl), Error> {
    let failed = |reason: String| Error { address, reason };
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let bound = listener
        .local_addr()
        .map_err(|error| failed(error.to_string()))?;
    let url =
        RelayUrl::parse(&format!("ws://{bound}")).map_err(|error| failed(error.to_string()))?;
    Ok((listener, bound.port(), url))
}

async fn listen(listener: TcpListener, relay: LocalRelay, stop: CancellationToken) {
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (Ok((stream, peer)), Ok(seat)) = (accepted, seats.clone().try_acquire_owned()) else {
            // Out of seats or of file descriptors; whoever it was tries again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (relay, stop) = (relay.clone(), stop.clone());
        tokio::spawn(async move {
            let _seat = seat;
            tokio::select! {
                () = serve(&relay, stream, peer) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn serve(relay: &LocalRelay, mut stream: TcpStream, peer: SocketAddr) {
    // Small messages must not wait in the kernel for each other.
    let _ = stream.set_nodelay(true);
    // The client says nothing before it has our answer, so no byte of it is lost between the two.
    let begun = timeout(HANDSHAKE, tokio_tungstenite::accept_async(&mut stream));
    if !begun.await.is_ok_and(|begun| begun.is_ok()) {
        return;
    }
    if let Err(error) = relay.take_connection(stream, peer).await {
        tracing::debug!(%peer, %error, "a connection to the wallet's relay ended");
    }
}

/// Takes what a wallet and its clients say to each other.
#[derive(Debug)]
struct Admission(Services);

impl WritePolicy for Admission {
    fn admit_event<'a>(
        &'a self,
        event: &'a Event,
        _peer: &'a SocketAddr,
    ) -> BoxedFuture<'a, PolicyResult> {
        let verdict = match self.0.takes(event) {
            true => PolicyResult::Accept,
            false => PolicyResult::Reject("this relay serves its own wallet alone".to_owned()),
        };
        Box::pin(async move { verdict })
    }
}
