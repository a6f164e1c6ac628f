//! Killed at every point around paying and settling: nothing is paid twice, nothing is lost.
//!
//! A kill right after LDK was asked to pay or to claim may close the channel; then the chain decides, and these tests
//! mine until it has. It decides over what is worth an output of its own (354 sat and more): what is less and under
//! way when a channel closes goes to the miners, though LDK tells the payee that it has come. So these tests pay more.

use std::time::Duration;

use infernet_wallet::fault::Point;
use infernet_wallet::nip47::{Code, hash_of};
use ldk_node::lightning_invoice::Bolt11Invoice;
use nostr::Event;
use serde_json::{Value, json};

use crate::client::Client;
use crate::process::{Pair, Process, until};

const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until the state is one of `ends`, mining so that the chain can decide.
async fn ends(client: &Client, pair: &Pair, hash: &str, ends: &[&str]) -> Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let request = client.request("lookup_invoice", json!({ "payment_hash": hash }));
        let seen = client.ask_within(&request, Duration::from_secs(2)).await;
        if let Some(Ok(seen)) = &seen
            && ends.iter().any(|end| seen["state"] == *end)
        {
            return seen.clone();
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{hash} does not end: {seen:?}"
        );
        pair.bitcoind.mine(2).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The sum of what a connection has paid for one hash, by its list.
async fn listed(client: &Client, hash: &str) -> Vec<(String, u64)> {
    let all = client
        .ask("list_transactions", json!({ "unpaid": true }))
        .await
        .unwrap();
    let all = all["transactions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["payment_hash"] == hash);
    all.map(|one| {
        (
            one["state"].as_str().unwrap().to_owned(),
            one["amount"].as_u64().unwrap(),
        )
    })
    .collect()
}

/// Sends a request over which the wallet dies, and waits until it has: nobody is told how that went.
async fn dies_over(wallet: &mut Process, client: &Client, request: Event) {
    let client = client.clone();
    let asking = tokio::spawn(async move { client.ask_within(&request, PATIENCE).await });
    tokio::task::block_in_place(|| wallet.wait_dead());
    assert!(!asking.is_finished(), "{:?}", asking.await);
    asking.abort();
}

async fn killed_while_paying(point: Point) {
    let test = format!("killed_while_paying {}", point.name());
    let Some(mut pair) = Pair::start(&test) else {
        return;
    };
    let alice = Client::new(
        &pair
            .alice
            .connect(&["--name", "buyer", "--budget-sats", "1000"]),
    )
    .await;
    let bob = Client::new(&pair.bob.connect(&["--name", "seller"])).await;
    pair.alice.stop();
    pair.alice.start_to_die_at(point);
    pair.wait_usable();
    let msat = 700_000;
    let asked = bob
        .ask("make_invoice", json!({ "amount": msat }))
        .await
        .unwrap();
    let hash = asked["payment_hash"].as_str().unwrap();
    let pay = || alice.request("pay_invoice", json!({ "invoice": asked["invoice"] }));
    dies_over(&mut pair.alice, &alice, pay()).await;
    pair.alice.start();

    // While it is not decided, asking again does not pay again, and the budget is not free.
    let (impatient, again) = (alice.clone(), pay());
    tokio::spawn(async move { impatient.ask_within(&again, PATIENCE).await });
    let other = bob
        .ask("make_invoice", json!({ "amount": 400_000 }))
        .await
        .unwrap();
    let over = alice
        .ask("pay_invoice", json!({ "invoice": other["invoice"] }))
        .await;
    // Without its peer, the wallet cannot send anything.
    assert!([Code::QuotaExceeded, Code::InsufficientBalance].contains(&over.unwrap_err().code));

    let sent = ends(&alice, &pair, hash, &["settled", "failed"]).await;
    if sent["state"] == "failed" {
        return failed_honestly(point, &alice, &bob, hash).await;
    }
    let received = ends(&bob, &pair, hash, &["settled"]).await;
    assert_eq!(
        (&sent["amount"], &received["amount"]),
        (&json!(msat), &json!(msat))
    );
    assert_eq!(listed(&alice, hash).await, [("settled".to_owned(), msat)]);
    assert_eq!(listed(&bob, hash).await, [("settled".to_owned(), msat)]);
    let paid = alice.ask_with(&pay()).await.unwrap().unwrap();
    assert_eq!(paid["preimage"], sent["preimage"]);
    let preimage: [u8; 32] = hex::decode(paid["preimage"].as_str().unwrap())
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!(hash_of(&preimage), hash);
}

/// LDK had written down that it would pay, and not yet that it had begun: it closed the channel without paying.
async fn failed_honestly(point: Point, alice: &Client, bob: &Client, hash: &str) {
    assert_eq!(
        point,
        Point::PaySent,
        "only a kill inside LDK may fail a payment"
    );
    let asked = bob
        .ask("lookup_invoice", json!({ "payment_hash": hash }))
        .await
        .unwrap();
    assert_eq!(asked["state"], "pending");
    assert_eq!(listed(alice, hash).await, [("failed".to_owned(), 700_000)]);
}

async fn killed_while_receiving(point: Point) {
    let test = format!("killed_while_receiving {}", point.name());
    let Some(mut pair) = Pair::start(&test) else {
        return;
    };
    let alice = Client::new(&pair.alice.connect(&["--name", "buyer"])).await;
    let bob = Client::new(&pair.bob.connect(&["--name", "aggregator"])).await;
    pair.bob.stop();
    pair.bob.start_to_die_at(point);
    pair.wait_usable();
    let (preimage, hash) = ([7; 32], hash_of(&[7; 32]));
    let asked = bob
        .ask(
            "make_hold_invoice",
            json!({ "amount": 900_000, "payment_hash": hash }),
        )
        .await
        .unwrap();
    let mut hears = bob.notifications();
    let payer = alice.clone();
    let pay = alice.request("pay_invoice", json!({ "invoice": asked["invoice"] }));
    let paying = tokio::spawn(async move { payer.ask_within(&pay, 2 * PATIENCE).await });
    assert_eq!(hears.next().await.0, "hold_invoice_accepted");
    let cancels = point == Point::CancelRecorded;
    let end = match cancels {
        true => bob.request("cancel_hold_invoice", json!({ "payment_hash": hash })),
        false => bob.request(
            "settle_hold_invoice",
            json!({ "preimage": hex::encode(preimage) }),
        ),
    };
    dies_over(&mut pair.bob, &bob, end).await;
    pair.bob.start();

    let expected = if cancels { "failed" } else { "settled" };
    ends(&bob, &pair, &hash, &[expected]).await;
    let sent = ends(&alice, &pair, &hash, &[expected]).await;
    assert_eq!(listed(&bob, &hash).await, [(expected.to_owned(), 900_000)]);
    assert_eq!(
        listed(&alice, &hash).await,
        [(expected.to_owned(), 900_000)]
    );
    let answer = paying.await.unwrap().expect("the payer is told");
    match cancels {
        true => assert_eq!(answer.unwrap_err().code, Code::PaymentFailed),
        false => {
            assert_eq!(answer.unwrap()["preimage"], hex::encode(preimage));
            assert_eq!(sent["preimage"], hex::encode(preimage));
        }
    }
}

macro_rules! killed {
    ($($name:ident: $how:ident($point:ident);)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            $how(Point::$point).await;
        }
    )*};
}

killed! {
    killed_after_the_intent_to_pay: killed_while_paying(PayRecorded);
    killed_after_asking_ldk_to_pay: killed_while_paying(PaySent);
    killed_before_a_payment_is_recorded: killed_while_paying(PaySucceeded);
    killed_before_a_payment_is_told: killed_while_paying(PaidRecorded);
    killed_after_the_intent_to_settle: killed_while_receiving(SettleRecorded);
    killed_after_claiming: killed_while_receiving(SettleClaimed);
    killed_before_money_is_recorded: killed_while_receiving(Received);
    killed_after_the_intent_to_cancel: killed_while_receiving(CancelRecorded);
}

#[test]
fn every_point_is_tried() {
    let text = include_str!("crashes.rs");
    for point in Point::ALL {
        assert!(
            text.contains(&format!("({point:?});")),
            "no test dies at {}",
            point.name()
        );
    }
}

/// Payments under way while the payee, then the payer is killed at no chosen point: each ends on both sides alike.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_time() {
    let Some(mut pair) = Pair::start("killed_at_any_time") else {
        return;
    };
    let alice = Client::new(&pair.alice.connect(&["--name", "buyer"])).await;
    let bob = Client::new(&pair.bob.connect(&["--name", "seller"])).await;
    let mut hashes = Vec::new();
    for round in 0..4 {
        let mut paying = Vec::new();
        for _ in 0..3 {
            let asked = bob
                .ask("make_invoice", json!({ "amount": 1_000_000 }))
                .await
                .unwrap();
            hashes.push(asked["payment_hash"].as_str().unwrap().to_owned());
            let pay = alice.request("pay_invoice", json!({ "invoice": asked["invoice"] }));
            let payer = alice.clone();
            paying.push(tokio::spawn(async move {
                payer.ask_within(&pay, Duration::from_secs(1)).await
            }));
        }
        tokio::time::sleep(Duration::from_millis(40 * round)).await;
        let killed = if round % 2 == 0 {
            &mut pair.bob
        } else {
            &mut pair.alice
        };
        killed.kill();
        killed.start();
        for one in paying {
            let _ = one.await;
        }
    }
    for hash in hashes {
        let request = json!({ "payment_hash": hash });
        // A request that was lost with its wallet has left nothing at all.
        let known = alice.ask("lookup_invoice", request).await;
        match known.map(|_| ()).map_err(|refusal| refusal.code) {
            Err(Code::NotFound) => assert_eq!(received(&bob, &hash).await, json!("pending")),
            _ => {
                let sent = ends(&alice, &pair, &hash, &["settled", "failed"]).await;
                match sent["state"].as_str() {
                    Some("settled") => drop(ends(&bob, &pair, &hash, &["settled"]).await),
                    _ => assert_ne!(received(&bob, &hash).await, json!("settled")),
                }
            }
        }
    }
}

/// Alice dies over an invoice that lives `expiry_s`; what Bob asked for.
async fn dies_over_an_order(pair: &mut Pair, alice: &Client, bob: &Client, expiry_s: u64) -> Value {
    pair.alice.stop();
    pair.alice.start_to_die_at(Point::PayRecorded);
    pair.wait_usable();
    let params = json!({ "amount": 700_000, "expiry": expiry_s });
    let asked = bob.ask("make_invoice", params).await.unwrap();
    let pay = alice.request("pay_invoice", json!({ "invoice": asked["invoice"] }));
    dies_over(&mut pair.alice, alice, pay).await;
    asked
}

/// An interrupted payment that cannot be sent any more fails: its budget is free again.
#[tokio::test(flavor = "multi_thread")]
async fn interrupted_until_the_invoice_expired() {
    let Some(mut pair) = Pair::start("interrupted_until_the_invoice_expired") else {
        return;
    };
    let budget = ["--name", "buyer", "--budget-sats", "1000"];
    let alice = Client::new(&pair.alice.connect(&budget)).await;
    let bob = Client::new(&pair.bob.connect(&["--name", "seller"])).await;
    let asked = dies_over_an_order(&mut pair, &alice, &bob, 5).await;
    let invoice: Bolt11Invoice = asked["invoice"].as_str().unwrap().parse().unwrap();
    until("the invoice has expired", || invoice.is_expired());
    pair.alice.start();
    let hash = asked["payment_hash"].as_str().unwrap();
    ends(&alice, &pair, hash, &["failed"]).await;
    pair.wait_usable();
    let other = bob
        .ask("make_invoice", json!({ "amount": 900_000 }))
        .await
        .unwrap();
    let pay = json!({ "invoice": other["invoice"] });
    alice.ask("pay_invoice", pay).await.unwrap();
}

/// A payment that fails while the wallet waits for its peer to send it: whoever was told so may pay elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_as_failed_is_never_sent() {
    let Some(mut pair) = Pair::start("what_is_recorded_as_failed_is_never_sent") else {
        return;
    };
    let alice = Client::new(&pair.alice.connect(&["--name", "buyer"])).await;
    let bob = Client::new(&pair.bob.connect(&["--name", "seller"])).await;
    let asked = dies_over_an_order(&mut pair, &alice, &bob, 600).await;
    pair.bob.stop();
    pair.alice.start();
    let records = rusqlite::Connection::open(pair.alice.home.join("records.sqlite"));
    let failed = records
        .unwrap()
        .execute("UPDATE payments SET state = 'failed', failure = 'late'", [])
        .unwrap();
    assert_eq!(failed, 1);
    pair.bob.start();
    pair.wait_usable();
    until("the wallet comes back to the payment", || {
        pair.alice.log().contains("a payment that was interrupted")
    });
    // What is sent later arrives later.
    let other = bob
        .ask("make_invoice", json!({ "amount": 1_000 }))
        .await
        .unwrap();
    let pay = json!({ "invoice": other["invoice"] });
    alice.ask("pay_invoice", pay).await.unwrap();
    let hash = asked["payment_hash"].as_str().unwrap();
    assert_eq!(received(&bob, hash).await, json!("pending"));
    assert_eq!(listed(&alice, hash).await, [("failed".to_owned(), 700_000)]);
}

async fn received(bob: &Client, hash: &str) -> Value {
    bob.ask("lookup_invoice", json!({ "payment_hash": hash }))
        .await
        .unwrap()["state"]
        .clone()
}
