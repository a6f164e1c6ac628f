//! A buyer's wallet that misbehaves, is empty, or may not pay so much.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use infernet_client::{Client, Error, Step, purse};
use infernet_payments::rail::{self, Ask, Direction, Hold, Notices, Order, Payment, PaymentRail};
use infernet_payments::test_rail::{Fault, Wallet};
use infernet_payments::{Invoice, PaymentHash, Preimage};
use infernet_protocol::money::Msat;
use nostr::Timestamp;
use tokio::sync::Semaphore;

use crate::bazaar::{Bazaar, buy, sats};
use crate::seller::{Offer, Way, words};
use crate::{DEADLINE, ask, live};

#[tokio::test]
async fn a_payment_that_fails_is_tried_again_with_another_invoice() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    bazaar.wallet.misbehave(Fault::Fail(Duration::ZERO));
    let client = bazaar.client().await;
    let life = live(&client, buy()).await;
    life.summary();
    let unpaid = |step: &&Step| matches!(step, Step::Unpaid { .. });
    assert_eq!(life.steps.iter().filter(unpaid).count(), 1);
    client.close().await;
    bazaar.is_even().await;
}

#[tokio::test]
async fn payments_that_always_fail_end_the_job_and_blame_nobody() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    for _ in 0..8 {
        bazaar.wallet.misbehave(Fault::Fail(Duration::ZERO));
    }
    let client = bazaar.client().await;
    let life = live(&client, buy()).await;
    let error = life.outcome.unwrap_err();
    assert!(matches!(error, Error::Unpaid(_)), "{error}");
    client.close().await;
    assert!(bazaar.said_of(0).await.is_none());
    assert_eq!(bazaar.is_even().await, Msat::ZERO);
}

#[tokio::test]
async fn an_empty_wallet_is_said_and_nobody_is_blamed() {
    let mut bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    bazaar.wallet = bazaar.network.wallet("poor", sats(5));
    let client = bazaar.client().await;
    let error = live(&client, buy()).await.outcome.unwrap_err();
    assert!(error.to_string().contains("not enough money"), "{error}");
    client.close().await;
    assert!(bazaar.said_of(0).await.is_none());
}

#[tokio::test]
async fn a_wallet_that_comes_back_in_time_is_waited_for() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    let client = bazaar.client().await;
    live(&client, buy().max_tokens(2)).await.summary();
    bazaar.wallet.crash();
    let wallet = bazaar.wallet.clone();
    let mut answer = client.submit(buy()).await.unwrap();
    let lived = async {
        while let Some(step) = answer.step().await {
            if matches!(step, Step::Unpaid { .. }) {
                wallet.restart();
            }
        }
        answer.finish().await
    };
    let outcome = tokio::time::timeout(DEADLINE, lived).await.unwrap();
    assert_eq!(outcome.unwrap().text, words(30));
    client.close().await;
    bazaar.is_even().await;
}

#[tokio::test]
async fn a_wallet_that_stays_away_ends_the_job_and_blames_nobody() {
    let mut offer = Offer::new("ada", Way::Honest);
    offer.terms.patience_ms = 1_500;
    let bazaar = Bazaar::of([offer]).await;
    let client = bazaar.client().await;
    bazaar.wallet.crash();
    let life = live(&client, buy()).await;
    let error = life.outcome.unwrap_err();
    assert!(matches!(error, Error::Unpaid(_)), "{error}");
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    client.close().await;
    assert!(bazaar.said_of(0).await.is_none());
}

#[tokio::test]
async fn a_payment_that_is_stuck_is_paid_once_and_found_on_the_tab_later() {
    let mut offer = Offer::new("ada", Way::Honest);
    offer.terms.patience_ms = 1_500;
    let bazaar = Bazaar::of([offer]).await;
    bazaar.wallet.misbehave(Fault::Stick);
    let client = bazaar.client().await;
    let life = live(&client, buy()).await;
    let error = life.outcome.unwrap_err();
    assert!(error.to_string().contains("still under way"), "{error}");
    client.close().await;
    assert!(bazaar.said_of(0).await.is_none());
    let stuck = bazaar.tabs().await[0].under_way_msat;
    assert!(stuck > Msat::ZERO);
    assert!(bazaar.sellers[0].books().paid.is_empty());

    // It arrives while nobody looks.
    let asked = *bazaar.sellers[0].books().first_asked().unwrap();
    bazaar.wallet.resolve(&asked, true);
    let client = bazaar.client().await;
    let life = live(&client, buy()).await;
    let left = life.summary().left_msat.unwrap();
    client.close().await;
    let paid: u64 = bazaar.sellers[0].books().paid.iter().map(|p| p.0).sum();
    assert_eq!(bazaar.wallet.tries(&asked), 1);
    assert_eq!(bazaar.is_even().await, Msat(paid));
    assert_eq!(left, i64::try_from(paid).unwrap() - 40_000);
}

#[tokio::test]
async fn a_payment_that_fails_after_minutes_costs_nothing() {
    let mut offer = Offer::new("ada", Way::Honest);
    offer.terms.patience_ms = 1_500;
    let bazaar = Bazaar::of([offer]).await;
    let late = Duration::from_secs(300);
    bazaar.wallet.misbehave(Fault::Fail(late));
    let client = bazaar.client().await;
    assert!(live(&client, buy()).await.outcome.is_err());
    client.close().await;
    bazaar.network.advance(late + Duration::from_secs(1));
    assert_eq!(bazaar.is_even().await, Msat::ZERO);
    // Whoever comes next finds nothing left to do.
    let client = bazaar.client().await;
    let closed = async {
        while !bazaar.tabs().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.unwrap();
    client.close().await;
}

#[tokio::test]
async fn a_lost_answer_and_doubled_news_pay_nothing_twice() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    bazaar.wallet.misbehave(Fault::TellTwice);
    let client = bazaar.client().await;
    live(&client, buy().max_tokens(2)).await.summary();
    bazaar.wallet.misbehave(Fault::LoseAnswer);
    live(&client, buy()).await.summary();
    client.close().await;
    let paid: u64 = bazaar.sellers[0].books().paid.iter().map(|p| p.0).sum();
    assert_eq!(bazaar.is_even().await, Msat(paid));
}

#[tokio::test]
async fn the_days_budget_and_the_jobs_limit_are_kept() {
    let mut bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    bazaar.limits.daily = sats(30);
    let client = bazaar.client().await;
    let error = live(&client, buy()).await.outcome.unwrap_err();
    assert!(error.to_string().contains("daily_sats"), "{error}");
    client.close().await;
    assert!(bazaar.is_even().await <= sats(30));

    let limited = bazaar.client().await;
    let error = live(&limited, buy().max_cost(sats(20)))
        .await
        .outcome
        .unwrap_err();
    assert!(matches!(error, Error::OverLimit { .. }), "{error}");
    let dear = live(&limited, ask()).await.outcome.unwrap_err();
    assert!(matches!(dear, Error::TooDear { .. }), "{dear}");
    limited.close().await;
}

#[tokio::test]
async fn more_is_not_paid_ahead_than_is_risked() {
    let mut bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    bazaar.limits.risk = sats(12);
    let client = bazaar.client().await;
    let error = live(&client, buy()).await.outcome.unwrap_err();
    assert!(matches!(error, Error::OverRisk { .. }), "{error}");
    client.close().await;
}

/// A wallet that is slow to say what is in it: each question waits for a permit.
#[derive(Debug, Clone)]
struct Slow {
    wallet: Wallet,
    asked: Arc<Semaphore>,
    may_answer: Arc<Semaphore>,
    may_invoice: Arc<Semaphore>,
}

impl Slow {
    fn new(wallet: Wallet, invoices: usize) -> Self {
        Self {
            wallet,
            asked: Arc::new(Semaphore::new(0)),
            may_answer: Arc::new(Semaphore::new(0)),
            may_invoice: Arc::new(Semaphore::new(invoices)),
        }
    }
}

#[async_trait]
impl PaymentRail for Slow {
    async fn balance(&self) -> Result<Msat, rail::Error> {
        self.asked.add_permits(1);
        self.may_answer.acquire().await.unwrap().forget();
        self.wallet.balance().await
    }

    async fn make_invoice(&self, ask: &Ask) -> Result<Invoice, rail::Error> {
        self.may_invoice.acquire().await.unwrap().forget();
        self.wallet.make_invoice(ask).await
    }

    async fn make_hold_invoice(&self, ask: &Ask, hold: &Hold) -> Result<Invoice, rail::Error> {
        self.wallet.make_hold_invoice(ask, hold).await
    }

    async fn pay(&self, order: &Order) -> Result<Payment, rail::Error> {
        self.wallet.pay(order).await
    }

    async fn look_up(
        &self,
        direction: Direction,
        hash: &PaymentHash,
    ) -> Result<Option<Payment>, rail::Error> {
        self.wallet.look_up(direction, hash).await
    }

    async fn list(&self, since: Timestamp) -> Result<Vec<Payment>, rail::Error> {
        self.wallet.list(since).await
    }

    async fn settle(&self, preimage: &Preimage) -> Result<(), rail::Error> {
        self.wallet.settle(preimage).await
    }

    async fn cancel(&self, hash: &PaymentHash) -> Result<(), rail::Error> {
        self.wallet.cancel(hash).await
    }

    fn subscribe(&self) -> Notices {
        self.wallet.subscribe()
    }
}

#[tokio::test]
async fn a_tab_is_not_given_back_while_a_payment_on_it_is_about_to_begin() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    let slow = Slow::new(bazaar.wallet.clone(), 10);
    let options = bazaar.options();
    let purse = purse::Options::new(slow.clone(), bazaar.folder());
    let one = Client::connect(options.purse(purse)).await.unwrap();
    let mut first = one.submit(buy()).await.unwrap();
    // It pays once it knows what is in the wallet.
    slow.asked.acquire().await.unwrap().forget();
    first.stop();
    while first.step().await.is_some() {}
    assert_eq!(first.finish().await.unwrap_err(), Error::Stopped);

    let other = bazaar.client().await;
    let mut second = other.submit(buy()).await.unwrap();
    let mut has_waited = false;
    while let Some(step) = second.step().await {
        if matches!(step, Step::TabTaken { .. }) {
            has_waited = true;
            slow.may_answer.add_permits(10);
        }
    }
    second.finish().await.unwrap();
    assert!(has_waited, "the first payment is on nobody's tab");
    one.close().await;
    other.close().await;
    let paid: u64 = bazaar.sellers[0].books().paid.iter().map(|p| p.0).sum();
    assert_eq!(bazaar.is_even().await, Msat(paid));
}

#[tokio::test]
async fn a_wallet_that_does_not_answer_by_the_deadline_is_not_the_providers_silence() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    let slow = Slow::new(bazaar.wallet.clone(), 0);
    let purse = purse::Options::new(slow.clone(), bazaar.folder());
    let client = Client::connect(bazaar.options().purse(purse))
        .await
        .unwrap();
    // Longer than a provider may be silent, and shorter than this one waits for money.
    let life = live(&client, buy().deadline(Duration::from_secs(9))).await;
    let error = life.outcome.unwrap_err();
    assert!(
        error.to_string().contains("your wallet does not answer"),
        "{error}"
    );
    let blamed = |step: &Step| matches!(step, Step::Failed { .. });
    assert!(!life.steps.iter().any(blamed), "{:?}", life.steps);
    slow.may_invoice.add_permits(10);
    client.close().await;
    assert!(bazaar.said_of(0).await.is_none());
    assert!(bazaar.sellers[0].books().paid.is_empty());
}
