//! What a suite runs on: two wallets that can pay each other.

use std::sync::Arc;
use std::time::Duration;

use infernet_payments::Invoice;
use infernet_payments::nip47::{self, Connection, Encryption, Service, ServiceOptions};
use infernet_payments::rail::{Ask, Order, OrderKey, PaymentRail};
use infernet_payments::test_rail::{Network, Wallet};
use infernet_protocol::money::Msat;
use nostr::{RelayUrl, Timestamp};
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{RateLimit, RelayBuilder};

/// Nothing here takes so long unless it is broken.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What each wallet of a test network has at first.
pub const FUNDS: Msat = Msat(1_000_000);

/// How long a payment is waited for where it is to stay pending.
pub const PATIENCE: Duration = Duration::from_millis(1_500);

/// Two wallets by their port, and what keeps them alive.
pub struct Bench {
    pub alice: Arc<dyn PaymentRail>,
    pub bob: Arc<dyn PaymentRail>,
    /// The network behind them, where it is one of ours.
    pub network: Option<Network>,
    _keeps: Vec<Box<dyn std::any::Any + Send + Sync>>,
}

impl Bench {
    /// Wallets that are away from any real network.
    pub fn of_test_rail() -> Self {
        let (network, alice, bob) = wallets();
        Self {
            alice: Arc::new(alice),
            bob: Arc::new(bob),
            network: Some(network),
            _keeps: Vec::new(),
        }
    }

    /// The same behind NIP-47 and a relay.
    pub async fn of_nip47(encryption: Encryption) -> Self {
        let (network, alice, bob) = wallets();
        let (relay, url) = relay().await;
        let (alice_service, alice) = lend(alice, &url, encryption).await;
        let (bob_service, bob) = lend(bob, &url, encryption).await;
        Self {
            alice: Arc::new(alice),
            bob: Arc::new(bob),
            network: Some(network),
            _keeps: vec![
                Box::new(relay),
                Box::new(alice_service),
                Box::new(bob_service),
            ],
        }
    }

    /// Two real wallets with a channel between them and a million msat on each side, if the environment names them:
    /// `INFERNET_TEST_WALLETS` is two connection strings with a space between.
    pub fn of_environment() -> Option<Self> {
        let text = std::env::var("INFERNET_TEST_WALLETS").ok()?;
        let open = |text: &str| {
            let connection: Connection = text.parse().unwrap();
            let options = nip47::Options {
                pay_timeout: Duration::from_secs(30),
                ..nip47::Options::default()
            };
            Arc::new(nip47::Rail::open(&connection, options).unwrap())
        };
        let mut wallets = text.split_whitespace();
        Some(Self {
            alice: open(wallets.next().unwrap()),
            bob: open(wallets.next().expect("two connection strings")),
            network: None,
            _keeps: Vec::new(),
        })
    }

    /// The clock that the wallets go by.
    pub fn now(&self) -> Timestamp {
        match &self.network {
            Some(network) => network.now(),
            None => Timestamp::now(),
        }
    }

    /// Waits until an invoice has expired.
    pub async fn outlive(&self, invoice: &Invoice) {
        match &self.network {
            Some(network) => network.advance(expiry(invoice)),
            None => tokio::time::sleep(expiry(invoice)).await,
        }
    }
}

fn expiry(invoice: &Invoice) -> Duration {
    let seconds = invoice.expires_at().as_secs() - invoice.created_at().as_secs();
    Duration::from_secs(seconds + 1)
}

pub fn wallets() -> (Network, Wallet, Wallet) {
    let network = Network::new(Timestamp::now());
    let alice = network.wallet("alice", FUNDS);
    let bob = network.wallet("bob", FUNDS);
    (network, alice, bob)
}

pub async fn relay() -> (LocalRelay, RelayUrl) {
    let begun = tokio::time::Instant::now();
    loop {
        let builder = RelayBuilder::default().rate_limit(RateLimit {
            max_reqs: 500,
            notes_per_minute: 1_000_000,
        });
        let relay = LocalRelay::new(builder);
        // Its port may be taken before it listens: then it takes another one.
        match relay.run().await {
            Ok(()) => {
                let url = relay.url().await;
                return (relay, url);
            }
            Err(error) => assert!(begun.elapsed() < DEADLINE, "{error}"),
        }
    }
}

/// A wallet's service, and a client of it.
pub async fn lend(
    wallet: Wallet,
    relay: &RelayUrl,
    encryption: Encryption,
) -> (Service, nip47::Rail) {
    let options = ServiceOptions {
        relays: vec![relay.clone()],
        encryption,
    };
    let service = Service::start(Arc::new(wallet), options).await.unwrap();
    let rail = nip47::Rail::open(&service.connection(), patience()).unwrap();
    (service, rail)
}

pub fn patience() -> nip47::Options {
    nip47::Options {
        answer_timeout: Duration::from_secs(5),
        pay_timeout: PATIENCE,
    }
}

pub fn ask(amount: u64) -> Ask {
    Ask {
        amount: Msat(amount),
        description: "a test".to_owned(),
        expiry: Duration::from_secs(3_600),
    }
}

pub fn order(invoice: &Invoice) -> Order {
    Order {
        key: OrderKey::random(),
        invoice: invoice.clone(),
        max_fee: Msat(10_000),
    }
}
