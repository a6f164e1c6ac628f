//! One buyer's tab while it has open work: the machine, and who waits for what
//! it says.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use infernet_payments::tab::provider::{Effect, Input, Tab, Terms, Why};
use infernet_payments::tab::{Carried, Totals, Unexpected};
use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::job::Millis;
use infernet_protocol::money::{Msat, Price};
use nostr::{EventId, PublicKey, Timestamp};
use tokio::sync::{mpsc, watch};

use super::seat::Word;
use crate::store::Ticket;

/// How long until an invoice that could not be made is asked for again.
const RETRY_MS: u64 = 2_000;

/// How long a job may wait for an invoice that was sent about another one, whose
/// reader may be gone.
const OTHERS_TURN_MS: u64 = 5_000;

/// How often a job that waits for money has its invoice said again: a relay may
/// have lost it.
const REPEAT_MS: u64 = 3_000;

/// How soon after one wish for another invoice a second one is the same: it was
/// sent before the new invoice was seen.
const SAME_WISH_MS: u64 = 500;

/// How often one attempt's buyer may wish for another invoice.
const MAX_RENEWALS: u32 = 8;

/// A buyer's tab.
#[derive(Debug)]
pub struct Account {
    pub buyer: PublicKey,
    book: Mutex<Book>,
}

/// What is known of it.
#[derive(Debug)]
pub struct Book {
    tab: Tab,
    /// What the ledger says was paid, as far as the tab was told.
    paid: Msat,
    jobs: HashMap<EventId, Job>,
    min_top_up: Msat,
    asked: Asked,
    /// The last invoice, and when it was said.
    said: Option<(Invoice, Millis)>,
    /// When a wish for another invoice was last heeded.
    heeded: Option<Millis>,
    /// How many jobs there were.
    opened: u64,
    /// Why it is not forgotten, though no job is open: jobs that are over and not
    /// in the ledger yet, and a seat that is being taken.
    holds: usize,
}

#[derive(Debug)]
struct Job {
    ticket: Ticket,
    words: mpsc::UnboundedSender<Word>,
    allowance: watch::Sender<Option<u64>>,
    drawn: u64,
    number: u64,
    renewals: u32,
    /// Whether an invoice was sent about it.
    was_billed: bool,
}

/// How the invoice that the tab has asked for stands.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Nothing,
    /// It is being made.
    Making,
    /// It is out.
    Out {
        award: EventId,
        hash: PaymentHash,
        amount: Msat,
        expires_at: Timestamp,
        since: Millis,
    },
    /// It could not be made: try again then.
    Later(Millis),
}

/// An invoice to be made.
#[derive(Debug)]
pub struct Bill {
    pub ticket: Ticket,
    pub amount: Msat,
    /// What the buyer has paid so far.
    pub paid: Msat,
    /// Whether nobody waits for it yet.
    pub is_ahead: bool,
}

impl Account {
    pub fn new(buyer: PublicKey, terms: Terms, carried: Carried) -> Self {
        Self {
            buyer,
            book: Mutex::new(Book {
                tab: Tab::new(terms, carried, None),
                paid: carried.paid,
                jobs: HashMap::new(),
                min_top_up: terms.min_top_up,
                asked: Asked::Nothing,
                said: None,
                heeded: None,
                opened: 0,
                holds: 0,
            }),
        }
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        // The machine changes nothing where it refuses, and nothing here panics
        // between two changes.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing was ever paid on it.
    pub fn is_strangers(&self) -> bool {
        self.book().paid == Msat::ZERO
    }

    /// Whether nothing is open, and all is in the ledger.
    pub fn is_idle(&self) -> bool {
        let book = self.book();
        book.jobs.is_empty() && book.holds == 0
    }
}

impl Book {
    /// A job comes.
    pub fn opens(
        &mut self,
        now: Millis,
        ticket: &Ticket,
        price: Price,
        max_output_tokens: u64,
        (words, allowance): (mpsc::UnboundedSender<Word>, watch::Sender<Option<u64>>),
    ) -> Result<Option<Bill>, Unexpected> {
        let award = ticket.award;
        self.opened += 1;
        let job = Job {
            ticket: ticket.clone(),
            words,
            allowance,
            drawn: 0,
            number: self.opened,
            renewals: 0,
            was_billed: false,
        };
        let known = self.jobs.insert(award, job);
        let opened = Input::Opened {
            award,
            price,
            input_tokens: ticket.input_tokens + ticket.prefix_tokens,
            max_output_tokens,
        };
        let stepped = self.step(now, opened);
        if stepped.is_err() {
            self.jobs.remove(&award);
            self.jobs.extend(known.map(|known| (award, known)));
        }
        stepped
    }

    /// A job has drawn so much in all.
    pub fn draws(&mut self, now: Millis, award: EventId, output_tokens: u64) -> Option<Bill> {
        if let Some(job) = self.jobs.get_mut(&award) {
            job.drawn = output_tokens;
        }
        self.take(
            now,
            Input::Drawn {
                award,
                output_tokens,
            },
        )
    }

    /// The buyer agrees to these totals, or not.
    pub fn acknowledges(&mut self, now: Millis, award: EventId, totals: Totals) -> Option<Bill> {
        self.take(now, Input::Acknowledged { award, totals })
    }

    /// The ledger says that so much was paid in all.
    pub fn knows(&mut self, now: Millis, paid: Msat) -> Option<Bill> {
        let amount = paid
            .checked_sub(self.paid)
            .filter(|more| *more > Msat::ZERO)?;
        self.paid = paid;
        self.asked = Asked::Nothing;
        self.take(now, Input::Paid { amount })
    }

    /// The buyer cannot pay what was asked for, or pays no more than `most` at
    /// a time.
    pub fn renews(&mut self, now: Millis, award: EventId, most: Msat) -> Option<Bill> {
        let job = self.jobs.get_mut(&award)?;
        job.renewals += 1;
        if job.renewals > MAX_RENEWALS {
            return None;
        }
        let Asked::Out { amount, .. } = self.asked else {
            // What is being made is looked at again once it is there.
            return self.take(now, Input::Bounded { most });
        };
        let is_same = self.heeded.is_some_and(|at| now < at.plus(SAME_WISH_MS));
        self.heeded = Some(now);
        if amount <= most {
            let bill = self.take(now, Input::Bounded { most });
            if is_same {
                return bill;
            }
            self.asked = Asked::Nothing;
            return self.take(now, Input::Lapsed);
        }
        if most < self.min_top_up {
            let least = self.min_top_up;
            for job in self.jobs.values().filter(|job| job.waits()) {
                job.tell(Word::Stop(format!("a top-up has at least {least} here")));
            }
            return None;
        }
        self.asked = Asked::Nothing;
        self.take(now, Input::Limited { most })
    }

    /// The invoice is out, unless the buyer has said meanwhile that it is too much.
    pub fn asks(&mut self, now: Millis, award: EventId, invoice: &Invoice) -> Option<Bill> {
        if !matches!(self.asked, Asked::Making) {
            return None;
        }
        let most = self.tab.ceiling();
        if invoice.amount() > most {
            self.asked = Asked::Nothing;
            return self.take(now, Input::Lapsed);
        }
        self.asked = Asked::Out {
            award,
            hash: invoice.hash(),
            amount: invoice.amount(),
            expires_at: invoice.expires_at(),
            since: now,
        };
        self.said = Some((invoice.clone(), now));
        if let Some(job) = self.jobs.get_mut(&award) {
            job.was_billed = true;
            job.tell(Word::Due(invoice.clone()));
        }
        None
    }

    /// The invoice could not be made: those who wait for money are told, and it is
    /// tried again after a while. What is on the tab already suffices for some,
    /// once others need it no more: as when an attempt takes an earlier one's place.
    pub fn cannot_ask(&mut self, now: Millis, why: &str) {
        if matches!(self.asked, Asked::Making) {
            self.asked = Asked::Later(now.plus(RETRY_MS));
            let jobs = self.jobs.iter();
            for (_, job) in jobs.filter(|(award, _)| !self.tab.covers(award)) {
                job.tell(Word::CannotAsk(why.to_owned()));
            }
        }
    }

    /// A payment that was asked for came to nothing.
    pub fn lapses(&mut self, now: Millis, lapsed: &PaymentHash) -> Option<Bill> {
        match self.asked {
            Asked::Out { hash, .. } if hash == *lapsed => {
                self.asked = Asked::Nothing;
                self.take(now, Input::Lapsed)
            }
            _ => None,
        }
    }

    /// Says an invoice again that somebody waits for.
    fn repeat(&mut self, now: Millis) {
        let (Asked::Out { award, hash, .. }, Some((invoice, at))) = (self.asked, &mut self.said)
        else {
            return;
        };
        let job = self.jobs.get(&award).filter(|job| job.waits());
        let Some(job) = job.filter(|_| invoice.hash() == hash && now >= at.plus(REPEAT_MS)) else {
            return;
        };
        *at = now;
        job.tell(Word::Due(invoice.clone()));
    }

    /// Time has passed.
    pub fn ticks(&mut self, now: Millis, wall: Timestamp) -> Option<Bill> {
        self.repeat(now);
        let is_over = match self.asked {
            Asked::Nothing | Asked::Making => false,
            Asked::Out {
                award,
                expires_at,
                since,
                ..
            } => {
                // Nobody reads an invoice that was for a job which is over.
                let is_unread = !self.jobs.contains_key(&award);
                let is_others_turn = now >= since.plus(OTHERS_TURN_MS)
                    && self.jobs.values().any(|job| job.waits() && !job.was_billed);
                wall >= expires_at || is_unread || is_others_turn
            }
            Asked::Later(then) => now >= then,
        };
        if is_over {
            self.asked = Asked::Nothing;
            return self.take(now, Input::Lapsed);
        }
        let is_due = self.tab.next_deadline().is_some_and(|due| now >= due);
        is_due.then(|| self.take(now, Input::Tick)).flatten()
    }

    /// The invoice that somebody waits for, if one is out.
    pub fn unpaid(&self) -> Option<PaymentHash> {
        match self.asked {
            Asked::Out { hash, .. } => Some(hash),
            _ => None,
        }
    }

    /// A job is over, and has brought something or not: what it costs. The account
    /// is held until that is in the ledger.
    pub fn ends(&mut self, now: Millis, award: EventId, has_brought: bool) -> (Msat, Option<Bill>) {
        let input = match has_brought {
            true => Input::Ended { award },
            false => Input::Dropped { award },
        };
        self.jobs.remove(&award);
        self.hold();
        let effects = self.tab.step(now, input).unwrap_or_else(|unexpected| {
            tracing::error!(%award, %unexpected, "a mistake in the till");
            vec![]
        });
        let due = effects.iter().find_map(|effect| match effect {
            Effect::Charge { amount, .. } => Some(*amount),
            _ => None,
        });
        (due.unwrap_or(Msat::ZERO), self.perform(effects))
    }

    /// Somebody needs the account to be there.
    pub const fn hold(&mut self) {
        self.holds += 1;
    }

    /// And does no more.
    pub const fn let_go(&mut self) {
        self.holds = self.holds.saturating_sub(1);
    }

    /// How the tab stands for a job.
    pub fn totals(&self, award: &EventId) -> Option<Totals> {
        self.tab.totals(award)
    }

    fn take(&mut self, now: Millis, input: Input) -> Option<Bill> {
        match self.step(now, input) {
            Ok(bill) => bill,
            Err(unexpected) => {
                tracing::debug!(%unexpected, "nothing for a tab");
                None
            }
        }
    }

    fn step(&mut self, now: Millis, input: Input) -> Result<Option<Bill>, Unexpected> {
        let effects = self.tab.step(now, input)?;
        Ok(self.perform(effects))
    }

    fn perform(&mut self, effects: Vec<Effect>) -> Option<Bill> {
        let mut bill = None;
        for effect in effects {
            match effect {
                Effect::Allow {
                    award,
                    output_tokens,
                } => {
                    if let Some(job) = self.jobs.get(&award) {
                        job.allowance.send_replace(Some(output_tokens));
                    }
                }
                Effect::Stop { award, why } => {
                    if let Some(job) = self.jobs.get(&award) {
                        job.tell(Word::Stop(self.words(why)));
                    }
                }
                Effect::Ask { amount } => bill = self.bill(amount),
                // Charged by who ends it; refunds are paid while nothing is open.
                Effect::Charge { .. } | Effect::Refund { .. } | Effect::RefuseRefund => {}
            }
        }
        bill
    }

    /// Why a job is stopped, in words for its buyer.
    fn words(&self, why: Why) -> String {
        match (why, self.asked) {
            (Why::Unpaid, Asked::Making | Asked::Later(_)) => {
                "the provider's wallet made no invoice in time".to_owned()
            }
            (Why::Unpaid, _) => "nobody paid in time".to_owned(),
            (Why::Silent, _) => "the buyer acknowledged nothing in time".to_owned(),
            (Why::Disagreement(about), _) => format!("the buyer does not agree: {about}"),
        }
    }

    /// Asks about a job that waits, the oldest first, each once before any twice.
    fn bill(&mut self, amount: Msat) -> Option<Bill> {
        let turn = |job: &&Job| (!job.waits(), job.was_billed, job.number);
        let job = self.jobs.values().min_by_key(turn)?;
        self.asked = Asked::Making;
        Some(Bill {
            ticket: job.ticket.clone(),
            amount,
            paid: self.paid,
            is_ahead: !job.waits(),
        })
    }
}

impl Job {
    /// Whether it cannot go on.
    fn waits(&self) -> bool {
        let allowed = *self.allowance.borrow();
        allowed.is_none_or(|allowed| self.drawn >= allowed)
    }

    /// Tells its seat; one that was left a moment ago needs nothing.
    fn tell(&self, word: Word) {
        let _ = self.words.send(word);
    }
}
