//! One attempt of a seller: how it waits for money, draws, and counts.

use std::sync::MutexGuard;
use std::time::Duration;

use infernet_payments::tab::Statement;
use infernet_payments::tab::provider::Input as TabInput;
use infernet_protocol::event::{Award, Signed};
use infernet_protocol::inference::EndReason;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Chain, Decline, News, Piece};
use infernet_protocol::seal::Salt;
use infernet_protocol::tab::SignedTotals;
use nostr::{EventId, Keys, PublicKey};

use super::{Books, INPUT, Seller, Way};

pub(super) struct Attempt {
    pub(super) seller: Seller,
    pub(super) award: Signed<Award>,
    pub(super) buyer: PublicKey,
    pub(super) id: EventId,
    pub(super) job: EventId,
    pub(super) salt: Salt,
    pub(super) texts: usize,
    pub(super) prefix: u32,
    pub(super) until: u32,
}

impl Attempt {
    pub(super) async fn run(self) {
        let opened = TabInput::Opened {
            award: self.id,
            price: self.award.price,
            input_tokens: INPUT + u64::from(self.prefix),
            max_output_tokens: self.award.limits.output_tokens.into(),
        };
        self.seller.step(self.buyer, opened, self.id);
        let Some(_) = self.allowance(0).await else {
            let ended = TabInput::Ended { award: self.id };
            self.seller.step(self.buyer, ended, self.id);
            let detail = "not paid in time".into();
            let reason = Decline::Terms;
            return self.say(News::Declined { reason, detail }, None);
        };
        let way = self.seller.offer.way;
        if way == Way::TakesAndStops {
            return;
        }
        if way == Way::AsksEarly {
            let amount = self.seller.offer.terms.min_top_up;
            self.seller.clone().ask(self.buyer, self.id, amount).await;
            // Read and judged before the first piece.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        self.say(News::Accepted { ahead: 0 }, self.totals());
        let drawn = self.draw().await;
        match way {
            Way::StopsAfter(_) => {}
            Way::FailsAfter(_) => self.deliver(drawn, EndReason::Failed).await,
            Way::ShowsAgainAndFails(_) => {
                let due = self.seller.books().first_due.clone().unwrap();
                // So often that it is read before the result.
                for _ in 0..10 {
                    self.say(due.clone(), None);
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                self.deliver(drawn, EndReason::Failed).await;
            }
            _ if self.is_stopped() => self.deliver(drawn, EndReason::Cancelled).await,
            _ if self.texts == 0 && self.until < self.seller.offer.tokens => {
                self.deliver(drawn, EndReason::Length).await;
            }
            _ => self.deliver(drawn, EndReason::Stop).await,
        }
    }

    fn say(&self, news: News, tab: Option<SignedTotals>) {
        self.seller.say(self.buyer, self.job, self.id, news, tab);
    }

    fn is_stopped(&self) -> bool {
        self.seller.books().stopped.contains(&self.id)
    }

    /// Waits until more than `drawn` may be drawn; nothing if it was stopped.
    async fn allowance(&self, drawn: u64) -> Option<u64> {
        loop {
            // Nobody reads an invoice that was for a job which is over.
            let tick = match self.seller.books().lapses() {
                true => TabInput::Lapsed,
                false => TabInput::Tick,
            };
            self.seller.step(self.buyer, tick, self.id);
            let changed = self.seller.changed.notified();
            let allowed = self.seller.books().allowed.get(&self.id).copied();
            let is_all = allowed == Some(self.award.limits.output_tokens.into());
            if self.is_stopped() {
                return None;
            }
            if let Some(allowed) = allowed.filter(|allowed| *allowed > drawn || is_all) {
                return Some(allowed);
            }
            if tokio::time::timeout(Duration::from_millis(200), changed)
                .await
                .is_err()
            {
                self.say(News::Alive { ahead: 0 }, None);
            }
        }
    }

    /// Draws what is allowed; answers how much that was.
    async fn draw(&self) -> u64 {
        let way = self.seller.offer.way;
        let mut chain = Chain::start(&self.id);
        let mut drawn = 0;
        for position in self.prefix..self.until {
            if let Way::StopsAfter(most) | Way::FailsAfter(most) | Way::ShowsAgainAndFails(most) =
                way
                && drawn >= most
            {
                return drawn;
            }
            if self.is_stopped() || self.allowance(drawn).await.is_none() {
                return drawn;
            }
            drawn += 1;
            let step = TabInput::Drawn {
                award: self.id,
                output_tokens: drawn,
            };
            self.seller.step(self.buyer, step, self.id);
            let text = match position + 1 == self.seller.offer.tokens {
                true => String::new(),
                false => format!("w{position} "),
            };
            let (seq, tokens) = (drawn as u32 - 1, vec![1_000 + position]);
            chain = chain.after(seq, &tokens, &text);
            let digest = chain.digest();
            let piece = News::Piece(Piece {
                seq,
                tokens,
                text,
                digest,
            });
            let event = self
                .seller
                .sealed(self.buyer, self.job, self.id, piece, self.totals());
            let _ = self.seller.link.send(&event);
            let sent = |mut books: MutexGuard<'_, Books>| {
                books.sent.entry(self.id).or_default().push(event);
            };
            sent(self.seller.books());
            let pause = match way {
                // Who fails before the buyer has booked its payment looks like one that waited for it in vain.
                Way::Slow | Way::FailsAfter(_) | Way::ShowsAgainAndFails(_) => 100,
                _ => 3,
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        drawn
    }

    /// The totals, or what the seller says instead.
    fn totals(&self) -> Option<SignedTotals> {
        let mut totals = {
            let books = self.seller.books();
            books.tabs.get(&self.buyer)?.totals(&self.id)?
        };
        let price = self.award.price;
        match self.seller.offer.way {
            Way::ClaimsMore(more) if totals.output_tokens > 0 => {
                totals.output_tokens += more;
                let due = price
                    .cost(totals.input_tokens, totals.output_tokens)
                    .unwrap();
                totals.tab_due_msat.0 += due.0 - totals.due_msat.0;
                totals.due_msat = due;
            }
            Way::ClaimsDear => totals.due_msat.0 += 1,
            Way::ChangesInput if totals.output_tokens > 2 => {
                totals.input_tokens += 1;
                totals.due_msat = price
                    .cost(totals.input_tokens, totals.output_tokens)
                    .unwrap();
            }
            Way::ForgetsPayments if !self.seller.books().charged.is_empty() => {
                totals.tab_paid_msat = Msat::ZERO;
            }
            _ => {}
        }
        let statement = Statement {
            buyer: self.buyer,
            provider: self.seller.key(),
            award: self.id,
            totals,
        };
        match self.seller.offer.way {
            Way::Forges => Some(statement.signed(&Keys::generate())),
            _ => Some(statement.signed(&self.seller.offer.keys)),
        }
    }
}
