//! The wallets that the market's tests pay with: they pay, survive a kill, and add up.

use std::time::Duration;

use infernet_payments::nip47::{self, Rail};
use infernet_payments::rail::{Ask, Error, Hold, Order, OrderKey, Payment, PaymentRail, State};
use infernet_payments::{PaymentHash, Preimage};
use infernet_protocol::money::Msat;
use infernet_tests::{Lightning, Money};

fn ask(msat: u64) -> Ask {
    Ask {
        amount: Msat(msat),
        description: "a test".into(),
        expiry: Duration::from_secs(600),
    }
}

/// The connection that a role is given.
fn given(lightning: &Lightning, name: &str) -> Rail {
    let connection = lightning.connection(name).unwrap().parse().unwrap();
    Rail::open(&connection, nip47::Options::default()).unwrap()
}

async fn pay(payer: &Rail, payee: &Rail, msat: u64) {
    let order = Order {
        key: OrderKey::random(),
        invoice: payee.make_invoice(&ask(msat)).await.unwrap(),
        max_fee: Msat(1_000),
    };
    let paid = payer.pay(&order).await.unwrap();
    assert!(matches!(paid.state, State::Settled { .. }), "{paid:?}");
}

/// Both directions, to the msat.
async fn they_pay_each_other(lightning: &Lightning) {
    let before = lightning.balances().await.unwrap();
    let [buyer, alpha, beta] = ["buyer", "alpha", "beta"].map(|name| given(lightning, name));
    pay(&buyer, &alpha, 12_345).await;
    pay(&buyer, &beta, 50_000).await;
    pay(&beta, &buyer, 1_000).await;
    let comparison = lightning.add_up(&before).await.unwrap();
    let changes: Vec<i128> = comparison
        .lines
        .iter()
        .map(|line| line.after - line.before)
        .collect();
    assert_eq!(changes, [-61_345, 12_345, 49_000]);
    assert_eq!(comparison.all().fees, 0, "they are neighbours");
}

#[tokio::test(flavor = "multi_thread")]
async fn wallets_on_a_regtest_pay_each_other_and_come_back_after_a_kill() {
    let test = "wallets_on_a_regtest_pay_each_other_and_come_back_after_a_kill";
    let names = ["buyer", "alpha", "beta"];
    let Some(mut lightning) = Lightning::start_regtest(test, &names).await.unwrap() else {
        return;
    };
    assert_eq!(lightning.money(), Money::Regtest);
    they_pay_each_other(&lightning).await;

    let alpha = given(&lightning, "alpha");
    let hold = Hold {
        hash: Preimage::from_bytes([7; 32]).hash(),
        min_cltv_expiry_delta: 144,
    };
    let refused = alpha.make_hold_invoice(&ask(1_000), &hold).await;
    assert_eq!(refused.unwrap_err(), Error::NotPermitted);

    let before = lightning.balances().await.unwrap();
    lightning.kill("alpha").unwrap();
    assert!(lightning.restart("buyer").is_err(), "it runs");
    lightning.restart("alpha").unwrap();
    lightning.wait_usable().unwrap();
    pay(&given(&lightning, "buyer"), &alpha, 7_000).await;

    // Before LDK is asked to pay: after that, a kill may close the channel.
    lightning
        .restart_to_die_at("buyer", "pay-recorded")
        .unwrap();
    lightning.wait_usable().unwrap();
    let order = Order {
        key: OrderKey::random(),
        invoice: alpha.make_invoice(&ask(3_000)).await.unwrap(),
        max_fee: Msat(1_000),
    };
    let buyer = given(&lightning, "buyer");
    let hash = order.invoice.hash();
    let paying = tokio::spawn(async move { buyer.pay(&order).await });
    lightning.wait_dead("buyer").unwrap();
    lightning.restart("buyer").unwrap();
    lightning.wait_usable().unwrap();
    paying.abort();
    until_final(&lightning, "buyer", hash).await;
    lightning.add_up(&before).await.unwrap();
}

async fn until_final(lightning: &Lightning, name: &str, hash: PaymentHash) {
    let ended = async {
        let is_final = |payment: &Payment| payment.hash == hash && payment.state.is_final();
        while !lightning.payments(name).await.unwrap().iter().any(is_final) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let soon = tokio::time::timeout(Duration::from_secs(60), ended);
    soon.await.expect("a payment that was begun ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn play_money_is_used_as_real_money_is() {
    let mut lightning = Lightning::start_play(&["buyer", "alpha", "beta"])
        .await
        .unwrap();
    assert_eq!(lightning.money(), Money::Play);
    they_pay_each_other(&lightning).await;
    assert!(lightning.kill("alpha").is_err());
    assert!(lightning.chain().is_err());
}
