//! A provider that is killed while an aggregator owes it.

use std::time::Duration;

use infernet_protocol::event::{Award, JobResult, Signed};
use infernet_protocol::money::{Msat, PaymentKind};
use infernet_protocol::payload::Wish;
use infernet_provider::money::Earnings;
use nostr::ToBech32;
use tokio::time::{Instant, sleep};

use super::buyer::Heard;
use super::escrow::payout;
use super::house::PATIENCE;
use super::killed::Market;
use super::paying::{earned, pay};
use super::process::Process;
use super::shards::shard;

/// What a shard of 3 costs: "Count n" has 2 tokens, each answer 20.
const COST: u64 = 3 * (2 * 10 + 20 * 100);

/// Starts a provider that lends the buyer, an aggregator here, a hundred satoshis.
fn start(market: &Market, dies_at: Option<&str>) -> Process {
    let npub = market.buyer.keys.public_key.to_bech32().unwrap();
    market.start_with(dies_at, &["--escrow", &npub, "--max-owed", "100"])
}

async fn award(market: &mut Market, provider: &Process) -> Signed<Award> {
    let word = market.buyer.online(provider.npub).await;
    let mut draft = market.buyer.draft(&word, shard(3));
    draft.body.terms = PaymentKind::Escrow;
    draft.body.budget_msat = Msat(10_000_000);
    market.buyer.place(draft).await
}

async fn result(market: &mut Market, award: &Signed<Award>) -> Signed<JobResult> {
    let id = award.id();
    let of_it = |heard: &Heard| match heard {
        Heard::Result(result) if result.award == id => Some((**result).clone()),
        _ => None,
    };
    market.buyer.wait(of_it).await
}

/// Waits until the books are so; they are written beside the loop.
async fn until_books(market: &Market, are_so: impl Fn(&Earnings) -> bool) -> Earnings {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let books = earned(market.home.path()).await;
        if are_so(&books) {
            return books;
        }
        assert!(Instant::now() < deadline, "{books:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn has_earned(market: &Market, total: u64) {
    until_books(market, |books| books.earned_msat == Msat(total)).await;
}

/// All that was owed has come, once.
async fn is_paid(market: &Market, total: u64, point: &str) {
    let owes = |books: &Earnings| books.escrows.iter().any(|one| one.owed_msat > Msat::ZERO);
    let books = until_books(market, |books| !owes(books)).await;
    assert_eq!(books.escrows.len(), 1, "{point}");
    let aggregator = market.buyer.keys.public_key;
    assert_eq!(books.escrows[0].aggregator, aggregator, "{point}");
    assert_eq!(books.escrows[0].paid_msat, Msat(total), "{point}");
    assert_eq!(books.earned_msat, Msat(total), "{point}");
    market.check(point).await;
}

/// Kills a provider behind a shard; its result was kept, so that it still comes.
async fn dies_done_at(point: &str) {
    let mut market = Market::open().await;
    let mut provider = start(&market, Some(point));
    let first = award(&mut market, &provider).await;
    provider.has_ended().await;
    let again = start(&market, None);
    let kept = result(&mut market, &first).await;
    assert_eq!(kept.due_msat, Msat(COST), "{point}");
    let second = award(&mut market, &again).await;
    result(&mut market, &second).await;
    has_earned(&market, 2 * COST).await;
    let invoice = market.buyer.payable(&second, payout(2 * COST, 0, 0)).await;
    pay(&market.purse, &invoice).await;
    is_paid(&market, 2 * COST, point).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_work_is_charged() {
    dies_done_at("result-kept").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_work_was_charged() {
    dies_done_at("charged").await;
}

/// Kills a provider that is asked for an invoice; the aggregator asks again.
async fn dies_asked_at(point: &str) {
    let mut market = Market::open().await;
    let mut provider = start(&market, Some(point));
    let done = award(&mut market, &provider).await;
    let rejected = award(&mut market, &provider).await;
    for one in [&done, &rejected] {
        result(&mut market, one).await;
    }
    has_earned(&market, 2 * COST).await;
    let mut verdict = payout(COST, 0, 0);
    verdict.rejected = vec![rejected.id()];
    market.buyer.wish(&done, Wish::Payout(verdict.clone()));
    provider.has_ended().await;
    let again = start(&market, None);
    market.buyer.online(again.npub).await;
    let invoice = market.buyer.payable(&done, verdict).await;
    pay(&market.purse, &invoice).await;
    is_paid(&market, COST, point).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_rejection_was_booked() {
    dies_asked_at("rejection-booked").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_payouts_invoice_is_made() {
    dies_asked_at("invoice-planned").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_payouts_invoice_is_written_down() {
    dies_asked_at("invoice-made").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_paid_while_it_is_away_is_found() {
    let mut market = Market::open().await;
    let provider = start(&market, None);
    let done = award(&mut market, &provider).await;
    result(&mut market, &done).await;
    has_earned(&market, COST).await;
    let invoice = market.buyer.payable(&done, payout(COST, 0, 0)).await;
    drop(provider);
    pay(&market.purse, &invoice).await;
    let again = start(&market, None);
    let more = award(&mut market, &again).await;
    result(&mut market, &more).await;
    has_earned(&market, 2 * COST).await;
    let invoice = market.buyer.payable(&more, payout(2 * COST, 0, COST)).await;
    pay(&market.purse, &invoice).await;
    is_paid(&market, 2 * COST, "away").await;
}
