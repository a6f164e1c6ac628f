//! Two bare ldk-node nodes with a channel like that of the market's wallets, and how long a payment takes between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use infernet_regtest::{Bitcoind, CHANNEL_SATS, PUSHED_SATS, free_port};
use ldk_node::bitcoin::Network;
use ldk_node::config::Config;
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description};
use ldk_node::logger::LogLevel;
use ldk_node::{Builder, Event, Node};

/// The smallest top-up of a tab.
pub const MSAT: u64 = 10_000;

/// How long a round took: with the invoice, and from the order to pay.
pub struct Round {
    pub top_up: Duration,
    pub payment: Duration,
}

/// Two bare nodes with the same channel.
pub struct Nodes {
    alice: Arc<Node>,
    bob: Arc<Node>,
    _folders: [tempfile::TempDir; 2],
}

impl Nodes {
    /// Starts both, and opens the channel.
    pub fn start(bitcoind: &Bitcoind) -> Self {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [alice, bob] = [&folders[0], &folders[1]].map(|folder| node(bitcoind, folder.path()));
        for node in [&alice, &bob] {
            let address = node.onchain_payment().new_address().unwrap();
            bitcoind.pay(&address.to_string(), 10_000_000).unwrap();
        }
        bitcoind.mine(1).unwrap();
        for node in [&alice, &bob] {
            wait("money on the chain", || {
                node.list_balances().spendable_onchain_balance_sats > 0
            });
        }
        let place = bob.listening_addresses().unwrap().remove(0);
        let push = Some(PUSHED_SATS * 1_000);
        alice
            .open_channel(bob.node_id(), place, CHANNEL_SATS, push, None)
            .unwrap();
        wait("a funding transaction", || bitcoind.waiting().unwrap() > 0);
        bitcoind.mine(6).unwrap();
        for node in [&alice, &bob] {
            wait("a usable channel", || {
                node.list_channels().iter().any(|channel| channel.is_usable)
            });
            while node.next_event().is_some() {
                node.event_handled().unwrap();
            }
        }
        Self {
            alice,
            bob,
            _folders: folders,
        }
    }

    /// Makes one payment.
    pub async fn round(&mut self) -> Round {
        let begun = Instant::now();
        let text = Bolt11InvoiceDescription::Direct(Description::new(String::new()).unwrap());
        let invoice = self
            .bob
            .bolt11_payment()
            .receive(MSAT, &text, 3_600)
            .unwrap();
        let made = Instant::now();
        self.alice.bolt11_payment().send(&invoice, None).unwrap();
        let received = |event: &Event| matches!(event, Event::PaymentReceived { .. });
        event(&self.bob, received).await;
        let round = Round {
            top_up: begun.elapsed(),
            payment: made.elapsed(),
        };
        self.bob.event_handled().unwrap();
        event(&self.alice, |event| {
            matches!(event, Event::PaymentSuccessful { .. })
        })
        .await;
        self.alice.event_handled().unwrap();
        round
    }

    /// Stops both properly.
    pub fn stop(&self) {
        self.alice.stop().unwrap();
        self.bob.stop().unwrap();
    }
}

/// Waits for an event, past others; it is not acknowledged yet.
async fn event(node: &Node, wanted: impl Fn(&Event) -> bool) {
    while !wanted(&node.next_event_async().await) {
        node.event_handled().unwrap();
    }
}

fn wait(what: &str, mut look: impl FnMut() -> bool) {
    infernet_regtest::until(what, || Ok(look())).unwrap();
}

fn node(bitcoind: &Bitcoind, folder: &std::path::Path) -> Arc<Node> {
    let config = Config {
        network: Network::Regtest,
        storage_dir_path: folder.display().to_string(),
        listening_addresses: Some(vec![
            format!("127.0.0.1:{}", free_port().unwrap())
                .parse()
                .unwrap(),
        ]),
        ..Config::default()
    };
    let mut builder = Builder::from_config(config);
    let (host, port, user, password) = bitcoind.rpc();
    builder.set_chain_source_bitcoind_rpc(host, port, user, password);
    // As much as the wallet logs.
    builder.set_filesystem_logger(None, Some(LogLevel::Info));
    let node = Arc::new(builder.build().unwrap());
    node.start().unwrap();
    node
}
