//! Work that an aggregator pays for after its check.

use std::sync::Arc;
use std::time::Duration;

use infernet_engine::Script;
use infernet_payments::Invoice;
use infernet_payments::rail::PaymentRail;
use infernet_payments::test_rail::{Network, Wallet};
use infernet_protocol::event::{Announcement, Award, Signed};
use infernet_protocol::inference::EndReason;
use infernet_protocol::money::{Msat, PaymentKind, PaymentTerms};
use infernet_protocol::payload::{Decline, News, Payout, Wish, Work, payout_description};
use infernet_provider::Options;
use infernet_provider::money::Owed;
use nostr::EventId;

use super::buyer::{Buyer, Draft, Heard};
use super::house::{PATIENCE, PURSE, Provider, Relay, play_money, quick, slow};
use super::paying::{PRICE, earned, pay};
use super::shards::shard;

/// What a text of [`shard`] costs: "Count n" has 2 tokens, the answer 20.
const TEXT_COST: u64 = 2 * 10 + 20 * 100;

/// What a shard of 5 costs.
const COST: Msat = Msat(5 * TEXT_COST);

struct Market {
    relay: Relay,
    _network: Network,
    till: Wallet,
    purse: Wallet,
    provider: Provider,
    aggregator: Buyer,
    word: Signed<Announcement>,
}

impl Market {
    /// A provider that lends an aggregator so many satoshis.
    async fn open(script: Script, max_owed_sats: u64) -> Self {
        let relay = Relay::start().await;
        let (network, till, purse) = play_money();
        let mut aggregator = Buyer::connect(&[&relay]).await;
        let lend = lend(&aggregator, &till, max_owed_sats);
        let provider = Provider::start(&[&relay], script, lend).await;
        let word = aggregator.online(provider.handle.public_key()).await;
        Self {
            relay,
            _network: network,
            till,
            purse,
            provider,
            aggregator,
            word,
        }
    }

    fn draft(&self, work: Work) -> Draft {
        let mut draft = self.aggregator.draft(&self.word, work);
        draft.body.terms = PaymentKind::Escrow;
        draft.body.budget_msat = Msat(10_000_000);
        draft
    }

    /// A shard of 5 texts, done and in the books.
    async fn done(&mut self) -> Signed<Award> {
        let before = done(&self.books().await);
        let draft = self.draft(shard(5));
        let award = self.aggregator.place(draft).await;
        let (result, _) = self.aggregator.result(&award).await;
        assert_eq!((result.ended, result.due_msat), (EndReason::Stop, COST));
        self.until(|books| done(books) == before + COST.0).await;
        award
    }

    /// Waits until the books are so; they are written beside the loop.
    async fn until(&self, are_so: impl Fn(&Owed) -> bool) {
        let waiting = async {
            while !are_so(&self.books().await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let come = tokio::time::timeout(PATIENCE, waiting).await;
        come.expect("the books are so in time");
    }

    async fn books(&self) -> Owed {
        let escrows = earned(self.provider.home.path()).await.escrows;
        let of_them = |owed: &Owed| owed.aggregator == self.aggregator.keys.public_key;
        escrows.into_iter().find(of_them).unwrap_or(Owed {
            aggregator: self.aggregator.keys.public_key,
            owed_msat: Msat::ZERO,
            bond_msat: Msat::ZERO,
            paid_msat: Msat::ZERO,
            rejected_msat: Msat::ZERO,
            forfeited_msat: Msat::ZERO,
        })
    }
}

/// What all work has come to, whatever was made of it.
const fn done(books: &Owed) -> u64 {
    books.owed_msat.0 + books.paid_msat.0 + books.rejected_msat.0 + books.forfeited_msat.0
}

fn lend(aggregator: &Buyer, till: &Wallet, sats: u64) -> impl FnOnce(&mut Options) + use<> {
    let (from, wallet) = (aggregator.keys.public_key, till.clone());
    move |options| {
        options.price = PRICE;
        options.wallet = Some(Arc::new(wallet));
        options.escrow.from.insert(from);
        options.escrow.max_owed = Msat(sats * 1_000);
    }
}

pub fn payout(accepted: u64, bond: u64, paid: u64) -> Payout {
    Payout {
        rejected: vec![],
        accepted_msat: Msat(accepted),
        bond_msat: Msat(bond),
        forfeited_msat: Msat::ZERO,
        paid_msat: Msat(paid),
        pay_msat: Msat(accepted - bond - paid),
    }
}

impl Buyer {
    pub async fn payable(&mut self, award: &Signed<Award>, payout: Payout) -> Invoice {
        let (id, pay) = (award.id(), payout.pay_msat);
        self.wish(award, Wish::Payout(payout));
        let text = self
            .wait(|heard| match heard {
                Heard::Progress(about, News::Payable { invoice }, _) if *about == id => {
                    Some(invoice.clone())
                }
                Heard::Progress(about, News::RefundRefused { detail }, _) if *about == id => {
                    panic!("refused: {detail}")
                }
                _ => None,
            })
            .await;
        let invoice: Invoice = text.parse().unwrap();
        assert_eq!(invoice.amount(), pay);
        assert_eq!(invoice.description(), Some(payout_description(&id)));
        invoice
    }

    async fn not_payable(&mut self, award: &Signed<Award>, payout: Payout) -> String {
        self.wish(award, Wish::Payout(payout));
        self.refund_refusal(award.id()).await
    }
}

#[tokio::test]
async fn work_is_done_first_and_paid_when_it_was_accepted() {
    let mut market = Market::open(quick(), 100).await;
    assert!(market.word.terms.contains(&PaymentTerms::Escrow));
    let award = market.done().await;
    let owed = market.books().await;
    assert_eq!((owed.owed_msat, owed.paid_msat), (COST, Msat::ZERO));
    // A tenth is held back.
    let bond = COST.0 / 10;
    let invoice = market
        .aggregator
        .payable(&award, payout(COST.0, bond, 0))
        .await;
    let again = market
        .aggregator
        .payable(&award, payout(COST.0, bond, 0))
        .await;
    assert_eq!(invoice.as_str(), again.as_str(), "one payment, one invoice");
    pay(&market.purse, &invoice).await;
    let paid = COST.0 - bond;
    let second = market.done().await;
    let all = payout(2 * COST.0, 0, paid);
    let invoice = market.aggregator.payable(&second, all).await;
    pay(&market.purse, &invoice).await;
    let third = market.done().await;
    let again = payout(3 * COST.0, 0, 2 * COST.0);
    market.aggregator.payable(&third, again).await;
    let owed = market.books().await;
    assert_eq!((owed.paid_msat, owed.owed_msat), (Msat(2 * COST.0), COST));
    let balance = market.till.balance().await.unwrap();
    assert_eq!(balance, Msat(PURSE.0 + 2 * COST.0));
    let books = earned(market.provider.home.path()).await;
    assert_eq!((books.earned_msat, books.jobs), (Msat(3 * COST.0), 3));
    assert_eq!(books.received_msat, Msat(2 * COST.0));
    assert!(books.tabs.is_empty(), "it is on no tab");
}

#[tokio::test]
async fn no_more_is_lent_than_was_agreed() {
    // Two shards of 10.1 sat each; a third would be over.
    let mut market = Market::open(slow(), 29).await;
    let mut awards = vec![];
    for _ in 0..2 {
        let draft = market.draft(shard(5));
        let award = market.aggregator.place(draft).await;
        market.aggregator.accepted(award.id()).await;
        awards.push(award);
    }
    let draft = market.draft(shard(5));
    let over = market.aggregator.place(draft).await;
    let (reason, detail) = market.aggregator.said_no(over.id()).await;
    assert_eq!(reason, Decline::Terms);
    assert!(detail.contains("29 sat"), "{detail}");
    // What is stopped costs nothing, and makes room.
    market.aggregator.wish(&awards[0], Wish::Stop);
    let (result, _) = market.aggregator.result(&awards[0]).await;
    assert_eq!(
        (result.ended, result.due_msat),
        (EndReason::Cancelled, Msat::ZERO)
    );
    let mut fits = market.draft(shard(4));
    fits.body.limits.output_tokens = 80;
    let fits = market.aggregator.place(fits).await;
    market.aggregator.accepted(fits.id()).await;
    let (result, _) = market.aggregator.result(&awards[1]).await;
    assert_eq!(result.due_msat, COST);
}

#[tokio::test]
async fn what_is_owed_counts_until_it_is_paid() {
    let mut market = Market::open(quick(), 15).await;
    let award = market.done().await;
    let draft = market.draft(shard(5));
    let over = market.aggregator.place(draft).await;
    assert_eq!(market.aggregator.declined(over.id()).await, Decline::Terms);
    let invoice = market
        .aggregator
        .payable(&award, payout(COST.0, 0, 0))
        .await;
    pay(&market.purse, &invoice).await;
    market.until(|books| books.paid_msat == COST).await;
    market.done().await;
}

#[tokio::test]
async fn strangers_are_not_lent_to() {
    let mut market = Market::open(quick(), 1_000).await;
    let mut stranger = Buyer::connect(&[&market.relay]).await;
    std::mem::swap(&mut stranger, &mut market.aggregator);
    let draft = market.draft(shard(5));
    let award = market.aggregator.place(draft).await;
    assert_eq!(market.aggregator.declined(award.id()).await, Decline::Terms);
    let told = market
        .aggregator
        .not_payable(&award, payout(COST.0, 0, 0))
        .await;
    assert!(told.contains("was not done here"), "{told}");
}

#[tokio::test]
async fn what_was_rejected_or_forfeited_is_not_owed() {
    let mut market = Market::open(quick(), 100).await;
    let good = market.done().await;
    let bad = market.done().await;
    let half = COST.0 / 2;
    let verdict = Payout {
        rejected: vec![bad.id()],
        forfeited_msat: Msat(half),
        pay_msat: Msat(COST.0 - half),
        ..payout(COST.0, 0, 0)
    };
    let invoice = market.aggregator.payable(&good, verdict.clone()).await;
    let again = market.aggregator.payable(&good, verdict).await;
    assert_eq!(invoice.as_str(), again.as_str());
    let owed = market.books().await;
    assert_eq!(
        (owed.rejected_msat, owed.forfeited_msat),
        (COST, Msat(half))
    );
    assert_eq!(owed.owed_msat, Msat(COST.0 - half));
    // What is rejected cannot be accepted as well.
    let both = payout(2 * COST.0, 0, 0);
    let both = Payout {
        forfeited_msat: Msat(half),
        pay_msat: Msat(2 * COST.0 - half),
        ..both
    };
    let told = market.aggregator.not_payable(&good, both).await;
    assert!(told.contains("you accept"), "{told}");
    let books = earned(market.provider.home.path()).await;
    assert_eq!(books.earned_msat, Msat(COST.0 - half));
}

#[tokio::test]
async fn sums_that_are_not_ours_are_refused() {
    let mut market = Market::open(quick(), 100).await;
    let award = market.done().await;
    let aggregator = &mut market.aggregator;
    let told = aggregator.not_payable(&award, payout(COST.0, 0, 50)).await;
    assert!(told.contains("you have paid"), "{told}");
    let told = aggregator
        .not_payable(&award, payout(COST.0 + 1, 0, 0))
        .await;
    assert!(told.contains("you accept"), "{told}");
    let told = aggregator
        .not_payable(&award, payout(COST.0, COST.0, 0))
        .await;
    assert!(told.contains("nothing to pay"), "{told}");
    let told = aggregator
        .not_payable(&award, payout(COST.0 - 1, 0, 0))
        .await;
    assert!(told.contains("less now"), "{told}");
    // Work that is not in our books is no loss to us.
    let unknown = Payout {
        rejected: vec![EventId::all_zeros()],
        ..payout(COST.0, 0, 0)
    };
    aggregator.payable(&award, unknown).await;
}

#[tokio::test]
async fn a_restart_forgets_nothing_that_is_owed() {
    let mut market = Market::open(quick(), 15).await;
    let award = market.done().await;
    let (home, keys) = market.provider.stop().await;
    let lent = lend(&market.aggregator, &market.till, 15);
    market.provider = Provider::start_in(home, keys, &[&market.relay], quick(), lent).await;
    // Nothing runs, and nothing ran since the start.
    let draft = market.draft(shard(5));
    let over = market.aggregator.place(draft).await;
    assert_eq!(market.aggregator.declined(over.id()).await, Decline::Terms);
    let invoice = market
        .aggregator
        .payable(&award, payout(COST.0, 0, 0))
        .await;
    pay(&market.purse, &invoice).await;
    market.until(|books| books.owed_msat == Msat::ZERO).await;
}
