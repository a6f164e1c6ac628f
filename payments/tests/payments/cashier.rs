//! The cashier: what happens to money when anything dies at any moment.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use infernet_payments::cashier::{Cashier, Error};
use infernet_payments::ledger::{self, Account, Caps, Due, Ledger, Posting, Reason, Standing};
use infernet_payments::rail::{self, Direction, Notice, PaymentRail};
use infernet_payments::test_rail::{Fault, Network, Routing, Wallet};
use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::event::ReceiptSide;
use infernet_protocol::money::Msat;
use nostr::{Keys, PublicKey};
use tokio::sync::Notify;
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
async fn a_payment_that_the_ledger_knows_otherwise_keeps_no_other_waiting() {
    let (network, alice, bob) = wallets();
    let due = top_up(Keys::generate().public_key());
    let house = House::new(&network, &alice).await;
    let cashier = house.start().await;
    let now = network.now();
    // The wallet has paid it for somebody else, and the ledger says so.
    let elsewhere = bob.make_invoice(&ask(10_000)).await.unwrap();
    pay(&alice, &elsewhere).await;
    cashier.adopt(now).await.unwrap();
    let again = cashier.pay(&due, &elsewhere, FEE, None, now).await;
    let again = again.unwrap_err();
    assert!(
        matches!(again, Error::Ledger(ledger::Error::Conflict)),
        "{again}"
    );
    let asked = ask(20_000);
    let asked = cashier.invoice(&due, &asked, Caps::default(), now).await;
    pay(&bob, &asked.unwrap()).await;
    cashier.look(now).await.unwrap();
    let tab = Account::Tab(due.counterparty);
    assert_eq!(cashier.ledger().balance(&tab).await.unwrap(), -20_000);
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

#[tokio::test]
async fn who_begins_meanwhile_takes_nothing_from_others() {
    let (network, alice, bob) = wallets();
    let house = House::new(&network, &alice).await;
    let (one, other) = (house.start().await, house.start().await);
    let now = network.now();
    let due = top_up(Keys::generate().public_key());
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    let ledger = one.ledger();
    ledger
        .plan_payment(&due, &invoice, FEE, None, now)
        .await
        .unwrap();
    other.resume(now).await.unwrap();
    assert_eq!(ledger.open_intents().await.unwrap().len(), 1);
    // Whoever dies there leaves something that can be gone on with, or is given up.
    let paid = other.pay(&due, &invoice, FEE, None, now).await.unwrap();
    assert_eq!(paid.standing, Standing::Settled);
    assert_eq!(alice.tries(&invoice.hash()), 1);
    let forgotten = bob.make_invoice(&ask(10_000)).await.unwrap();
    ledger
        .plan_payment(&due, &forgotten, FEE, None, now)
        .await
        .unwrap();
    let later = now + Duration::from_secs(181);
    other.look(later).await.unwrap();
    assert_eq!(ledger.open_intents().await.unwrap(), []);
    house.is_even(&other).await;
}

#[tokio::test]
async fn what_another_process_has_booked_is_told_here_too() {
    for arrives in [true, false] {
        let (network, alice, bob) = wallets();
        let house = House::new(&network, &alice).await;
        let (one, other) = (house.start().await, house.start().await);
        let now = network.now();
        let due = top_up(Keys::generate().public_key());
        let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
        let mut changes = one.subscribe();
        alice.misbehave(Fault::Stick);
        one.pay(&due, &invoice, FEE, None, now).await.unwrap();
        alice.resolve(&invoice.hash(), arrives);
        other.look(now).await.unwrap();
        one.look(now).await.unwrap();
        one.look(now).await.unwrap();
        let change = changes.try_recv().expect("it is told");
        assert_eq!(change.intent.hash(), Some(invoice.hash()));
        let expected = match arrives {
            true => (Standing::Settled, Msat(10_000)),
            false => (Standing::Failed, Msat::ZERO),
        };
        assert_eq!((change.intent.standing, change.amount), expected);
        assert!(changes.try_recv().is_err(), "told twice");
    }
}

#[tokio::test]
async fn what_is_open_on_a_tab_is_told_with_it() {
    let (network, _alice, bob) = wallets();
    let house = House::new(&network, &bob).await;
    let cashier = house.start().await;
    let (buyer, now) = (Keys::generate().public_key(), network.now());
    for counterparty in [buyer, Keys::generate().public_key()] {
        let (due, ask) = (top_up(counterparty), ask(10_000));
        let invoice = cashier.invoice(&due, &ask, Caps::default(), now);
        invoice.await.unwrap();
    }
    let opening = cashier.ledger().opening(&buyer, ReceiptSide::Provider);
    let open = opening.await.unwrap().open;
    assert_eq!(open.len(), 1);
    assert_eq!(
        (open[0].counterparty, open[0].amount),
        (buyer, Msat(10_000))
    );
}

#[tokio::test]
async fn an_invoice_that_ran_out_waits_no_longer() {
    let (network, _alice, bob) = wallets();
    let house = House::new(&network, &bob).await;
    let rail = Arc::new(Stateless(bob));
    let cashier = Cashier::new(rail, Ledger::open(&house.path).await.unwrap());
    let now = network.now();
    let due = top_up(Keys::generate().public_key());
    let caps = Caps {
        for_one: 1,
        in_all: 1,
    };
    let ask = ask(10_000);
    cashier.invoice(&due, &ask, caps, now).await.unwrap();
    let refused = cashier.invoice(&due, &ask, caps, now).await;
    assert!(refused.is_err());
    // The wallet knows no more than that nobody has paid it.
    network.advance(Duration::from_secs(10_000));
    cashier.look(network.now()).await.unwrap();
    cashier
        .invoice(&due, &ask, caps, network.now())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_payment_is_booked_as_its_payee_has_it_and_when_it_can_have_been() {
    let (network, alice, bob) = wallets();
    let house = House::new(&network, &alice).await;
    let cashier = house.start().await;
    let provider = Keys::generate().public_key();
    let invoice = bob.make_invoice(&ask(10_000)).await.unwrap();
    alice.misbehave(Fault::Stick);
    let now = network.now();
    let due = top_up(provider);
    let intent = cashier.pay(&due, &invoice, FEE, None, now).await.unwrap();
    // A wallet that counts its fee into the amount, and milliseconds as seconds.
    let payment = rail::Payment {
        direction: Direction::Outgoing,
        hash: invoice.hash(),
        amount: Msat(10_021),
        state: rail::State::Settled {
            at: nostr::Timestamp::from_secs(now.as_secs() * 1_000),
            fee: Msat(0),
            preimage: None,
        },
        created_at: now,
    };
    let notice = Notice::Changed(payment);
    cashier.hear(&notice, now).await.unwrap();
    let ledger = cashier.ledger();
    assert_eq!(ledger.tabs().await.unwrap(), [(provider, 10_000)]);
    assert_eq!(ledger.balance(&Account::Fees).await.unwrap(), 21);
    let settled = ledger.intent(Direction::Outgoing, &invoice.hash()).await;
    assert_eq!(settled.unwrap().unwrap().changed_at, now);
    assert_eq!(intent.standing, Standing::UnderWay);
}

#[tokio::test]
async fn news_is_heard_while_much_is_asked_about() {
    let (network, alice, bob) = wallets();
    let house = House::new(&network, &bob).await;
    let asked = Arc::new(Notify::new());
    let slow = Arc::new(Slow(bob.clone(), asked.clone()));
    let cashier = Cashier::new(slow, Ledger::open(&house.path).await.unwrap());
    let due = top_up(Keys::generate().public_key());
    let now = network.now();
    let ask = ask(10_000);
    let invoice = cashier.invoice(&due, &ask, Caps::default(), now);
    let invoice = invoice.await.unwrap();
    let mut changes = cashier.subscribe();
    let (following, notices, clock) = (cashier.clone(), bob.subscribe(), network.clone());
    let task = tokio::spawn(async move {
        let often = Duration::from_secs(3_600);
        following.follow(notices, often, || clock.now()).await
    });
    timeout(DEADLINE, asked.notified()).await.unwrap();
    pay(&alice, &invoice).await;
    let change = timeout(DEADLINE, changes.recv()).await.unwrap().unwrap();
    assert_eq!(change.intent.standing, Standing::Settled);
    task.abort();
}

#[tokio::test]
async fn a_tab_has_what_has_come_whatever_was_asked_for() {
    for came in [Msat(4_000), Msat(13_000)] {
        let (network, alice, bob) = wallets();
        let house = House::new(&network, &bob).await;
        let rail = Arc::new(Otherwise(bob.clone(), came));
        let cashier = Cashier::new(rail, Ledger::open(&house.path).await.unwrap());
        let buyer = Keys::generate().public_key();
        let (due, now) = (top_up(buyer), network.now());
        let ask = ask(10_000);
        let invoice = cashier.invoice(&due, &ask, Caps::default(), now);
        let invoice = invoice.await.unwrap();
        pay(&alice, &invoice).await;
        let mut changes = cashier.subscribe();
        cashier.look(now).await.unwrap();
        assert_eq!(changes.recv().await.unwrap().amount, came);
        // Said again, also with what was asked for, it is nothing new.
        cashier.look(now).await.unwrap();
        let payment = bob.look_up(Direction::Incoming, &invoice.hash()).await;
        let notice = Notice::Changed(payment.unwrap().unwrap());
        cashier.hear(&notice, now).await.unwrap();
        let ledger = cashier.ledger();
        let carried = ledger.carried(&buyer, ReceiptSide::Provider).await;
        assert_eq!(carried.unwrap().paid, came);
        assert!(ledger.open_intents().await.unwrap().is_empty());
        let had = i64::try_from(FUNDS.0 + came.0).unwrap();
        assert_eq!(ledger.balance(&Account::Wallet).await.unwrap(), had);
    }
}

/// A wallet that another amount came to than was asked for.
#[derive(Debug)]
struct Otherwise(Wallet, Msat);

/// A wallet that never answers a look-up, and says when it is asked.
#[derive(Debug)]
struct Slow(Wallet, Arc<Notify>);

/// A wallet from before invoices had a state: what nobody has paid is pending for ever.
#[derive(Debug)]
struct Stateless(Wallet);

macro_rules! otherwise_a_wallet {
    ($name:ident, $this:ident, $direction:ident, $hash:ident, $look_up:expr) => {
        #[async_trait::async_trait]
        impl PaymentRail for $name {
            async fn make_invoice(&self, ask: &rail::Ask) -> Result<Invoice, rail::Error> {
                self.0.make_invoice(ask).await
            }
            async fn make_hold_invoice(
                &self,
                ask: &rail::Ask,
                hold: &rail::Hold,
            ) -> Result<Invoice, rail::Error> {
                self.0.make_hold_invoice(ask, hold).await
            }
            async fn pay(&self, order: &rail::Order) -> Result<rail::Payment, rail::Error> {
                self.0.pay(order).await
            }
            async fn look_up(
                &self,
                $direction: Direction,
                $hash: &PaymentHash,
            ) -> Result<Option<rail::Payment>, rail::Error> {
                let $this = self;
                $look_up
            }
            async fn list(
                &self,
                since: nostr::Timestamp,
            ) -> Result<Vec<rail::Payment>, rail::Error> {
                self.0.list(since).await
            }
            async fn balance(&self) -> Result<Msat, rail::Error> {
                self.0.balance().await
            }
            async fn settle(
                &self,
                preimage: &infernet_payments::Preimage,
            ) -> Result<(), rail::Error> {
                self.0.settle(preimage).await
            }
            async fn cancel(&self, hash: &PaymentHash) -> Result<(), rail::Error> {
                self.0.cancel(hash).await
            }
            fn subscribe(&self) -> rail::Notices {
                self.0.subscribe()
            }
        }
    };
}

otherwise_a_wallet!(Slow, this, _direction, _hash, {
    this.1.notify_one();
    std::future::pending().await
});
otherwise_a_wallet!(Otherwise, this, direction, hash, {
    let found = this.0.look_up(direction, hash).await?;
    Ok(found.map(|payment| rail::Payment {
        amount: this.1,
        ..payment
    }))
});
otherwise_a_wallet!(Stateless, this, direction, hash, {
    let found = this.0.look_up(direction, hash).await?;
    Ok(found.map(|payment| match payment.state {
        rail::State::Expired => rail::Payment {
            state: rail::State::Pending,
            ..payment
        },
        _ => payment,
    }))
});

/// Each would find the wallet's contents unexplained, and post them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_begin_together_take_the_wallet_in_once() {
    for _ in 0..5 {
        let (network, wallet, _) = wallets();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.sqlite");
        let opened = (0..6).map(|_| {
            let (path, wallet, now) = (path.clone(), wallet.clone(), network.now());
            tokio::spawn(async move {
                let ledger = Ledger::open(&path).await.unwrap();
                let cashier = Cashier::new(Arc::new(wallet), ledger);
                cashier.open_books(now).await.unwrap();
            })
        });
        for one in opened.collect::<Vec<_>>() {
            one.await.unwrap();
        }
        let ledger = Ledger::open(&path).await.unwrap();
        let cashier = Cashier::new(Arc::new(wallet), ledger);
        let report = cashier.reconcile(network.now()).await.unwrap();
        assert!(report.is_even(), "{report:?}");
    }
}

#[tokio::test]
async fn who_keeps_a_tab_gives_up_what_was_planned_on_it_and_never_begun() {
    let (network, alice, bob) = wallets();
    let house = House::new(&network, &alice).await;
    let cashier = house.start().await;
    let now = network.now();
    let (ours, other) = (Keys::generate().public_key, Keys::generate().public_key);
    for counterparty in [ours, other] {
        let invoice = bob.make_invoice(&ask(7_000)).await.unwrap();
        let plan = top_up(counterparty);
        let planned = cashier
            .ledger()
            .plan_payment(&plan, &invoice, Msat(100), None, now);
        planned.await.unwrap();
    }
    cashier.give_up_planned(&ours, now).await.unwrap();
    let open = cashier.ledger().open_intents().await.unwrap();
    let whose: Vec<_> = open.iter().map(|intent| intent.counterparty).collect();
    assert_eq!(whose, [other]);
    house.is_even(&cashier).await;
}
