//! Paying and being paid, and what a client is told of it.

use std::time::Duration;

use infernet_wallet::nip47::{Cipher, Code, NOTIFICATION_LEGACY};
use nostr::TagKind;
use serde_json::{Value, json};

use crate::client::Client;
use crate::hostile::foreign_invoice;
use crate::process::{Pair, until};

async fn invoice(of: &Client, msat: u64) -> Value {
    of.ask(
        "make_invoice",
        json!({ "amount": msat, "description": "a test", "metadata": { "job": "7" } }),
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_wallets_pay_each_other_by_nip_47_alone() {
    let Some(mut pair) = Pair::start("two_wallets_pay_each_other_by_nip_47_alone") else {
        return;
    };
    let alice = Client::new(&pair.alice.connect(&["--name", "client"])).await;
    let bob = Client::new(&pair.bob.connect(&["--name", "provider"])).await;

    let info = alice.ask("get_info", json!({})).await.unwrap();
    assert_eq!(info["network"], "regtest");
    assert_eq!(info["alias"], "alice");
    assert_eq!(info["methods"].as_array().unwrap().len(), 9);
    let announced = alice.info().await;
    let tag = |name: &'static str| {
        let tag = announced.tags.find(TagKind::custom(name)).unwrap();
        tag.content().unwrap().to_owned()
    };
    assert_eq!(tag("encryption"), "nip44_v2 nip04");
    assert!(
        announced.content.contains("pay_invoice") && announced.content.contains("notifications")
    );

    let (alices, bobs) = (alice.balance().await, bob.balance().await);
    let mut hears = bob.notifications();
    let mut told = alice.notifications();
    let msat = 12_345_678;
    let asked = invoice(&bob, msat).await;
    assert_eq!(
        (&asked["state"], &asked["type"]),
        (&json!("pending"), &json!("incoming"))
    );
    assert!(
        asked.get("preimage").is_none(),
        "the preimage is the payer's proof"
    );
    let pay = alice.request(
        "pay_invoice",
        json!({ "invoice": asked["invoice"], "metadata": { "tab": 1 } }),
    );
    let paid = alice.ask_with(&pay).await.unwrap().unwrap();
    assert_eq!(paid["fees_paid"], 0);

    // Another event for the same invoice does not pay again.
    let again = alice
        .ask("pay_invoice", json!({ "invoice": asked["invoice"] }))
        .await
        .unwrap();
    assert_eq!(again, paid);

    let (kind, received) = hears.next().await;
    assert_eq!(kind, "payment_received");
    assert_eq!(received["payment_hash"], asked["payment_hash"]);
    assert_eq!(received["metadata"]["job"], "7");
    assert_eq!(told.next().await.0, "payment_sent");
    alice.wait_for_balance(alices - msat).await;
    bob.wait_for_balance(bobs + msat).await;

    // The other way, in NIP-04, as old clients speak.
    let old = Client {
        cipher: Cipher::Nip04,
        ..bob.clone()
    };
    let mut hears = old.notifications();
    let back = invoice(&alice, 1_000).await;
    old.ask("pay_invoice", json!({ "invoice": back["invoice"] }))
        .await
        .unwrap();
    let (kind, sent) = hears.next().await;
    assert_eq!(
        (kind.as_str(), &sent["amount"]),
        ("payment_sent", &json!(1_000))
    );
    assert_eq!(hears.last, Some(NOTIFICATION_LEGACY));
    // Who pays is told at once; who is paid has it a moment later.
    alice.wait_for_balance(alices - msat + 1_000).await;
    bob.wait_for_balance(bobs + msat - 1_000).await;

    histories(&alice, &bob, &asked, &paid).await;
    races_have_one_winner(&pair, &alice, &bob).await;
    an_expired_invoice_is_not_tried_again(&alice).await;
    connections_do_what_they_were_given(&pair, &asked).await;
    budgets_survive_restarts(&mut pair, &bob).await;
    // The same event after a restart is answered as it was, and does nothing.
    let before = alice.balance().await;
    assert_eq!(alice.ask_with(&pay).await.unwrap().unwrap(), paid);
    assert_eq!(alice.balance().await, before);
    nothing_secret_is_logged(&pair, &paid);
}

async fn histories(alice: &Client, bob: &Client, asked: &Value, paid: &Value) {
    let by_hash = json!({ "payment_hash": asked["payment_hash"] });
    let seen = alice.ask("lookup_invoice", by_hash.clone()).await.unwrap();
    assert_eq!(
        (&seen["type"], &seen["state"]),
        (&json!("outgoing"), &json!("settled"))
    );
    assert_eq!(seen["preimage"], paid["preimage"]);
    let seen = bob
        .ask("lookup_invoice", json!({ "invoice": asked["invoice"] }))
        .await
        .unwrap();
    assert_eq!(
        (&seen["type"], &seen["state"]),
        (&json!("incoming"), &json!("settled"))
    );
    assert!(seen["settled_at"].as_u64() >= seen["created_at"].as_u64());
    invoice(bob, 5_000).await;
    let list = async |params: Value| {
        let listed = bob.ask("list_transactions", params).await.unwrap();
        listed["transactions"].as_array().unwrap().len()
    };
    assert_eq!(list(json!({})).await, 2);
    assert_eq!(list(json!({ "unpaid": true })).await, 3);
    assert_eq!(list(json!({ "type": "incoming" })).await, 1);
    assert_eq!(
        list(json!({ "unpaid": true, "limit": 1, "offset": 2 })).await,
        1
    );
    assert_eq!(list(json!({ "until": 1 })).await, 0);
}

/// Two that race for one budget, two connections that race for one invoice, and one event that comes twice.
async fn races_have_one_winner(pair: &Pair, alice: &Client, bob: &Client) {
    let racer = ["--name", "racer", "--budget-sats", "100"];
    let racer = Client::new(&pair.alice.connect(&racer)).await;
    let before = alice.balance().await;
    let pay = async |by: &Client, asked: &Value| {
        let paid = by.ask("pay_invoice", json!({ "invoice": asked["invoice"] }));
        paid.await.map(drop).map_err(|refusal| refusal.code)
    };
    let (one, two) = (invoice(bob, 60_000).await, invoice(bob, 60_000).await);
    let raced = tokio::join!(pay(&racer, &one), pay(&racer, &two));
    let lost = Err(Code::QuotaExceeded);
    assert!(
        [(Ok(()), lost), (lost, Ok(()))].contains(&raced),
        "{raced:?}"
    );

    let both = invoice(bob, 30_000).await;
    let raced = tokio::join!(pay(&racer, &both), pay(alice, &both));
    let lost = Err(Code::Other);
    assert!(
        [(Ok(()), lost), (lost, Ok(()))].contains(&raced),
        "{raced:?}"
    );

    let twice = invoice(bob, 7_000).await;
    let twice = alice.request("pay_invoice", json!({ "invoice": twice["invoice"] }));
    let (one, two) = tokio::join!(alice.ask_with(&twice), alice.ask_with(&twice));
    assert_eq!(one.unwrap().unwrap(), two.unwrap().unwrap());
    alice.wait_for_balance(before - 97_000).await;
}

async fn an_expired_invoice_is_not_tried_again(alice: &Client) {
    let invoice = foreign_invoice(Duration::from_secs(2));
    let pay = async || {
        let params = json!({ "invoice": invoice.to_string(), "amount": 1_000 });
        alice.ask("pay_invoice", params).await.unwrap_err()
    };
    let unreachable = pay().await;
    assert_eq!(unreachable.code, Code::PaymentFailed);
    assert!(unreachable.message.contains("50 payments"), "{unreachable}");
    until("the invoice has expired", || invoice.is_expired());
    let expired = pay().await;
    assert_eq!(expired.code, Code::Other);
    assert!(expired.message.contains("expired"), "{expired}");
    // What failed is listed for who asks for what is not paid.
    let failed = invoice.payment_hash().to_string();
    let list = async |unpaid: bool| {
        let listed = alice
            .ask("list_transactions", json!({ "unpaid": unpaid }))
            .await
            .unwrap();
        let listed = listed["transactions"].as_array().unwrap().clone();
        listed
            .iter()
            .any(|one| one["payment_hash"] == failed.as_str())
    };
    assert!(list(true).await && !list(false).await);
}

async fn connections_do_what_they_were_given(pair: &Pair, asked: &Value) {
    let args = [
        "--name",
        "reader",
        "--methods",
        "get_balance,lookup_invoice,pay_invoice",
    ];
    let reader = Client::new(&pair.alice.connect(&args)).await;
    let refused = reader
        .ask("make_invoice", json!({ "amount": 1 }))
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::Restricted);
    // Another connection's payment is neither seen nor a free proof of payment.
    let by_hash = json!({ "payment_hash": asked["payment_hash"] });
    assert_eq!(
        reader
            .ask("lookup_invoice", by_hash.clone())
            .await
            .unwrap_err()
            .code,
        Code::NotFound
    );
    let paid = reader
        .ask("pay_invoice", json!({ "invoice": asked["invoice"] }))
        .await;
    assert_eq!(paid.unwrap_err().code, Code::Other);
    let all = ["--name", "all", "--whole-history"];
    let all = Client::new(&pair.alice.connect(&all)).await;
    all.ask("lookup_invoice", by_hash).await.unwrap();

    assert!(
        pair.alice
            .try_cli(&["connect", "--name", "reader"])
            .unwrap_err()
            .contains("already")
    );
    pair.alice.cli(&["revoke", "reader"]);
    let refused = reader.ask("get_balance", json!({})).await.unwrap_err();
    assert_eq!(refused.code, Code::Unauthorized);
    assert!(
        pair.alice
            .cli(&["connections"])
            .contains("reader (revoked)")
    );
}

async fn budgets_survive_restarts(pair: &mut Pair, bob: &Client) {
    let args = [
        "--name",
        "small",
        "--methods",
        "pay_invoice",
        "--budget-sats",
        "100",
        "--per",
        "day",
    ];
    let small = Client::new(&pair.alice.connect(&args)).await;
    let pay = async |msat: u64| {
        let asked = invoice(bob, msat).await;
        small
            .ask("pay_invoice", json!({ "invoice": asked["invoice"] }))
            .await
    };
    pay(60_000).await.unwrap();
    assert_eq!(pay(40_001).await.unwrap_err().code, Code::QuotaExceeded);
    pair.alice.stop();
    pair.alice.start();
    pair.wait_usable();
    assert_eq!(pay(40_001).await.unwrap_err().code, Code::QuotaExceeded);
    pay(40_000).await.unwrap();
    assert_eq!(pay(1).await.unwrap_err().code, Code::QuotaExceeded);
    let told = pair.alice.cli(&["connections"]);
    assert!(told.contains("100 sat (day), 0 msat left"), "{told}");
}

fn nothing_secret_is_logged(pair: &Pair, paid: &Value) {
    let (alice, bob) = (pair.alice.log(), pair.bob.log());
    until("a log", || alice.contains("Successfully sent payment"));
    let words = pair.alice.cli(&["backup", "--show-words"]);
    assert_eq!(words.split_whitespace().count(), 24);
    for log in [&alice, &bob] {
        assert!(!log.contains(paid["preimage"].as_str().unwrap()));
        assert!(!log.contains("lnbcrt"), "an invoice was logged");
        assert!(!log.contains(&words));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_payments_at_a_time_go_through_one_channel() {
    let Some(pair) = Pair::start("a_hundred_payments_at_a_time_go_through_one_channel") else {
        return;
    };
    let alice = Client::new(&pair.alice.connect(&["--name", "client"])).await;
    let bob = Client::new(&pair.bob.connect(&["--name", "provider"])).await;
    let (alices, bobs) = (alice.balance().await, bob.balance().await);
    let channel = &pair.alice.status()["channels"][0];
    assert_eq!(channel["can_send_at_once_msat"], 200_000_000);
    // Together more than the channel carries at a time: 50 payments, and 200,000 sat.
    let paid = (0..100).map(async |_| {
        let asked = invoice(&bob, 4_500_000).await;
        alice
            .ask("pay_invoice", json!({ "invoice": asked["invoice"] }))
            .await
            .unwrap()
    });
    futures::future::join_all(paid).await;
    alice.wait_for_balance(alices - 450_000_000).await;
    bob.wait_for_balance(bobs + 450_000_000).await;
    // They wait for room, rather than trying and failing until there is some.
    assert!(!pair.alice.log().contains("Failed to send payment"));
}
