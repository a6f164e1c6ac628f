//! Wallets that hang, and to which comes another amount than was asked for.

use std::future::pending;
use std::sync::Arc;

use infernet_payments::rail::{self, Ask, Direction, Hold, Notices, Order, Payment, PaymentRail};
use infernet_payments::test_rail::{Fault, Wallet};
use infernet_payments::{Invoice, PaymentHash, Preimage};
use infernet_protocol::event::{Announcement, Award, Signed};
use infernet_protocol::money::{Msat, Price};
use infernet_protocol::payload::{Decline, News, Wish};
use nostr::Timestamp;
use nostr::secp256k1::PublicKey;
use tokio::sync::watch;

use super::buyer::{Buyer, Heard, generate};
use super::house::{Provider, Relay, play_money, quick};
use super::paid::long;
use super::paying::{DEAR, Market, PRICE, paid, pay};

/// What is wrong with a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Oddity {
    None,
    /// It answers no question about a payment.
    HangsOverLooks,
    /// It never comes back with an invoice.
    HangsOverInvoices,
    /// This has come for every invoice that is paid.
    Brings(Msat),
}

#[derive(Debug, Clone)]
struct Odd {
    wallet: Wallet,
    oddity: watch::Receiver<Oddity>,
}

impl Odd {
    fn is(&self, oddity: Oddity) -> bool {
        *self.oddity.borrow() == oddity
    }
}

#[async_trait::async_trait]
impl PaymentRail for Odd {
    async fn make_invoice(&self, ask: &Ask) -> Result<Invoice, rail::Error> {
        match self.is(Oddity::HangsOverInvoices) {
            true => pending().await,
            false => self.wallet.make_invoice(ask).await,
        }
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
        if self.is(Oddity::HangsOverLooks) {
            return pending().await;
        }
        let found = self.wallet.look_up(direction, hash).await?;
        let oddity = *self.oddity.borrow();
        Ok(found.map(|payment| match oddity {
            Oddity::Brings(amount) => Payment { amount, ..payment },
            _ => payment,
        }))
    }

    async fn list(&self, since: Timestamp) -> Result<Vec<Payment>, rail::Error> {
        self.wallet.list(since).await
    }

    async fn balance(&self) -> Result<Msat, rail::Error> {
        self.wallet.balance().await
    }

    async fn node(&self) -> Result<Option<PublicKey>, rail::Error> {
        PaymentRail::node(&self.wallet).await
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

/// A provider with an odd wallet, and a buyer.
struct House {
    _relay: Relay,
    _provider: Provider,
    oddity: watch::Sender<Oddity>,
    till: Wallet,
    purse: Wallet,
    buyer: Buyer,
    word: Signed<Announcement>,
}

impl House {
    async fn open() -> Self {
        let relay = Relay::start().await;
        let (_, till, purse) = play_money();
        let (oddity, told) = watch::channel(Oddity::None);
        let odd = Odd {
            wallet: till.clone(),
            oddity: told,
        };
        let provider = Provider::start(&[&relay], quick(), |options| {
            options.price = DEAR;
            options.tab.prepaid_output_tokens = 8;
            options.wallet = Some(Arc::new(odd));
        })
        .await;
        let mut buyer = Buyer::connect(&[&relay]).await;
        let word = buyer.online(provider.handle.public_key()).await;
        Self {
            _relay: relay,
            _provider: provider,
            oddity,
            till,
            purse,
            buyer,
            word,
        }
    }

    async fn award(&self, max_tokens: u32) -> Signed<Award> {
        let draft = paid(&self.buyer, &self.word, generate("Count", max_tokens));
        self.buyer.place(draft).await
    }

    /// The buyer is told that it is waited for, and declined in the end; the next
    /// is served when the wallet answers again.
    async fn hangs(&mut self, oddity: Oddity) {
        self.oddity.send_replace(oddity);
        let award = self.award(20).await;
        for _ in 0..3 {
            self.buyer.alive(award.id(), 0).await;
        }
        let (reason, detail) = self.buyer.said_no(award.id()).await;
        assert_eq!(reason, Decline::Busy);
        assert!(detail.contains("wallet cannot be reached"), "{detail}");
        self.oddity.send_replace(Oddity::None);
        let award = self.award(20).await;
        self.buyer.live(&award, &self.purse).await;
    }
}

#[tokio::test]
async fn who_waits_for_a_wallet_that_hangs_over_earlier_invoices_is_told() {
    let mut house = House::open().await;
    let unpaid = house.award(20).await;
    house.buyer.invoice(&unpaid).await;
    house.buyer.wish(&unpaid, Wish::Stop);
    house.hangs(Oddity::HangsOverLooks).await;
}

#[tokio::test]
async fn who_waits_for_an_invoice_of_a_wallet_that_hangs_is_told() {
    let mut house = House::open().await;
    house.hangs(Oddity::HangsOverInvoices).await;
}

/// Nothing is told, so that the wallet is asked.
async fn pays_and_has_brought(house: &mut House, came: Msat) -> (Signed<Award>, Invoice) {
    let award = house.award(8).await;
    let invoice = house.buyer.invoice(&award).await;
    house.oddity.send_replace(Oddity::Brings(came));
    house.till.misbehave(Fault::TellNothing);
    pay(&house.purse, &invoice).await;
    (award, invoice)
}

#[tokio::test]
async fn a_top_up_of_which_less_has_come_counts_for_that_much() {
    let mut house = House::open().await;
    let came = Msat(5_000);
    let (award, invoice) = pays_and_has_brought(&mut house, came).await;
    // It is not enough to begin: the rest is asked for, as little as there can be.
    let second = loop {
        let next = house.buyer.invoice(&award).await;
        if next.hash() != invoice.hash() {
            break next;
        }
    };
    assert_eq!(second.amount(), Msat(10_000));
    house.oddity.send_replace(Oddity::None);
    pay(&house.purse, &second).await;
    let lived = house.buyer.live(&award, &house.purse).await;
    assert_eq!(lived.claims[0].tab_paid_msat, Msat(came.0 + 10_000));
}

#[tokio::test]
async fn a_top_up_of_which_more_has_come_counts_for_that_much() {
    let mut house = House::open().await;
    let came = Msat(12_500);
    let (award, _) = pays_and_has_brought(&mut house, came).await;
    let lived = house.buyer.live(&award, &house.purse).await;
    assert_eq!(lived.claims[0].tab_paid_msat, came);
}

/// What nobody waits for leaves room for what somebody waits for.
#[tokio::test]
async fn jobs_that_were_paid_for_and_cut_short_leave_others_their_invoices() {
    let price = Price {
        input_msat: 100_000_000,
        ..PRICE
    };
    let mut market = Market::open(price, long(100, 5.0), |o| {
        (o.tab.prepaid_output_tokens, o.tab.top_up) = (10, Msat(30_000));
    })
    .await;
    let place = async |market: &Market, prompt: &str, max_tokens: u32| {
        let draft = paid(&market.buyer, &market.word, generate(prompt, max_tokens));
        market.buyer.place(draft).await
    };
    let first = place(&market, "Count", 10).await;
    let invoice = market.buyer.invoice(&first).await;
    pay(&market.purse, &invoice).await;
    for round in 0..12 {
        // All but the first are served at once, from what is left, and would need
        // more later.
        let award = match round {
            0 => first.clone(),
            _ => place(&market, "Count", 300).await,
        };
        let id = award.id();
        let begins = |heard: &Heard| match heard {
            Heard::Progress(about, News::Piece(_), _) => (*about == id).then_some(()),
            _ => None,
        };
        market.buyer.wait(begins).await;
        market.buyer.wish(&award, Wish::Stop);
        market.buyer.result(&award).await;
    }
    let last = place(&market, &["word"; 95].join(" "), 300).await;
    market.buyer.invoice(&last).await;
}

#[tokio::test]
async fn what_a_buyer_has_said_that_it_pays_is_not_asked_for_again() {
    let mut market = Market::open(DEAR, quick(), |o| {
        (o.tab.prepaid_output_tokens, o.tab.top_up) = (8, Msat(40_000));
    })
    .await;
    let most_msat = Msat(15_000);
    let (first, _) = market.award(20).await;
    let large = market.buyer.invoice(&first).await;
    assert!(large.amount() > most_msat, "{}", large.amount());
    // Said twice, as when two messages cross, it is one wish.
    market.buyer.wish(&first, Wish::Invoice { most_msat });
    market.buyer.wish(&first, Wish::Invoice { most_msat });
    let small = loop {
        let next = market.buyer.invoice(&first).await;
        if next.hash() != large.hash() {
            break next;
        }
    };
    assert_eq!(small.amount(), most_msat);
    // The tab is one: whatever runs on it is asked for in such parts.
    let (second, _) = market.award(20).await;
    pay(&market.purse, &small).await;
    let both = [first, second];
    let invoices = market.buyer.live_all(&both, &market.purse).await;
    assert!(!invoices.is_empty());
    let mut amounts = invoices.iter().map(Invoice::amount);
    assert!(amounts.all(|amount| amount <= most_msat));
}
