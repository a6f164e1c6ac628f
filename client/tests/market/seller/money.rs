//! What a seller does about money: its tabs, its invoices, what it pays back.

use std::time::Duration;

use infernet_node::clock;
use infernet_payments::Invoice;
use infernet_payments::rail::{Ask, Direction, Notice, Order, OrderKey, PaymentRail, State};
use infernet_payments::tab::provider::{Effect, Input as TabInput, Tab};
use infernet_protocol::event::{Award, Signed};
use infernet_protocol::job::Millis;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{News, invoice_description};
use nostr::{EventId, PublicKey};

use super::{Seller, Way};

impl Seller {
    /// Hears what arrives in the wallet.
    pub(super) async fn watch(self) {
        let mut notices = self.wallet.subscribe();
        while let Some(notice) = notices.next().await {
            let Notice::Changed(payment) = notice else {
                continue;
            };
            let is_settled = matches!(payment.state, State::Settled { .. });
            let asked = self.books().asked.get(&payment.hash).copied();
            let (true, Some((buyer, award))) = (is_settled, asked) else {
                continue;
            };
            if payment.direction != Direction::Incoming {
                continue;
            }
            let amount = payment.amount;
            {
                let mut books = self.books();
                books.asked.remove(&payment.hash);
                books.out = None;
                books.paid.push(amount);
                let paid_for = books.paid_for.entry(award).or_default();
                paid_for.push((payment.hash, amount));
                books.carried.entry(buyer).or_default().paid.0 += amount.0;
            }
            self.step(buyer, TabInput::Paid { amount }, award);
        }
    }

    pub(super) async fn refund(self, buyer: PublicKey, job: EventId, award: EventId, text: String) {
        let first = self
            .books()
            .first_refund
            .get_or_insert_with(|| text.clone())
            .clone();
        if self.offer.way == Way::MissesRefund && first == text {
            return;
        }
        self.books().refunded_about = Some(award);
        let invoice: Invoice = text.parse().unwrap();
        let known = self.books().refunds.get(&text).copied();
        let pays = known.unwrap_or_else(|| {
            let amount = invoice.amount();
            let effects = self.try_step(buyer, TabInput::RefundAsked { amount });
            let refunds = effects.iter().any(|e| matches!(e, Effect::Refund { .. }));
            refunds && self.offer.way != Way::KeepsAll
        });
        let news = match pays {
            true => News::Refunding,
            false => News::RefundRefused {
                detail: "that is not left".into(),
            },
        };
        self.say(buyer, job, award, news, None);
        if self.books().refunds.insert(text, pays).is_none() && pays {
            let amount = invoice.amount();
            self.books().carried.entry(buyer).or_default().paid.0 -= amount.0;
            let order = Order {
                key: OrderKey::random(),
                invoice,
                max_fee: Msat(1_000),
            };
            self.wallet.pay(&order).await.unwrap();
        }
    }

    fn try_step(&self, buyer: PublicKey, input: TabInput) -> Vec<Effect> {
        let mut books = self.books();
        let carried = books.carried.get(&buyer).copied().unwrap_or_default();
        let terms = self.offer.terms;
        let tab = books.tabs.entry(buyer);
        let tab = tab.or_insert_with(|| Tab::new(terms, carried, None));
        // Late words about what is over are nothing to it.
        tab.step(Millis(clock::unix_ms()), input)
            .unwrap_or_default()
    }

    pub(super) fn step(&self, buyer: PublicKey, input: TabInput, about: EventId) {
        let effects = self.try_step(buyer, input);
        if effects.is_empty() {
            return;
        }
        for effect in effects {
            match effect {
                Effect::Allow {
                    award,
                    output_tokens,
                } => {
                    self.books().allowed.insert(award, output_tokens);
                }
                Effect::Ask { amount } => {
                    let award = self.neediest(about);
                    tokio::spawn(self.clone().ask(buyer, award, amount));
                }
                Effect::Stop { award, .. } => {
                    self.books().stopped.insert(award);
                }
                Effect::Charge { award, amount } => {
                    let mut books = self.books();
                    books.charged.insert(award, amount);
                    books.carried.entry(buyer).or_default().due.0 += amount.0;
                }
                Effect::Refund { .. } | Effect::RefuseRefund => {}
            }
        }
        self.changed.notify_waiters();
    }

    /// This award, or another one if it is over: nobody reads what is about it.
    fn neediest(&self, about: EventId) -> EventId {
        let books = self.books();
        let runs = |award: &&Signed<Award>| !books.charged.contains_key(&award.id());
        let mut running = books.awards.iter().filter(runs).map(Signed::id);
        match books.charged.contains_key(&about) {
            true => running.next().unwrap_or(about),
            false => about,
        }
    }

    pub(super) async fn ask(self, buyer: PublicKey, award: EventId, amount: Msat) {
        let is_first = {
            let books = self.books();
            books.wished.is_empty() && books.paid.is_empty()
        };
        let way = self.offer.way;
        let ask = Ask {
            amount: match way {
                Way::AsksFor(much) if is_first => much,
                Way::GrowsGreedy(much) if !is_first => much,
                _ => amount,
            },
            description: match way {
                Way::AnotherAward => invoice_description(&EventId::all_zeros()),
                _ => invoice_description(&award),
            },
            expiry: match way {
                Way::RunOut if is_first => Duration::ZERO,
                _ => Duration::from_secs(600),
            },
        };
        let wallet = match way {
            Way::AnotherNode => &self.other,
            _ => &self.wallet,
        };
        if way == Way::NeverAsks {
            return;
        }
        let Ok(invoice) = wallet.make_invoice(&ask).await else {
            return;
        };
        self.books().asked.insert(invoice.hash(), (buyer, award));
        self.books().out = Some(award);
        let job = self.job_of(&award);
        let due = News::Due {
            invoice: Some(invoice.as_str().to_owned()),
        };
        self.books().first_due.get_or_insert_with(|| due.clone());
        self.say(buyer, job, award, due.clone(), None);
        if way == Way::AsksTwice {
            self.say(buyer, job, award, due, None);
        }
    }
}
