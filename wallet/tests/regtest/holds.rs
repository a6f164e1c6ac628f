//! Hold invoices: held for hours, settled, cancelled, given back in time.

use std::time::{Duration, Instant};

use infernet_wallet::hold;
use infernet_wallet::nip47::{Code, hash_of};
use infernet_wallet::seed::Seed;
use ldk_node::bitcoin::Network;
use ldk_node::lightning_invoice::Bolt11Invoice;
use serde_json::{Value, json};

use crate::client::Client;
use crate::process::{PATIENCE, Pair};

/// A preimage and its hash.
fn secret(seed: u8) -> (String, String) {
    let preimage = [seed; 32];
    (hex::encode(preimage), hash_of(&preimage))
}

struct Held {
    alice: Client,
    bob: Client,
    msat: u64,
}

impl Held {
    /// Bob asks, Alice pays; answers once Bob holds it.
    async fn hold(
        &self,
        hash: &str,
        delta: Option<u64>,
    ) -> (Value, tokio::task::JoinHandle<Result<Value, Code>>) {
        let params =
            json!({ "amount": self.msat, "payment_hash": hash, "min_cltv_expiry_delta": delta });
        let asked = self.bob.ask("make_hold_invoice", params).await.unwrap();
        let mut hears = self.bob.notifications();
        let (alice, invoice) = (self.alice.clone(), asked["invoice"].clone());
        let paying = tokio::spawn(async move {
            let paid = alice
                .ask("pay_invoice", json!({ "invoice": invoice }))
                .await;
            paid.map_err(|refusal| refusal.code)
        });
        let (kind, told) = hears.next().await;
        assert_eq!(kind, "hold_invoice_accepted");
        assert_eq!(
            (&told["payment_hash"], &told["state"]),
            (&json!(hash), &json!("accepted"))
        );
        assert!(told.get("preimage").is_none());
        (told, paying)
    }

    async fn balances(&self) -> (u64, u64) {
        (self.alice.balance().await, self.bob.balance().await)
    }

    async fn state(&self, hash: &str) -> Value {
        self.bob
            .ask("lookup_invoice", json!({ "payment_hash": hash }))
            .await
            .unwrap()["state"]
            .clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_lasts_is_settled_cancelled_or_given_back() {
    let Some(mut pair) = Pair::start("a_hold_lasts_is_settled_cancelled_or_given_back") else {
        return;
    };
    let held = Held {
        alice: Client::new(&pair.alice.connect(&["--name", "buyer"])).await,
        bob: Client::new(&pair.bob.connect(&["--name", "aggregator"])).await,
        msat: 50_000_000,
    };
    let (alices, bobs) = held.balances().await;
    settled_after_a_restart(&held, &mut pair).await;
    held.alice.wait_for_balance(alices - held.msat).await;
    held.bob.wait_for_balance(bobs + held.msat).await;
    cancelled(&held).await;
    given_back_in_time(&held, &pair).await;
    held.alice.wait_for_balance(alices - held.msat).await;
    held.bob.wait_for_balance(bobs + held.msat).await;
    too_few_blocks_are_refused(&held, &pair).await;
    held_over_the_payers_restart(&held, &mut pair).await;
    refusals(&held, &pair).await;
}

async fn settled_after_a_restart(held: &Held, pair: &mut Pair) {
    let (preimage, hash) = secret(1);
    let early = held
        .bob
        .ask("settle_hold_invoice", json!({ "preimage": preimage }))
        .await;
    assert_eq!(early.unwrap_err().code, Code::NotFound);
    let (told, paying) = held.hold(&hash, None).await;
    let invoice: Bolt11Invoice = told["invoice"].as_str().unwrap().parse().unwrap();
    assert_eq!(invoice.min_final_cltv_expiry_delta(), 144);
    let height = pair.bob.status()["height"].as_u64().unwrap();
    let left = told["settle_deadline"].as_u64().unwrap() - height;
    assert!(left > 90, "only {left} blocks are left for holding");

    // Held over a restart and 40 blocks.
    pair.bob.stop();
    pair.bitcoind.mine(40).unwrap();
    pair.bob.start();
    pair.wait_usable();
    assert_eq!(held.state(&hash).await, "accepted");
    held.bob
        .ask("settle_hold_invoice", json!({ "preimage": preimage }))
        .await
        .unwrap();
    held.bob
        .ask("settle_hold_invoice", json!({ "preimage": preimage }))
        .await
        .unwrap();
    assert_eq!(paying.await.unwrap().unwrap()["preimage"], preimage);
    assert_eq!(held.state(&hash).await, "settled");
    let late = held
        .bob
        .ask("cancel_hold_invoice", json!({ "payment_hash": hash }))
        .await;
    assert_eq!(late.unwrap_err().code, Code::Other);
}

async fn cancelled(held: &Held) {
    let (preimage, hash) = secret(2);
    let (told, paying) = held.hold(&hash, Some(432)).await;
    held.bob
        .ask("cancel_hold_invoice", json!({ "payment_hash": hash }))
        .await
        .unwrap();
    assert_eq!(paying.await.unwrap().unwrap_err(), Code::PaymentFailed);
    assert_eq!(held.state(&hash).await, "failed");
    let late = held
        .bob
        .ask("settle_hold_invoice", json!({ "preimage": preimage }))
        .await;
    assert_eq!(late.unwrap_err().code, Code::Other);
    // Who pays a cancelled one gets it back.
    let again = held
        .alice
        .ask("pay_invoice", json!({ "invoice": told["invoice"] }))
        .await;
    assert_eq!(again.unwrap_err().code, Code::PaymentFailed);
}

async fn given_back_in_time(held: &Held, pair: &Pair) {
    let (_, hash) = secret(3);
    let (told, paying) = held.hold(&hash, Some(1)).await;
    let height = pair.bob.status()["height"].as_u64().unwrap();
    let left = told["settle_deadline"].as_u64().unwrap() - height;
    assert!(left >= 18, "{left} blocks");
    pair.bitcoind
        .mine(u32::try_from(left).unwrap() + 1)
        .unwrap();
    assert_eq!(paying.await.unwrap().unwrap_err(), Code::PaymentFailed);
    assert_eq!(held.state(&hash).await, "failed");
    let channels = pair.bob.status()["channels"].as_array().unwrap().len();
    assert_eq!(channels, 1, "the channel survives");
}

/// A payer that restarts does not take what is held for something that was never sent: neither what is worth an output
/// of the channel's transaction, nor what is too small for one.
async fn held_over_the_payers_restart(held: &Held, pair: &mut Pair) {
    let holds = [(6, 10_000), (7, held.msat)].map(|(seed, msat)| (secret(seed), msat));
    let mut hears = held.bob.notifications();
    for ((_, hash), msat) in &holds {
        let params = json!({ "amount": msat, "payment_hash": hash });
        let asked = held.bob.ask("make_hold_invoice", params).await.unwrap();
        let params = json!({ "invoice": asked["invoice"] });
        let pay = held.alice.request("pay_invoice", params);
        held.alice.link.publish(&pay).await.unwrap();
        assert_eq!(hears.next().await.0, "hold_invoice_accepted");
    }
    pair.alice.stop();
    pair.alice.start();
    pair.wait_usable();
    let sent = async |hash: &str| {
        let by_hash = json!({ "payment_hash": hash });
        let sent = held.alice.ask("lookup_invoice", by_hash).await.unwrap();
        sent["state"].clone()
    };
    // Longer than the wallet takes to be certain of what was never sent.
    let later = Instant::now() + Duration::from_secs(15);
    while Instant::now() < later {
        for ((_, hash), _) in &holds {
            assert_eq!(sent(hash).await, "pending");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for ((preimage, hash), _) in &holds {
        let settle = json!({ "preimage": preimage });
        held.bob.ask("settle_hold_invoice", settle).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while sent(hash).await != "settled" {
            assert!(Instant::now() < deadline, "the payer does not hear of it");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A payer who leaves fewer blocks than were asked for: as if the invoice had asked for no more. So many are asked for
/// that they are too few whatever LDK adds at random, up to 432, to hide how far the payee is.
async fn too_few_blocks_are_refused(held: &Held, pair: &Pair) {
    let (preimage, hash) = secret(5);
    let asked = held
        .bob
        .ask(
            "make_hold_invoice",
            json!({ "amount": held.msat, "payment_hash": hash, "min_cltv_expiry_delta": 600 }),
        )
        .await
        .unwrap();
    let invoice: Bolt11Invoice = asked["invoice"].as_str().unwrap().parse().unwrap();
    let seed = Seed::read(&pair.bob.home.join("seed-words")).unwrap();
    let key = seed.node_secret(Network::Regtest).unwrap();
    let short = hold::with_delta(&invoice, 42, &key).unwrap().to_string();
    let paid = held
        .alice
        .ask("pay_invoice", json!({ "invoice": short }))
        .await;
    assert_eq!(paid.unwrap_err().code, Code::PaymentFailed);
    assert_eq!(held.state(&hash).await, "pending");

    // The invoice is as good as before.
    let mut hears = held.bob.notifications();
    let (alice, invoice) = (held.alice.clone(), asked["invoice"].clone());
    let paying = tokio::spawn(async move {
        alice
            .ask("pay_invoice", json!({ "invoice": invoice }))
            .await
    });
    assert_eq!(hears.next().await.0, "hold_invoice_accepted");
    held.bob
        .ask("settle_hold_invoice", json!({ "preimage": preimage }))
        .await
        .unwrap();
    assert_eq!(paying.await.unwrap().unwrap()["preimage"], preimage);
}

async fn refusals(held: &Held, pair: &Pair) {
    let make = async |hash: &str, delta: u64| {
        let params =
            json!({ "amount": 1_000, "payment_hash": hash, "min_cltv_expiry_delta": delta });
        held.bob
            .ask("make_hold_invoice", params)
            .await
            .map_err(|refusal| refusal.code)
    };
    assert_eq!(make(&secret(1).1, 144).await.unwrap_err(), Code::Other);
    assert_eq!(make(&secret(4).1, 2_000).await.unwrap_err(), Code::Other);
    assert_eq!(make("not hex", 144).await.unwrap_err(), Code::Other);
    make(&secret(4).1, 144).await.unwrap();
    // Who sees everything decides over nothing of others.
    let all = ["--name", "all", "--whole-history"];
    let all = Client::new(&pair.bob.connect(&all)).await;
    let by_hash = json!({ "payment_hash": secret(4).1 });
    all.ask("lookup_invoice", by_hash.clone()).await.unwrap();
    let refused = all.ask("cancel_hold_invoice", by_hash).await;
    assert_eq!(refused.unwrap_err().code, Code::NotFound);
}
