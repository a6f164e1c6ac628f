//! How long a payment takes through two wallets and NIP-47, and how long between two bare LDK nodes in the same run.
//!
//! `cargo bench --manifest-path wallet/Cargo.toml --bench top_up [-- ROUNDS]`. The rounds take turns, so that both
//! meet the same machine. A *top-up* is an invoice asked for, paid, and seen to have come; a *payment* leaves the
//! asking out. The bare nodes are told by LDK's events, the wallets' clients by notifications.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod bare;
#[path = "../tests/regtest/bitcoind.rs"]
mod bitcoind;
#[path = "../tests/regtest/client.rs"]
mod client;
#[path = "../tests/regtest/process.rs"]
mod process;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::bare::{MSAT, Nodes, Round};
use crate::client::{Client, Notifications};
use crate::process::Pair;

/// Rounds, unless the command line says otherwise; the first few are not counted.
const ROUNDS: usize = 50;
const WARM_UP: usize = 5;

fn main() {
    let rounds = std::env::args().find_map(|arg| arg.parse().ok());
    let rounds: usize = rounds.unwrap_or(ROUNDS);
    let Some(pair) = Pair::start("top_up") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (wallet, bare) = runtime.block_on(measure(&pair, rounds));
    report("top-up", &wallet, &bare, |round| round.top_up);
    report("payment", &wallet, &bare, |round| round.payment);
}

async fn measure(pair: &Pair, rounds: usize) -> (Vec<Round>, Vec<Round>) {
    let mut wallets = Wallets::connect(pair).await;
    let mut nodes = Nodes::start(&pair.bitcoind);
    let (mut wallet, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..WARM_UP + rounds {
        wallet.push(wallets.round().await);
        bare.push(nodes.round().await);
    }
    nodes.stop();
    (wallet.split_off(WARM_UP), bare.split_off(WARM_UP))
}

fn report(what: &str, wallet: &[Round], bare: &[Round], of: impl Fn(&Round) -> Duration) {
    let at = |rounds: &[Round], percent: usize| {
        let mut all: Vec<Duration> = rounds.iter().map(&of).collect();
        all.sort();
        all[(all.len() - 1) * percent / 100].as_secs_f64() * 1_000.0
    };
    let (ours, theirs) = (at(wallet, 50), at(bare, 50));
    println!(
        "{what}: {ours:.1} ms over NIP-47 (p95 {:.1}), {theirs:.1} ms bare (p95 {:.1}), ratio {:.2}; {} rounds",
        at(wallet, 95),
        at(bare, 95),
        ours / theirs,
        wallet.len()
    );
}

/// Two wallets and their clients.
struct Wallets {
    alice: Client,
    bob: Client,
    hears: Notifications,
}

impl Wallets {
    async fn connect(pair: &Pair) -> Self {
        let alice = Client::new(&pair.alice.connect(&["--name", "client"])).await;
        let bob = Client::new(&pair.bob.connect(&["--name", "provider"])).await;
        let hears = bob.notifications();
        Self { alice, bob, hears }
    }

    async fn round(&mut self) -> Round {
        let begun = Instant::now();
        let asked = self
            .bob
            .ask("make_invoice", json!({ "amount": MSAT }))
            .await
            .unwrap();
        let made = Instant::now();
        let alice = self.alice.clone();
        let invoice = asked["invoice"].clone();
        let paying = tokio::spawn(async move {
            let paid = alice
                .ask("pay_invoice", json!({ "invoice": invoice }))
                .await;
            paid.unwrap();
        });
        let (kind, told) = self.hears.next().await;
        let round = Round {
            top_up: begun.elapsed(),
            payment: made.elapsed(),
        };
        assert_eq!(kind, "payment_received");
        assert_eq!(told["payment_hash"], asked["payment_hash"]);
        paying.await.unwrap();
        round
    }
}
