//! What each adapter makes of things that go wrong.

use std::sync::Arc;
use std::time::Duration;

use infernet_payments::nip47::{self, Encryption, Fault as Slip};
use infernet_payments::rail::{Direction, Error, Hold, Notice, PaymentRail, State};
use infernet_payments::test_rail::{Fault, Routing};
use infernet_payments::{PaymentHash, Preimage};
use infernet_protocol::money::Msat;
use tokio::time::timeout;

use crate::benches::{DEADLINE, FUNDS, ask, lend, order, relay, wallets};

async fn settled(rail: &dyn PaymentRail, hash: PaymentHash) -> bool {
    let found = rail.look_up(Direction::Outgoing, &hash).await.unwrap();
    matches!(found.unwrap().state, State::Settled { .. })
}

#[tokio::test]
async fn a_payment_can_take_minutes_and_then_arrive_or_come_back() {
    let (network, alice, bob) = wallets();
    let all = network.total();
    for arrives in [true, false] {
        let minutes = Duration::from_secs(300);
        alice.misbehave(match arrives {
            true => Fault::Delay(minutes),
            false => Fault::Fail(minutes),
        });
        let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
        let paid = alice.pay(&order(&invoice)).await.unwrap();
        assert_eq!(paid.state, State::Pending);
        assert_eq!(network.total(), all);
        network.advance(minutes - Duration::from_secs(1));
        assert!(!settled(&alice, invoice.hash()).await);
        network.advance(Duration::from_secs(1));
        assert_eq!(settled(&alice, invoice.hash()).await, arrives);
        assert_eq!(network.total(), all);
    }
    assert_eq!(bob.balance().await.unwrap(), Msat(FUNDS.0 + 10_000));
}

#[tokio::test]
async fn what_is_lost_on_the_way_is_pending_and_pays_once() {
    for fault in [
        Fault::LoseRequest,
        Fault::LoseAnswer,
        Fault::CrashBefore,
        Fault::CrashAfter,
    ] {
        let (network, alice, bob) = wallets();
        let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
        let order = order(&invoice);
        alice.misbehave(fault);
        assert_eq!(alice.pay(&order).await.unwrap().state, State::Pending);
        alice.restart();
        let arrived = matches!(fault, Fault::LoseAnswer | Fault::CrashAfter);
        let known = alice.look_up(Direction::Outgoing, &invoice.hash()).await;
        assert_eq!(known.unwrap().is_some(), arrived, "{fault:?}");
        alice.pay(&order).await.unwrap();
        assert!(settled(&alice, invoice.hash()).await);
        assert_eq!(bob.balance().await.unwrap(), Msat(FUNDS.0 + 10_000));
        assert_eq!(network.total(), Msat(2 * FUNDS.0));
    }
}

#[tokio::test]
async fn a_wallet_that_is_down_pays_nothing_and_gets_nothing() {
    let (_network, alice, bob) = wallets();
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    bob.crash();
    let paid = alice.pay(&order(&invoice)).await.unwrap();
    assert_eq!(paid.state, State::Failed);
    alice.crash();
    let paid = alice.pay(&order(&invoice)).await;
    assert!(matches!(paid, Err(Error::Unreachable(_))), "{paid:?}");
    alice.restart();
    bob.restart();
    assert_eq!(alice.balance().await.unwrap(), FUNDS);
}

#[tokio::test]
async fn a_forgetful_wallet_denies_and_remembers() {
    let (_network, alice, bob) = wallets();
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    alice.pay(&order(&invoice)).await.unwrap();
    alice.forget(invoice.hash());
    let denied = alice.look_up(Direction::Outgoing, &invoice.hash()).await;
    assert_eq!(denied, Ok(None));
    // Whatever it says, it does not pay twice.
    alice.pay(&order(&invoice)).await.unwrap();
    alice.remember(&invoice.hash());
    assert!(settled(&alice, invoice.hash()).await);
    assert_eq!(bob.balance().await.unwrap(), Msat(FUNDS.0 + 10_000));
}

#[tokio::test]
async fn routing_costs_what_it_says_and_never_more_than_allowed() {
    let (network, alice, bob) = wallets();
    network.set_routing(Routing {
        base: Msat(1_000),
        parts_per_million: 1_000,
    });
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    let mut frugal = order(&invoice);
    frugal.max_fee = Msat(1_009);
    assert_eq!(alice.pay(&frugal).await.unwrap().state, State::Failed);
    let paid = alice.pay(&order(&invoice)).await.unwrap();
    assert!(matches!(
        paid.state,
        State::Settled {
            fee: Msat(1_010),
            ..
        }
    ));
    assert_eq!(alice.balance().await.unwrap(), Msat(FUNDS.0 - 11_010));
    assert_eq!(network.routed(), Msat(1_010));
}

#[tokio::test]
async fn notices_come_twice_or_not_at_all() {
    let (_network, alice, bob) = wallets();
    let mut notices = bob.subscribe();
    bob.misbehave(Fault::TellNothing);
    bob.misbehave(Fault::TellTwice);
    let unheard = bob.make_invoice(&ask(10_000)).await.unwrap();
    alice.pay(&order(&unheard)).await.unwrap();
    let heard = bob.make_invoice(&ask(10_000)).await.unwrap();
    alice.pay(&order(&heard)).await.unwrap();
    for _ in 0..2 {
        match notices.next().await.unwrap() {
            Notice::Changed(payment) => assert_eq!(payment.hash, heard.hash()),
            Notice::Gap => panic!("nothing was lost"),
        }
    }
}

#[tokio::test]
async fn a_hold_that_nobody_settles_comes_back_at_its_deadline() {
    let (network, alice, bob) = wallets();
    let preimage = Preimage::from_bytes([7; 32]);
    let hold = Hold {
        hash: preimage.hash(),
        min_cltv_expiry_delta: 144,
    };
    let invoice = bob.make_hold_invoice(&ask(10_000), &hold).await.unwrap();
    let paid = alice.pay(&order(&invoice)).await.unwrap();
    assert_eq!(paid.state, State::Pending);
    network.advance(Duration::from_secs(144 * 600));
    assert_eq!(bob.settle(&preimage).await, Err(Error::NotFound));
    assert_eq!(alice.balance().await.unwrap(), FUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_answers_badly_over_nip47_is_asked_again() {
    let (_network, alice, bob) = wallets();
    let (_relay, url) = relay().await;
    let (service, rail) = lend(alice.clone(), &url, Encryption::Nip44).await;
    for (number, slip) in [Slip::Silent, Slip::Garbage, Slip::Mistaken, Slip::Twice]
        .into_iter()
        .enumerate()
    {
        let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
        service.misbehave(slip);
        let paid = timeout(DEADLINE, rail.pay(&order(&invoice))).await;
        let paid = paid.unwrap().unwrap();
        assert!(matches!(paid.state, State::Settled { .. }), "{slip:?}");
        let paid_so_far = 10_000 * (number as u64 + 1);
        assert_eq!(rail.balance().await.unwrap(), Msat(FUNDS.0 - paid_so_far));
        assert_eq!(alice.tries(&invoice.hash()), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_lies_over_nip47_is_not_believed() {
    let (_network, alice, bob) = wallets();
    let (_relay, url) = relay().await;
    let (service, rail) = lend(alice, &url, Encryption::Nip44).await;
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    service.misbehave(Slip::Lie);
    let paid = timeout(DEADLINE, rail.pay(&order(&invoice))).await;
    assert_eq!(paid.unwrap().unwrap().state, State::Pending);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_takes_long_over_nip47_is_pending_until_looked_up() {
    let (network, alice, bob) = wallets();
    let (_relay, url) = relay().await;
    let (_service, rail) = lend(alice.clone(), &url, Encryption::Nip44).await;
    for arrives in [true, false] {
        let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
        alice.misbehave(Fault::Stick);
        let paid = timeout(DEADLINE, rail.pay(&order(&invoice))).await;
        assert_eq!(paid.unwrap().unwrap().state, State::Pending);
        alice.resolve(&invoice.hash(), arrives);
        assert_eq!(settled(&rail, invoice.hash()).await, arrives);
    }
    assert_eq!(network.total(), Msat(2 * FUNDS.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_is_away_is_unreachable_and_nothing_is_under_way() {
    let (_network, _alice, bob) = wallets();
    let (_relay, url) = relay().await;
    let away = nip47::Connection {
        wallet: nostr::Keys::generate().public_key(),
        relays: vec![url],
        secret: nostr::Keys::generate().secret_key().clone(),
    };
    let options = nip47::Options {
        answer_timeout: Duration::from_millis(300),
        pay_timeout: Duration::from_millis(300),
    };
    let rail = nip47::Rail::open(&away, options).unwrap();
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    let paid = timeout(DEADLINE, rail.pay(&order(&invoice))).await.unwrap();
    assert!(matches!(paid, Err(Error::Unreachable(_))), "{paid:?}");
    let balance = timeout(DEADLINE, rail.balance()).await.unwrap();
    assert!(balance.unwrap_err().is_temporary());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_outlives_its_relay() {
    let (_network, alice, bob) = wallets();
    let (first, url) = relay().await;
    let (_service, rail) = lend(alice, &url, Encryption::Nip44).await;
    assert_eq!(rail.balance().await.unwrap(), FUNDS);
    first.shutdown();
    let port = url.as_str_without_trailing_slash().rsplit(':').next();
    let port: u16 = port.unwrap().parse().unwrap();
    let again = timeout(DEADLINE, async {
        loop {
            let builder = nostr_relay_builder::builder::RelayBuilder::default().port(port);
            let relay = nostr_relay_builder::LocalRelay::new(builder);
            if relay.run().await.is_ok() {
                return relay;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let _again = again.await.unwrap();
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    let paid = timeout(DEADLINE, async {
        loop {
            match rail.pay(&order(&invoice)).await {
                Ok(payment) if matches!(payment.state, State::Settled { .. }) => return,
                Ok(_) | Err(Error::Unreachable(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    });
    paid.await.unwrap();
    let rail: Arc<dyn PaymentRail> = Arc::new(rail);
    assert_eq!(rail.balance().await.unwrap(), Msat(FUNDS.0 - 10_000));
}
