//! Relays and providers to test with.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use infernet_engine::{Script, ScriptedEngine};
use infernet_node::clock;
use infernet_node::shutdown::Shutdown;
use infernet_payments::test_rail::{Network, Wallet};
use infernet_protocol::event::Promise;
use infernet_protocol::money::Msat;
use infernet_provider::{Handle, Options, run};
use nostr::{Keys, RelayUrl};
use nostr_relay_builder::builder::RateLimit;
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use tempfile::TempDir;

/// How long anything may take before a test has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A relay that can be stopped, and started again with an empty memory.
pub struct Relay {
    port: u16,
    running: Option<LocalRelay>,
}

impl Relay {
    pub async fn start() -> Self {
        let mut relay = Self::not_yet();
        relay.start_again().await;
        relay
    }

    /// A relay that is not there yet.
    pub fn not_yet() -> Self {
        Self {
            port: free_port(),
            running: None,
        }
    }

    pub fn url(&self) -> RelayUrl {
        RelayUrl::parse(&format!("ws://127.0.0.1:{}", self.port)).unwrap()
    }

    pub fn stop(&self) {
        self.running.as_ref().expect("it runs").shutdown();
    }

    pub async fn start_again(&mut self) {
        self.running = Some(serve(self.port).await);
    }
}

/// A port below those that the system gives to outgoing connections: it is still free when a relay comes back to it.
fn free_port() -> u16 {
    let ports = 10_000..32_000;
    let random = Keys::generate().public_key().to_bytes();
    let first = u16::from_le_bytes([random[0], random[1]]);
    let count = ports.end - ports.start;
    let mut from_there = (0..count).map(|step| ports.start + (first % count + step) % count);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    from_there.find(is_free).expect("a port is free")
}

async fn serve(port: u16) -> LocalRelay {
    let limit = RateLimit {
        max_reqs: 500,
        notes_per_minute: 1_000_000,
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let builder = RelayBuilder::default().port(port).rate_limit(limit.clone());
        let relay = LocalRelay::new(builder);
        match relay.run().await {
            Ok(()) => return relay,
            // The port of a relay that has just stopped is not free at once.
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A provider's wallet and a buyer's, on a network of their own, with 1,000 sat
/// in each.
pub fn play_money() -> (Network, Wallet, Wallet) {
    let network = Network::new(clock::now());
    let provider = network.wallet("provider", PURSE);
    let buyer = network.wallet("buyer", PURSE);
    (network, provider, buyer)
}

/// What is in a wallet at first.
pub const PURSE: Msat = Msat(1_000_000);

/// A provider that runs in this process.
pub struct Provider {
    pub handle: Handle,
    pub engine: Arc<ScriptedEngine>,
    pub shutdown: Shutdown,
    pub keys: Keys,
    pub home: TempDir,
}

/// What the script says; twenty tokens, the end token among them.
pub const TEXT: &str = "one two three four five six seven eight nine ten \
                        eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen";

/// A script that is done in a blink.
pub fn quick() -> Script {
    Script {
        text: TEXT.into(),
        tokens_per_second: 2_000.0,
        capacity: 16,
        ..Script::default()
    }
}

/// A script that takes as long as a test needs to do something meanwhile.
pub fn slow() -> Script {
    Script {
        tokens_per_second: 5.0,
        ..quick()
    }
}

pub fn options(keys: &Keys, home: &Path, relays: Vec<RelayUrl>) -> Options {
    Options {
        promise: Some(Promise {
            first_token_ms: 50,
            tokens_per_s: 100.0,
        }),
        ..Options::new(keys.clone(), home, relays)
    }
}

impl Provider {
    /// Starts a provider, and waits until it is announced.
    pub async fn start(
        relays: &[&Relay],
        script: Script,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self::start_in(home, Keys::generate(), relays, script, change).await
    }

    pub async fn start_in(
        home: TempDir,
        keys: Keys,
        relays: &[&Relay],
        script: Script,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let urls = relays.iter().map(|relay| relay.url()).collect();
        let mut options = options(&keys, home.path(), urls);
        change(&mut options);
        let engine = Arc::new(ScriptedEngine::new(script));
        let shutdown = Shutdown::new();
        let handle = run(options, engine.clone(), shutdown.clone())
            .await
            .unwrap();
        let announced = tokio::time::timeout(PATIENCE, handle.announced()).await;
        assert!(!announced.unwrap().is_empty());
        Self {
            handle,
            engine,
            shutdown,
            keys,
            home,
        }
    }

    /// Stops it gracefully; answers its home and key, for the next one.
    pub async fn stop(self) -> (TempDir, Keys) {
        self.shutdown.stop_soon();
        self.has_ended().await;
        (self.home, self.keys)
    }

    pub async fn has_ended(&self) {
        let ended = tokio::time::timeout(PATIENCE, self.handle.ended()).await;
        ended.expect("it ends");
    }
}
