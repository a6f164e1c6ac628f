//! The cashier: what happens to money when anything dies at any moment.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use infernet_payments::cashier::{Cashier, Error};
use infernet_payments::ledger::{Account, Caps, Due, Ledger, Posting, Reason, Standing};
use infernet_payments::rail::{self, Direction, Notice, PaymentRail};
use infernet_payments::test_rail::{Fault, Network, Routing, Wallet};
use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::money::Msat;
use nostr::{Keys, PublicKey};
use tokio::time::timeout;

use crate::benches::{DEADLINE, FUNDS, ask, wallets};

/// A process with a wallet and a ledger, that can die and come back.
struct House {
    network: Network,
    wallet: Wallet,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl House {
    async fn new(network: &Network, wallet: &Wallet) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let house = Self {
            network: network.clone(),
            wallet: wallet.clone(),
            path: folder.path().join("ledger.sqlite"),
            _folder: folder,
        };
        let funds = Posting::CameIn {
            hash: PaymentHash::from_bytes([0; 32]),
            amount: FUNDS,
        };
        let cashier = house.start().await;
        cashier.ledger().post(&funds, network.now()).await.unwrap();
        house
    }

    async fn start(&self) -> Cashier {
        let ledger = Ledger::open(&self.path).await.unwrap();
        Cashier::new(Arc::new(self.wallet.clone()), ledger)
    }

    /// Comes back after a crash, and looks again once everything under way has ended.
    async fn recover(&self) -> Cashier {
        self.wallet.behave();
        self.wallet.restart();
        let cashier = self.start().await;
        cashier.resume(self.network.now()).await.unwrap();
        self.network.advance(Duration::from_secs(4_000));
        cashier.look(self.network.now()).await.unwrap();
        cashier
    }

    /// That ledger and wallet agree, to the last msat.
    async fn is_even(&self, cashier: &Cashier) {
        let report = cashier.reconcile(self.network.now()).await.unwrap();
        assert!(report.is_even(), "{report:?}");
    }
}

fn top_up(counterparty: PublicKey) -> Due {
    Due {
        reason: Reason::TopUp,
        counterparty,
        award: None,
    }
}

const FEE: Msat = Msat(1_000);

/// Polls a future so many times, and drops it.
struct Killed<F> {
    future: Pin<Box<F>>,
    polls: usize,
}

impl<F: Future> Future for Killed<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        let polled = self.future.as_mut().poll(context);
        if self.polls == 0 && polled.is_pending() {
            return Poll::Ready(None);
        }
        polled.map(Some)
    }
}

/// A dead process writes no more: SQLite's thread ends what it has begun, and closes.
async fn die(cashier: Cashier) {
    cashier.ledger().clone().close().await;
}

fn kill_after<F: Future>(polls: usize, future: F) -> Killed<F> {
    Killed {
        future: Box::pin(future),
        polls,
    }
}

#[tokio::test]
async fn a_top_up_is_on_both_ledgers() {
    let (network, alice, bob) = wallets();
    network.set_routing(Routing {
        base: Msat(21),
        parts_per_million: 0,
    });
    let (buyer, provider) = (Keys::generate().public_key(), Keys::generate().public_key());
    let buyers = House::new(&network, &alice).await;
    let providers = House::new(&network, &bob).await;
    let (paying, charging) = (buyers.start().await, providers.start().await);
    let mut notices = bob.subscribe();
    let now = network.now();
    let invoice = charging
        .invoice(&top_up(buyer), &ask(10_000), Caps::default(), now)
        .await
        .unwrap();
    let paid = paying
        .pay(&top_up(provider), &invoice, FEE, None, now)
        .await
        .unwrap();
    assert_eq!(paid.standing, Standing::Settled);
    let notice = notices.next().await.unwrap();
    charging.hear(&notice, now).await.unwrap();
    charging.hear(&notice, now).await.unwrap();
    assert_eq!(paying.ledger().tabs().await.unwrap(), [(provider, 10_000)]);
    assert_eq!(charging.ledger().tabs().await.unwrap(), [(buyer, -10_000)]);
    assert_eq!(paying.ledger().balance(&Account::Fees).await.unwrap(), 21);
    buyers.is_even(&paying).await;
    providers.is_even(&charging).await;
}

#[tokio::test]
async fn killed_at_any_moment_a_payer_pays_once_or_not_at_all() {
    let faults = [
        None,
        Some(Fault::LoseRequest),
        Some(Fault::LoseAnswer),
        Some(Fault::CrashBefore),
        Some(Fault::CrashAfter),
        Some(Fault::Delay(Duration::from_secs(300))),
        Some(Fault::Fail(Duration::from_secs(300))),
        Some(Fault::Fail(Duration::ZERO)),
    ];
    for fault in faults {
        let mut polls = 1;
        let mut is_done = false;
        while !is_done {
            is_done = killed_payment(fault, polls).await;
            polls += 1;
        }
        assert!(polls > 5, "it was never killed on the way");
    }
}

/// One payment, killed after so many polls; whether it was done before.
async fn killed_payment(fault: Option<Fault>, polls: usize) -> bool {
    let (network, alice, bob) = wallets();
    let house = House::new(&network, &alice).await;
    let provider = Keys::generate().public_key();
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    if let Some(fault) = fault {
        alice.misbehave(fault);
    }
    let cashier = house.start().await;
    let due = top_up(provider);
    let paying = cashier.pay(&due, &invoice, FEE, None, network.now());
    let done = kill_after(polls, paying).await;
    die(cashier).await;
    let again = house.recover().await;
    let received = bob.balance().await.unwrap().0 - FUNDS.0;
    assert!(
        received == 0 || received == 10_000,
        "{fault:?} after {polls}"
    );
    assert!(alice.tries(&invoice.hash()) <= 1);
    let tabs = again.ledger().tabs().await.unwrap();
    match received {
        0 => assert_eq!(tabs, [], "{fault:?} after {polls}"),
        _ => assert_eq!(tabs, [(provider, 10_000)], "{fault:?} after {polls}"),
    }
    assert_eq!(again.ledger().open_intents().await.unwrap(), []);
    house.is_even(&again).await;
    // Asked to pay the same invoice again, it answers how that stands.
    let paid = again.pay(&due, &invoice, FEE, None, network.now()).await;
    if let Ok(intent) = paid {
        let is_settled = intent.standing == Standing::Settled;
        assert_eq!(is_settled, received > 0);
    }
    done.is_some()
}

#[tokio::test]
async fn killed_at_any_moment_a_payee_knows_what_it_got() {
    let mut polls = 1;
    let mut is_done = false;
    while !is_done {
        is_done = killed_invoice(polls).await;
        polls += 1;
    }
    assert!(polls > 5, "it was never killed on the way");
}

async fn killed_invoice(polls: usize) -> bool {
    let (network, alice, bob) = wallets();
    let house = House::new(&network, &bob).await;
    let buyer = Keys::generate().public_key();
    let cashier = house.start().await;
    let (due, ask) = (top_up(buyer), ask(10_000));
    let life = async {
        let invoice = cashier
            .invoice(&due, &ask, Caps::default(), network.now())
            .await?;
        pay(&alice, &invoice).await;
        let known = bob.look_up(Direction::Incoming, &invoice.hash()).await?;
        let notice = Notice::Changed(known.unwrap());
        cashier.hear(&notice, network.now()).await
    };
    let done = kill_after(polls, life).await;
    die(cashier).await;
    let again = house.recover().await;
    let received = bob.balance().await.unwrap().0 - FUNDS.0;
    let tabs = again.ledger().tabs().await.unwrap();
    match received {
        0 => assert_eq!(tabs, []),
        _ => assert_eq!(tabs, [(buyer, -10_000)]),
    }
    house.is_even(&again).await;
    done.is_some()
}

async fn pay(wallet: &Wallet, invoice: &Invoice) {
    let order = crate::benches::order(invoice);
    wallet.pay(&order).await.unwrap();
}

#[tokio::test]
async fn what_is_unknown_stays_pending() {
    let (network, alice, bob) = wallets();
    let house = House::new(&network, &alice).await;
    let cashier = house.start().await;
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    alice.misbehave(Fault::Stick);
    let due = top_up(Keys::generate().public_key());
    let now = network.now();
    let paid = cashier.pay(&due, &invoice, FEE, None, now).await.unwrap();
    assert_eq!(paid.standing, Standing::UnderWay);
    // Neither a wallet that is away nor one that forgot it says that it failed.
    alice.crash();
    cashier.look(now).await.unwrap();
    alice.restart();
    alice.forget(invoice.hash());
    cashier.look(now).await.unwrap();
    assert_eq!(cashier.ledger().open_intents().await.unwrap().len(), 1);
    alice.remember(&invoice.hash());
    network.advance(Duration::from_secs(10_000));
    cashier.look(network.now()).await.unwrap();
    assert_eq!(cashier.ledger().open_intents().await.unwrap().len(), 1);
    let report = cashier.reconcile(network.now()).await.unwrap();
    assert_eq!((report.differences.len(), report.unexplained_msat), (1, 0));
    alice.resolve(&invoice.hash(), true);
    house.is_even(&cashier).await;
}

#[tokio::test]
async fn what_was_said_to_have_failed_is_booked_if_it_moved() {
    let (network, alice, bob) = wallets();
    let house = House::new(&network, &alice).await;
    let cashier = house.start().await;
    let provider = Keys::generate().public_key();
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    let due = top_up(provider);
    alice.misbehave(Fault::LoseAnswer);
    cashier
        .pay(&due, &invoice, FEE, None, network.now())
        .await
        .unwrap();
    alice.forget(invoice.hash());
    network.advance(Duration::from_secs(10_000));
    cashier.look(network.now()).await.unwrap();
    assert_eq!(cashier.ledger().tabs().await.unwrap(), []);
    alice.remember(&invoice.hash());
    house.is_even(&cashier).await;
    assert_eq!(cashier.ledger().tabs().await.unwrap(), [(provider, 10_000)]);
}

#[tokio::test]
async fn what_the_wallet_refuses_is_not_under_way() {
    let (network, alice, bob) = wallets();
    let house = House::new(&network, &alice).await;
    let cashier = house.start().await;
    let invoice = bob.make_invoice(&ask(FUNDS.0 + 1)).await.unwrap();
    let due = top_up(Keys::generate().public_key());
    let refused = cashier.pay(&due, &invoice, FEE, None, network.now()).await;
    let Err(Error::Rail(rail::Error::InsufficientBalance)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(cashier.ledger().open_intents().await.unwrap(), []);
    alice.crash();
    let refused = cashier
        .invoice(&due, &ask(10_000), Caps::default(), network.now())
        .await;
    assert!(matches!(refused, Err(Error::Rail(_))), "{refused:?}");
    alice.restart();
    assert_eq!(cashier.ledger().open_intents().await.unwrap(), []);
    house.is_even(&cashier).await;
}

#[tokio::test]
async fn two_callers_pay_an_invoice_once() {
    let (network, alice, bob) = wallets();
    let house = House::new(&network, &alice).await;
    let cashier = house.start().await;
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    let due = top_up(Keys::generate().public_key());
    let pay = || cashier.pay(&due, &invoice, FEE, None, network.now());
    let (one, other) = tokio::join!(pay(), pay());
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(alice.tries(&invoice.hash()), 1);
    house.is_even(&cashier).await;
}

#[tokio::test]
async fn changes_are_told_as_they_come() {
    let (network, alice, bob) = wallets();
    let house = House::new(&network, &bob).await;
    let cashier = house.start().await;
    let buyer = Keys::generate().public_key();
    let mut changes = cashier.subscribe();
    let following = cashier.clone();
    let (notices, clock) = (bob.subscribe(), network.clone());
    let task = tokio::spawn(async move {
        let often = Duration::from_millis(50);
        following.follow(notices, often, || clock.now()).await
    });
    // One that is told, and one that has to be looked for.
    for fault in [None, Some(Fault::TellNothing)] {
        let (due, ask) = (top_up(buyer), ask(10_000));
        let invoice = cashier
            .invoice(&due, &ask, Caps::default(), network.now())
            .await
            .unwrap();
        if let Some(fault) = fault {
            bob.misbehave(fault);
        }
        pay(&alice, &invoice).await;
        let change = timeout(DEADLINE, changes.recv()).await.unwrap().unwrap();
        assert_eq!(change.intent.hash(), Some(invoice.hash()));
        assert_eq!(change.intent.standing, Standing::Settled);
        assert_eq!(change.amount, Msat(10_000));
    }
    task.abort();
}
