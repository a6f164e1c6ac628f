//! A buyer that pays, and a provider that is paid.

use std::sync::Arc;

use infernet_engine::Script;
use infernet_payments::rail::{Direction, Order, OrderKey, PaymentRail};
use infernet_payments::tab::{Statement, Totals};
use infernet_payments::test_rail::{Network, Wallet};
use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::event::{Announcement, Award, JobResult, Receipt, ReceiptSide, Signed};
use infernet_protocol::money::{Msat, PaymentKind, PaymentTerms, Price};
use infernet_protocol::payload::{News, Wish, Work, invoice_description};
use infernet_protocol::seal::{Domain, Salt, salted_hash};
use infernet_protocol::tab::SignedTotals;
use infernet_provider::Options;
use nostr::EventId;

use super::buyer::{Buyer, Draft, Heard, generate};
use super::house::{Provider, Relay, play_money};

/// A tenth of a satoshi for a token of output, a hundredth for one of input.
pub const PRICE: Price = Price {
    input_msat: 10_000_000,
    output_msat: 100_000_000,
};

/// A whole satoshi for a token: an answer is several top-ups.
pub const DEAR: Price = Price {
    input_msat: 10_000_000,
    output_msat: 1_000_000_000,
};

/// A market in which work costs money.
pub struct Market {
    pub relay: Relay,
    pub network: Network,
    /// The provider's wallet.
    pub till: Wallet,
    /// The buyers' wallet.
    pub purse: Wallet,
    pub provider: Provider,
    pub buyer: Buyer,
    pub word: Signed<Announcement>,
}

impl Market {
    pub async fn open(price: Price, script: Script, change: impl FnOnce(&mut Options)) -> Self {
        let relay = Relay::start().await;
        let (network, till, purse) = play_money();
        let wallet = till.clone();
        let provider = Provider::start(&[&relay], script, |options| {
            options.price = price;
            options.wallet = Some(Arc::new(wallet));
            change(options);
        })
        .await;
        let mut buyer = Buyer::connect(&[&relay]).await;
        let word = buyer.online(provider.handle.public_key()).await;
        Self {
            relay,
            network,
            till,
            purse,
            provider,
            buyer,
            word,
        }
    }

    /// An award of so many tokens, and the salt of its input.
    pub async fn award(&self, max_tokens: u32) -> (Signed<Award>, Salt) {
        let draft = paid(
            &self.buyer,
            &self.word,
            generate("Count for me", max_tokens),
        );
        let salt = draft.input.salt;
        (self.buyer.place(draft).await, salt)
    }

    /// What the provider's books say.
    pub async fn earned(&self) -> infernet_provider::money::Earnings {
        earned(self.provider.home.path()).await
    }

    /// What a buyer has left on its tab, in msat.
    pub async fn left(&self, buyer: &Buyer) -> i64 {
        let tabs = self.earned().await.tabs;
        let tab = tabs.iter().find(|tab| tab.buyer == buyer.keys.public_key);
        tab.map_or(0, |tab| tab.left_msat)
    }
}

pub async fn earned(home: &std::path::Path) -> infernet_provider::money::Earnings {
    let beginning = nostr::Timestamp::from_secs(0);
    infernet_provider::money::earnings(home, beginning)
        .await
        .unwrap()
}

/// A draft that is paid by the tab.
pub fn paid(buyer: &Buyer, word: &Signed<Announcement>, work: Work) -> Draft {
    let mut draft = buyer.draft(word, work);
    draft.body.terms = PaymentKind::Tab;
    draft.body.budget_msat = Msat(10_000_000);
    draft
}

/// Pays an invoice, at once.
pub async fn pay(purse: &Wallet, invoice: &Invoice) {
    let order = Order {
        key: OrderKey::random(),
        invoice: invoice.clone(),
        max_fee: Msat(1_000),
    };
    purse.pay(&order).await.unwrap();
}

/// What a buyer lived through.
pub struct Lived {
    pub result: Signed<JobResult>,
    pub invoices: Vec<Invoice>,
    /// What the provider signed with each piece.
    pub claims: Vec<Totals>,
}

impl Buyer {
    /// The next invoice for an award, checked.
    pub async fn invoice(&mut self, award: &Signed<Award>) -> Invoice {
        let id = award.id();
        let text = self
            .wait(|heard| match heard {
                Heard::Progress(about, News::Due { invoice }, _) if *about == id => invoice.clone(),
                Heard::Progress(about, News::Declined { reason, detail }, _) if *about == id => {
                    panic!("declined: {reason:?} ({detail})")
                }
                Heard::Progress(about, News::Accepted { .. }, _) if *about == id => {
                    panic!("accepted without an invoice")
                }
                _ => None,
            })
            .await;
        checked(award, &text)
    }

    pub fn acknowledge(&self, award: &Signed<Award>, totals: Totals) {
        let tab = statement(award, totals).signed(&self.keys);
        self.wish(award, Wish::Acknowledge { tab });
    }

    /// Pays, acknowledges and waits, as an honest buyer does.
    pub async fn live(&mut self, award: &Signed<Award>, purse: &Wallet) -> Lived {
        self.live_until(award, purse, |_| false)
            .await
            .expect("there is a result")
    }

    /// The same, until something happens.
    pub async fn live_until(
        &mut self,
        award: &Signed<Award>,
        purse: &Wallet,
        stops: impl Fn(&News) -> bool,
    ) -> Option<Lived> {
        let (mut invoices, mut claims) = (vec![], vec![]);
        let id = award.id();
        loop {
            let heard = self
                .wait(|heard| match heard {
                    Heard::Progress(about, news, tab) if *about == id => {
                        Some(Ok((news.clone(), *tab)))
                    }
                    Heard::Result(result) if result.award == id => Some(Err((**result).clone())),
                    _ => None,
                })
                .await;
            match heard {
                Err(result) => {
                    return Some(Lived {
                        result,
                        invoices,
                        claims,
                    });
                }
                Ok((news, tab)) => {
                    let totals = tab.map(|tab| verified(award, &tab));
                    match &news {
                        News::Due { invoice } => {
                            let invoice = checked(award, invoice.as_ref().unwrap());
                            pay(purse, &invoice).await;
                            invoices.push(invoice);
                        }
                        News::Piece(_) => {
                            let totals = totals.expect("each piece says what it costs");
                            self.acknowledge(award, totals);
                            claims.push(totals);
                        }
                        News::Declined { reason, detail } => {
                            panic!("declined: {reason:?} ({detail})")
                        }
                        _ => {}
                    }
                    if stops(&news) {
                        return None;
                    }
                }
            }
        }
    }

    /// The same with several awards on one tab, whichever of them is asked for: a buyer who paid for one alone could
    /// wait for ever. Answers what was paid.
    pub async fn live_all(&mut self, awards: &[Signed<Award>], purse: &Wallet) -> Vec<Invoice> {
        let (mut paid, mut results) = (Vec::<Invoice>::new(), 0);
        while results < awards.len() {
            let heard = self.wait(|heard| match heard {
                Heard::Progress(about, news, tab) => Some((*about, Some((news.clone(), *tab)))),
                Heard::Result(result) => Some((result.award, None)),
                _ => None,
            });
            let (about, said) = heard.await;
            let award = awards.iter().find(|award| award.id() == about).unwrap();
            match said {
                Some((News::Due { invoice }, _)) => {
                    let invoice = checked(award, &invoice.unwrap());
                    pay(purse, &invoice).await;
                    // It may be said again.
                    if paid.iter().all(|one| one.hash() != invoice.hash()) {
                        paid.push(invoice);
                    }
                }
                Some((News::Declined { reason, detail }, _)) => {
                    panic!("declined: {reason:?} ({detail})")
                }
                Some((News::Piece(_), tab)) => {
                    let totals = verified(award, &tab.expect("each piece says what it costs"));
                    self.acknowledge(award, totals);
                }
                Some(_) => {}
                None => results += 1,
            }
        }
        paid
    }

    /// The provider's receipt over an award.
    pub async fn receipt(&mut self, award: EventId) -> Signed<Receipt> {
        self.wait(|heard| match heard {
            Heard::Receipt(receipt) if receipt.award == award => Some(receipt.clone()),
            _ => None,
        })
        .await
    }
}

fn statement(award: &Signed<Award>, totals: Totals) -> Statement {
    Statement {
        buyer: award.author(),
        provider: award.provider,
        award: award.id(),
        totals,
    }
}

/// The provider's totals, if it has signed them.
pub fn verified(award: &Signed<Award>, tab: &SignedTotals) -> Totals {
    statement(award, tab.totals)
        .verify(&award.provider, &tab.signature)
        .unwrap();
    tab.totals
}

/// An invoice as it has to be.
pub fn checked(award: &Signed<Award>, text: &str) -> Invoice {
    let invoice: Invoice = text.parse().unwrap();
    let description = invoice_description(&award.id());
    assert_eq!(invoice.description(), Some(description));
    assert!(!invoice.is_expired(infernet_node::clock::now()));
    invoice
}

/// The tab's conditions in an announcement.
pub fn conditions(word: &Signed<Announcement>) -> PaymentTerms {
    let is_tab = |terms: &&PaymentTerms| terms.kind() == PaymentKind::Tab;
    *word.terms.iter().find(is_tab).unwrap()
}

/// What a receipt has to say of an award and its payments.
pub fn check_receipt(
    receipt: &Signed<Receipt>,
    award: &Signed<Award>,
    salt: &Salt,
    due: Msat,
    payments: &[Invoice],
) {
    assert_eq!(receipt.author(), award.provider);
    assert_eq!(
        (receipt.job, receipt.attempt),
        (award.job_id(), award.attempt)
    );
    assert_eq!(receipt.side, ReceiptSide::Provider);
    assert_eq!(receipt.counterparty, award.author());
    assert_eq!(receipt.due_msat, due);
    let usage = receipt.usage;
    let read = usage.input_tokens + usage.prefix_tokens;
    if due > Msat::ZERO {
        assert_eq!(award.price.cost(read, usage.output_tokens), Some(due));
    }
    let paid: u64 = payments.iter().map(|invoice| invoice.amount().0).sum();
    assert_eq!(receipt.paid_msat, Msat(paid));
    let hash = |hash: PaymentHash| {
        let about = award.id();
        salted_hash(
            Domain::Payment,
            salt,
            &about,
            &award.provider,
            hash.as_bytes(),
        )
    };
    let hashes: Vec<_> = payments
        .iter()
        .map(|invoice| hash(invoice.hash()))
        .collect();
    assert_eq!(receipt.payments, hashes);
}

/// Whether a wallet has been paid an invoice.
pub async fn is_paid(wallet: &Wallet, invoice: &Invoice) -> bool {
    let found = wallet.look_up(Direction::Incoming, &invoice.hash()).await;
    found.unwrap().is_some_and(|payment| {
        matches!(
            payment.state,
            infernet_payments::rail::State::Settled { .. }
        )
    })
}
