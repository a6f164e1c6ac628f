//! Having back what is left on a tab.

use std::time::Duration;

use infernet_node::link::Link;
use infernet_node::{clock, mortality};
use infernet_payments::Invoice;
use infernet_payments::ledger::{Caps, Due, Intent, Reason, Standing};
use infernet_payments::rail::{Ask, Direction};
use infernet_protocol::event::ReceiptSide;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{News, Payload, Progress, Wish};
use infernet_protocol::seal::{Conversation, overhear};
use nostr::PublicKey;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::lease::Patience;
use super::{Attempt, Error, Purse};
use crate::control::control;
use crate::routing::{Ear, Heard, Routes};

/// How long the invoice of a refund can be paid.
pub(super) const INVOICE_EXPIRY: Duration = Duration::from_secs(600);

/// The least that is worth a payment, and that every channel carries.
const LEAST: Msat = Msat(1_000);

/// How long a provider has to answer, and how often it is asked meanwhile.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long the money may take once the provider says that it pays.
const MONEY_PATIENCE: Duration = Duration::from_secs(30);

/// How often is looked whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What came of asking for what is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Refund {
    /// It is in the wallet.
    Paid {
        /// How much.
        amount_msat: Msat,
    },
    /// There is nothing left that is worth a payment.
    Nothing {
        /// What is left, in msat; negative if we owe.
        left_msat: i64,
    },
    /// The provider has been asked, and the money has not come yet: the next command looks again.
    UnderWay {
        /// How much.
        amount_msat: Msat,
    },
    /// The provider does not pay it back.
    Refused {
        /// How much it was asked for.
        amount_msat: Msat,
        /// Why not, in its words.
        detail: String,
    },
    /// The provider does not answer.
    Unanswered {
        /// How much it was asked for.
        amount_msat: Msat,
    },
}

/// What a provider says to a wish for a refund.
enum Answer {
    Refunding,
    Refused(String),
}

impl Purse {
    /// Asks a provider for what is left on its tab, and waits for the money.
    ///
    /// # Errors
    /// [`Error::TabTaken`] while jobs run on the tab; a wallet that makes no invoice.
    pub async fn refund(&self, provider: PublicKey, routes: &Routes) -> Result<Refund, Error> {
        // An earlier refund may have come, or run out, since.
        self.look_now().await?;
        let lock = match self.asked_before(&provider).await? {
            // The tab is not opened while a refund is under way, and nothing can run on it.
            Some(intent) => return self.see_to(&provider, intent, routes).await,
            None => self.try_open_tab(provider, Patience::Tries).await?,
        };
        let Some(lease) = lock.filter(|lease| lease.with(|tab| tab.jobs()) == 0) else {
            return Err(Error::TabTaken);
        };
        let left_msat = lease.left_msat();
        let left = Msat(u64::try_from(left_msat).unwrap_or(0));
        let last = self.shared.books.attempts().last(&provider).await?;
        let Some(last) = last.filter(|_| left >= LEAST) else {
            return Ok(Refund::Nothing { left_msat });
        };
        let refund = self.ask_for(&last, left, routes).await?;
        let Refund::Refused { .. } = refund else {
            return Ok(refund);
        };
        // It may have charged a little more than we: what was on its way when a job was cut short.
        match self.by_its_own_word(&last, left).await? {
            Some(less) => match self.ask_for(&last, less, routes).await? {
                Refund::Refused { .. } => Ok(refund),
                other => Ok(other),
            },
            None => Ok(refund),
        }
    }

    /// A refund that was asked for and has neither come nor run out.
    async fn asked_before(&self, provider: &PublicKey) -> Result<Option<Intent>, Error> {
        let open = self.shared.books.ledger().open_intents().await?;
        Ok(open.into_iter().find(|intent| {
            intent.counterparty == *provider
                && (intent.direction, intent.reason) == (Direction::Incoming, Reason::Refund)
                && intent.standing == Standing::UnderWay
        }))
    }

    /// Asks for it once more: the same invoice is never paid twice.
    async fn see_to(
        &self,
        provider: &PublicKey,
        intent: Intent,
        routes: &Routes,
    ) -> Result<Refund, Error> {
        let last = self.shared.books.attempts().last(provider).await?;
        match (last, &intent.invoice) {
            (Some(last), Some(invoice)) => self.wish(&last, invoice, routes).await,
            _ => Ok(Refund::UnderWay {
                amount_msat: intent.amount,
            }),
        }
    }

    /// How much is left if the earlier jobs cost what the provider says in its own last totals, if that is less.
    async fn by_its_own_word(&self, last: &Attempt, left: Msat) -> Result<Option<Msat>, Error> {
        let ledger = self.shared.books.ledger();
        let Some(theirs) = ledger.signed(&last.award, &last.provider).await? else {
            return Ok(None);
        };
        let totals = theirs.statement.totals;
        let carried = ledger.carried(&last.provider, ReceiptSide::Buyer).await?;
        let ours = self.charged_before(last).await?.unwrap_or_default();
        let earlier = |due: Msat, of_last: Msat| due.0.saturating_sub(of_last.0);
        let more = earlier(totals.tab_due_msat, totals.due_msat)
            .saturating_sub(earlier(carried.due, ours));
        let less = left.checked_sub(Msat(more));
        Ok(less.filter(|less| *less < left && *less >= LEAST))
    }

    async fn ask_for(
        &self,
        last: &Attempt,
        amount: Msat,
        routes: &Routes,
    ) -> Result<Refund, Error> {
        let due = Due {
            reason: Reason::Refund,
            counterparty: last.provider,
            award: Some(last.award),
        };
        let ask = Ask {
            amount,
            description: format!("infernet refund, award {}", last.award),
            expiry: INVOICE_EXPIRY,
        };
        let cashier = &self.shared.cashier;
        let making = cashier.invoice(&due, &ask, Caps::default(), clock::now());
        let invoice = making.await?;
        self.wish(last, &invoice, routes).await
    }

    async fn wish(
        &self,
        last: &Attempt,
        invoice: &Invoice,
        routes: &Routes,
    ) -> Result<Refund, Error> {
        let amount_msat = invoice.amount();
        match self.answer(last, invoice, routes).await {
            None => Ok(Refund::Unanswered { amount_msat }),
            Some(Answer::Refused(detail)) => {
                // It is not paid any more, as far as it goes: the tab may be used again.
                self.give_up(invoice).await?;
                Ok(Refund::Refused {
                    amount_msat,
                    detail,
                })
            }
            Some(Answer::Refunding) => self.money(invoice).await,
        }
    }

    /// What the provider says, who is asked until it says something.
    async fn answer(&self, last: &Attempt, invoice: &Invoice, routes: &Routes) -> Option<Answer> {
        let keys = &self.shared.keys;
        let conversation = Conversation::between(keys.secret_key(), &last.provider).ok()?;
        let mut ear = Ear::new(routes);
        ear.listen(last.job);
        let until = Instant::now() + ANSWER_PATIENCE;
        while Instant::now() < until {
            let wish = Wish::Refund {
                invoice: invoice.as_str().to_owned(),
            };
            let event = control(
                keys,
                &conversation,
                last.provider,
                last.job,
                last.award,
                wish,
            )?;
            send(&self.shared.link, &event);
            mortality::point("refund-asked");
            let again = (Instant::now() + ASK_EVERY).min(until);
            if let Ok(answer) = timeout_at(again, heard(&mut ear, last, &conversation)).await {
                return Some(answer);
            }
            if self.is_settled(invoice).await {
                return Some(Answer::Refunding);
            }
        }
        None
    }

    /// Waits for the money.
    async fn money(&self, invoice: &Invoice) -> Result<Refund, Error> {
        let amount_msat = invoice.amount();
        let until = Instant::now() + MONEY_PATIENCE;
        while Instant::now() < until {
            if self.is_settled(invoice).await {
                return Ok(Refund::Paid { amount_msat });
            }
            tokio::time::sleep(LOOK_EVERY).await;
            self.shared.cashier.look(clock::now()).await?;
        }
        Ok(Refund::UnderWay { amount_msat })
    }

    pub(super) async fn is_settled(&self, invoice: &Invoice) -> bool {
        let ledger = self.shared.books.ledger();
        let intent = ledger.intent(Direction::Incoming, &invoice.hash()).await;
        matches!(intent, Ok(Some(intent)) if intent.standing == Standing::Settled)
    }

    /// Should the provider pay all the same, it is booked.
    async fn give_up(&self, invoice: &Invoice) -> Result<(), Error> {
        let ledger = self.shared.books.ledger();
        let intent = ledger.intent(Direction::Incoming, &invoice.hash()).await?;
        if let Some(intent) = intent {
            let (from, to) = (Standing::UnderWay, Standing::Failed);
            ledger
                .change_standing(&intent.key, from, to, clock::now())
                .await?;
        }
        Ok(())
    }
}

fn send(link: &Link, event: &nostr::Event) {
    if let Err(error) = link.send(event) {
        tracing::debug!(%error, "a wish was not sent");
    }
}

/// The provider's next word about a refund.
async fn heard(ear: &mut Ear, last: &Attempt, conversation: &Conversation) -> Answer {
    loop {
        let Heard::Progress { author, content } = ear.next().await else {
            continue;
        };
        if author != last.provider {
            continue;
        }
        let bytes = overhear(conversation, &content).ok();
        let progress = bytes.and_then(|bytes| Progress::from_bytes(&bytes).ok());
        match progress.map(|progress| (progress.award, progress.news)) {
            Some((award, News::Refunding)) if award == last.award => return Answer::Refunding,
            Some((award, News::RefundRefused { detail })) if award == last.award => {
                return Answer::Refused(detail);
            }
            _ => {}
        }
    }
}
