//! One suite for every adapter of the port.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use infernet_payments::rail::{
    Direction, Error, Hold, Notice, Notices, Order, Payment, PaymentRail, State,
};
use infernet_payments::{PaymentHash, Preimage};
use infernet_protocol::money::Msat;
use nostr::Timestamp;
use tokio::time::timeout;

use crate::benches::{Bench, DEADLINE, ask, order};

/// Makes a test of each case on a bench.
macro_rules! suite {
    ($adapter:ident, $bench:expr) => {
        mod $adapter {
            use super::*;

            suite!(@cases $bench;
                an_invoice_says_what_was_asked,
                what_is_paid_moves,
                an_order_pays_once,
                an_invoice_is_paid_once,
                many_payments_at_a_time,
                nobody_pays_more_than_there_is,
                an_expired_invoice_is_not_paid,
                what_never_was_is_not_found,
                a_list_has_all_since_then,
                a_held_payment_is_settled,
                a_held_payment_is_given_back,
                only_what_is_held_is_settled,
                a_hold_lasts_as_long_as_asked,
            );
        }
    };
    (@cases $bench:expr; $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(bench) = $bench.await else {
                    println!("SKIPPED {}: INFERNET_TEST_WALLETS names no wallets", stringify!($case));
                    return;
                };
                super::$case(bench).await;
            }
        )*
    };
}

suite!(test_rail, async { Some(Bench::of_test_rail()) });
suite!(nip47, async {
    Some(Bench::of_nip47(infernet_payments::nip47::Encryption::Nip44).await)
});
suite!(nip47_by_nip04, async {
    Some(Bench::of_nip47(infernet_payments::nip47::Encryption::Nip04).await)
});
suite!(wallets_of_the_environment, async {
    Bench::of_environment()
});

/// A preimage of this run alone.
fn preimage() -> Preimage {
    Preimage::from_bytes(rand::random())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("it took too long")
}

/// Asks until a payment stands as wanted.
async fn until(
    rail: &Arc<dyn PaymentRail>,
    direction: Direction,
    hash: PaymentHash,
    wanted: impl Fn(&State) -> bool,
) -> Payment {
    within(async {
        loop {
            let payment = rail.look_up(direction, &hash).await.unwrap();
            if let Some(payment) = payment.filter(|payment| wanted(&payment.state)) {
                return payment;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Waits for the notice about a payment.
async fn told(notices: &mut Notices, direction: Direction, hash: PaymentHash) -> Payment {
    within(async {
        loop {
            if let Notice::Changed(payment) = notices.next().await.unwrap()
                && payment.direction == direction
                && payment.hash == hash
            {
                return payment;
            }
        }
    })
    .await
}

/// What both wallets have while nothing is on its way between them.
///
/// Who pays is told so before who is paid has it. The cases share real wallets, so each that moves money ends with
/// [`Purses::have_moved`], lest the next one begin before the last payment has come.
struct Purses<'a> {
    bench: &'a Bench,
    alice: Msat,
    bob: Msat,
}

impl<'a> Purses<'a> {
    async fn of(bench: &'a Bench) -> Self {
        Self {
            bench,
            alice: bench.alice.balance().await.unwrap(),
            bob: bench.bob.balance().await.unwrap(),
        }
    }

    /// Waits until Bob has so much more, and Alice so much less and what routing cost her.
    async fn have_moved(&self, amount: Msat, fee: Msat) {
        balance_becomes(&self.bench.alice, self.alice.0 - amount.0 - fee.0).await;
        balance_becomes(&self.bench.bob, self.bob.0 + amount.0).await;
    }

    /// Waits until both have what they had.
    async fn are_as_before(&self) {
        self.have_moved(Msat::ZERO, Msat::ZERO).await;
    }
}

/// What routing cost the payer of a payment that is settled.
fn fee_of(payment: &Payment) -> Msat {
    match payment.state {
        State::Settled { fee, .. } => fee,
        _ => panic!("{payment:?}"),
    }
}

/// Waits until there is so much in a wallet: Lightning takes a moment to settle what is settled.
async fn balance_becomes(rail: &Arc<dyn PaymentRail>, msat: u64) {
    let becomes = async {
        while rail.balance().await.unwrap() != Msat(msat) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(DEADLINE, becomes).await.is_err() {
        assert_eq!(rail.balance().await.unwrap(), Msat(msat));
    }
}

const fn is_settled(state: &State) -> bool {
    matches!(state, State::Settled { .. })
}

/// Pays in the background: a held payment is not done before it is settled.
fn pay(
    rail: &Arc<dyn PaymentRail>,
    order: Order,
) -> tokio::task::JoinHandle<Result<Payment, Error>> {
    let rail = rail.clone();
    tokio::spawn(async move { rail.pay(&order).await })
}

async fn an_invoice_says_what_was_asked(bench: Bench) {
    let invoice = bench.bob.make_invoice(&ask(12_345)).await.unwrap();
    assert_eq!(invoice.amount(), Msat(12_345));
    assert_eq!(invoice.description().as_deref(), Some("a test"));
    let life = invoice.expires_at().as_secs() - invoice.created_at().as_secs();
    assert_eq!(life, 3_600);
    assert!(!invoice.is_expired(bench.now()));
    // Not every wallet says who signs.
    let node = bench.bob.node().await.unwrap();
    assert!(node.is_none_or(|node| node == invoice.payee()));
    let known = bench
        .bob
        .look_up(Direction::Incoming, &invoice.hash())
        .await;
    let known = known.unwrap().unwrap();
    assert_eq!((known.state, known.amount), (State::Pending, Msat(12_345)));
}

async fn what_is_paid_moves(bench: Bench) {
    let (alice, bob) = (&bench.alice, &bench.bob);
    let before = Purses::of(&bench).await;
    let (mut sent, mut received) = (alice.subscribe(), bob.subscribe());
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    let paid = within(alice.pay(&order(&invoice))).await.unwrap();
    let State::Settled { fee, preimage, .. } = paid.state else {
        panic!("{paid:?}");
    };
    assert_eq!(preimage.unwrap().hash(), invoice.hash());
    let here = until(bob, Direction::Incoming, invoice.hash(), is_settled).await;
    assert_eq!(here.amount, Msat(10_000));
    told(&mut received, Direction::Incoming, invoice.hash()).await;
    told(&mut sent, Direction::Outgoing, invoice.hash()).await;
    before.have_moved(Msat(10_000), fee).await;
}

async fn an_order_pays_once(bench: Bench) {
    let invoice = bench.bob.make_invoice(&ask(10_000)).await.unwrap();
    let before = Purses::of(&bench).await;
    let order = order(&invoice);
    let once = within(bench.alice.pay(&order)).await.unwrap();
    let again = within(bench.alice.pay(&order)).await.unwrap();
    assert!(is_settled(&once.state) && is_settled(&again.state));
    before.have_moved(Msat(10_000), fee_of(&once)).await;
}

async fn an_invoice_is_paid_once(bench: Bench) {
    let invoice = bench.bob.make_invoice(&ask(10_000)).await.unwrap();
    let before = Purses::of(&bench).await;
    let (one, other) = (
        pay(&bench.alice, order(&invoice)),
        pay(&bench.alice, order(&invoice)),
    );
    let one = within(one).await.unwrap().unwrap();
    let other = within(other).await.unwrap().unwrap();
    assert_ne!(one.state, State::Failed);
    assert_ne!(other.state, State::Failed);
    let done = until(
        &bench.alice,
        Direction::Outgoing,
        invoice.hash(),
        is_settled,
    )
    .await;
    before.have_moved(Msat(10_000), fee_of(&done)).await;
}

async fn many_payments_at_a_time(bench: Bench) {
    let before = Purses::of(&bench).await;
    let mut payments = Vec::new();
    for amount in 1..=20 {
        let invoice = bench.bob.make_invoice(&ask(1_000 + amount)).await.unwrap();
        payments.push((invoice.hash(), pay(&bench.alice, order(&invoice))));
    }
    let (mut amount, mut fee) = (Msat::ZERO, Msat::ZERO);
    for (hash, payment) in payments {
        assert_ne!(within(payment).await.unwrap().unwrap().state, State::Failed);
        let sent = until(&bench.alice, Direction::Outgoing, hash, is_settled).await;
        let received = until(&bench.bob, Direction::Incoming, hash, is_settled).await;
        fee.0 += fee_of(&sent).0;
        amount.0 += received.amount.0;
    }
    assert_eq!(amount, Msat((1..=20).map(|amount| 1_000 + amount).sum()));
    before.have_moved(amount, fee).await;
}

async fn nobody_pays_more_than_there_is(bench: Bench) {
    let before = Purses::of(&bench).await;
    let invoice = bench
        .bob
        .make_invoice(&ask(before.alice.0 + 1_000))
        .await
        .unwrap();
    match within(bench.alice.pay(&order(&invoice))).await {
        Err(Error::InsufficientBalance) => {}
        Ok(payment) => assert_eq!(payment.state, State::Failed),
        Err(other) => panic!("{other}"),
    }
    before.are_as_before().await;
}

async fn an_expired_invoice_is_not_paid(bench: Bench) {
    let mut short = ask(10_000);
    short.expiry = Duration::from_secs(2);
    let invoice = bench.bob.make_invoice(&short).await.unwrap();
    bench.outlive(&invoice).await;
    match within(bench.alice.pay(&order(&invoice))).await {
        Err(Error::Refused(_)) => {}
        Ok(payment) => assert_eq!(payment.state, State::Failed),
        Err(other) => panic!("{other}"),
    }
    let known = bench
        .bob
        .look_up(Direction::Incoming, &invoice.hash())
        .await;
    let known = known.unwrap().unwrap();
    assert!(
        matches!(known.state, State::Expired | State::Pending),
        "{known:?}"
    );
}

async fn what_never_was_is_not_found(bench: Bench) {
    let unknown = preimage();
    for direction in [Direction::Incoming, Direction::Outgoing] {
        let found = bench.alice.look_up(direction, &unknown.hash()).await;
        assert_eq!(found, Ok(None));
    }
    assert_eq!(bench.alice.settle(&unknown).await, Err(Error::NotFound));
    assert_eq!(
        bench.alice.cancel(&unknown.hash()).await,
        Err(Error::NotFound)
    );
    let invoice = bench.bob.make_invoice(&ask(10_000)).await.unwrap();
    let outgoing = bench
        .bob
        .look_up(Direction::Outgoing, &invoice.hash())
        .await;
    assert_eq!(outgoing, Ok(None), "an invoice is not a payment");
}

async fn a_list_has_all_since_then(bench: Bench) {
    let mut hashes = Vec::new();
    // More than a page.
    for _ in 0..23 {
        let invoice = bench.bob.make_invoice(&ask(1_000)).await.unwrap();
        hashes.push(invoice.hash());
    }
    let all = bench.bob.list(Timestamp::from_secs(0)).await.unwrap();
    let listed = |hash: &&PaymentHash| all.iter().any(|payment| payment.hash == **hash);
    assert_eq!(hashes.iter().filter(listed).count(), hashes.len());
    assert!(all.is_sorted_by_key(|payment| payment.created_at));
    let later = bench.now() + Duration::from_secs(60);
    assert_eq!(bench.bob.list(later).await, Ok(Vec::new()));
}

async fn a_held_payment_is_settled(bench: Bench) {
    let (alice, bob) = (&bench.alice, &bench.bob);
    let before = Purses::of(&bench).await;
    let preimage = preimage();
    let hold = Hold {
        hash: preimage.hash(),
        min_cltv_expiry_delta: 144,
    };
    let mut notices = bob.subscribe();
    let invoice = bob.make_hold_invoice(&ask(10_000), &hold).await.unwrap();
    assert_eq!(invoice.hash(), hold.hash);
    let paying = pay(alice, order(&invoice));
    let held = told(&mut notices, Direction::Incoming, hold.hash).await;
    assert_eq!(held.state, State::Held);
    let held = until(bob, Direction::Incoming, hold.hash, |state| {
        *state == State::Held
    })
    .await;
    assert_eq!(held.amount, Msat(10_000));
    let theirs = until(alice, Direction::Outgoing, hold.hash, |_| true).await;
    assert_eq!(theirs.state, State::Pending);
    bob.settle(&preimage).await.unwrap();
    until(bob, Direction::Incoming, hold.hash, is_settled).await;
    let sent = until(alice, Direction::Outgoing, hold.hash, is_settled).await;
    bob.settle(&preimage).await.unwrap();
    assert_ne!(within(paying).await.unwrap().unwrap().state, State::Failed);
    before.have_moved(Msat(10_000), fee_of(&sent)).await;
}

async fn a_held_payment_is_given_back(bench: Bench) {
    let (alice, bob) = (&bench.alice, &bench.bob);
    let before = Purses::of(&bench).await;
    let preimage = preimage();
    let hold = Hold {
        hash: preimage.hash(),
        min_cltv_expiry_delta: 144,
    };
    let invoice = bob.make_hold_invoice(&ask(10_000), &hold).await.unwrap();
    let paying = pay(alice, order(&invoice));
    until(bob, Direction::Incoming, hold.hash, |state| {
        *state == State::Held
    })
    .await;
    bob.cancel(&hold.hash).await.unwrap();
    until(bob, Direction::Incoming, hold.hash, |state| {
        *state == State::Failed
    })
    .await;
    until(alice, Direction::Outgoing, hold.hash, |state| {
        *state == State::Failed
    })
    .await;
    bob.cancel(&hold.hash).await.unwrap();
    let paid = within(paying).await.unwrap().unwrap();
    assert!(!is_settled(&paid.state));
    before.are_as_before().await;
}

async fn only_what_is_held_is_settled(bench: Bench) {
    let preimage = preimage();
    let hold = Hold {
        hash: preimage.hash(),
        min_cltv_expiry_delta: 144,
    };
    let invoice = bench.bob.make_hold_invoice(&ask(10_000), &hold).await;
    assert_eq!(invoice.unwrap().hash(), hold.hash);
    refuses(bench.bob.settle(&preimage).await);
    bench.bob.cancel(&hold.hash).await.unwrap();
    refuses(bench.bob.settle(&preimage).await);
}

/// Wallets have more than one word for it.
fn refuses(answer: Result<(), Error>) {
    assert!(
        matches!(answer, Err(Error::NotFound | Error::Refused(_))),
        "{answer:?}"
    );
}

async fn a_hold_lasts_as_long_as_asked(bench: Bench) {
    let hold = Hold {
        hash: preimage().hash(),
        min_cltv_expiry_delta: 432,
    };
    let invoice = bench.bob.make_hold_invoice(&ask(10_000), &hold).await;
    assert!(invoice.unwrap().min_cltv_expiry_delta() >= 432);
}
