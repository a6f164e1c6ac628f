//! A job that is paid: what its driver tells the provider's tab, and what the tab answers.

mod settling;
mod top_ups;
mod totals;

use infernet_node::clock;
use infernet_payments::tab::Totals;
use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::event::{Award, Experience, Signed};
use infernet_protocol::inference::TokenId;
use infernet_protocol::job::buyer::{Account, Input};
use infernet_protocol::payload::Wish;
use infernet_protocol::seal::Salt;
use nostr::EventId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Driver, Heard, Report as AnyReport};
use crate::Error;
use crate::answer::Step;
use crate::market::Word;
use crate::purse::{self, Attempt, Flaw, Lease, Moved, Opened, Told};

/// What is said of a payment that has neither arrived nor failed.
const UNDER_WAY: &str = "it is still under way; once it arrives it is on the tab";

/// What is said of an invoice that was not paid because too much is ahead already.
const HELD_BACK: &str = "more is paid ahead than has come; raise risk_sats in client.toml";

/// What is said of an invoice that our wallet has not looked at.
const UNCHECKED: &str = "your wallet does not answer; see that it runs";

/// What a task brings back about money.
pub(super) enum Report {
    /// A tab is open, or cannot be opened.
    Opened {
        word: Box<Word>,
        prefix: Vec<TokenId>,
        lease: Result<Lease, purse::Error>,
    },
    /// Another process keeps the tab with a provider of this name.
    Taken(String),
    /// Whether an invoice is for money on our chain.
    Checked {
        award: EventId,
        invoice: Box<Invoice>,
        checked: Result<(), Flaw>,
    },
    /// A new invoice may be paid now.
    Anew(EventId),
    /// An invoice has waited for more to come for a while.
    StillWaits(EventId, PaymentHash),
    /// An attempt cannot be written down: it is not awarded.
    Unwritten(purse::Error),
    /// An attempt is charged.
    Charged {
        name: String,
        award: EventId,
        moved: Moved,
        left_msat: i64,
    },
}

/// What a job knows of its money.
pub(super) struct Money {
    pub told: mpsc::UnboundedReceiver<(EventId, Told)>,
    teller: mpsc::UnboundedSender<(EventId, Told)>,
    /// What all attempts that are over have moved.
    pub moved: Moved,
    /// What is left on the last tab.
    pub left_msat: Option<i64>,
    /// Attempts that are being charged.
    closing: usize,
    /// Why the provider is not paid what it waits for.
    trouble: Option<String>,
    /// Whether the job ends for that reason.
    is_halted: bool,
}

impl Money {
    pub fn new() -> Self {
        let (teller, told) = mpsc::unbounded_channel();
        Self {
            told,
            teller,
            moved: Moved::default(),
            left_msat: None,
            closing: 0,
            trouble: None,
            is_halted: false,
        }
    }
}

/// The place of the current attempt on its provider's tab.
pub(super) struct Bill {
    lease: Lease,
    /// Tokens that it goes on behind.
    prefix: u64,
    /// Output that has come.
    counted: u64,
    /// Input, the prefix counted in, as the provider has claimed it.
    input: u64,
    /// What is to be signed and sent next.
    agreed: Option<Totals>,
    acknowledged_at: Option<Instant>,
    /// How often a new invoice was asked for.
    asked_anew: u32,
    /// Whether an invoice is not paid that the provider waits for.
    owes: bool,
    /// Whether our wallet is still asked about an invoice, and nothing is paid meanwhile.
    checks: bool,
    /// The invoice that waits for more to come, while we look after it.
    waits: Option<PaymentHash>,
}

impl Bill {
    /// Why the provider has not what it waits for.
    const fn delay(&self) -> &'static str {
        match self.waits {
            Some(_) => HELD_BACK,
            None if self.checks && !self.owes => UNCHECKED,
            None => UNDER_WAY,
        }
    }

    /// Writes the attempt down.
    pub fn written(
        &self,
        award: &EventId,
    ) -> impl Future<Output = Result<(), purse::Error>> + use<> {
        self.lease.written(award)
    }
}

impl Driver {
    /// Opens the provider's tab, and comes back.
    pub(super) fn open_tab(&mut self, word: Word, prefix: Vec<TokenId>) -> Option<Input> {
        let Some(purse) = self.shared().purse.clone() else {
            return Some(self.misplaced(&word, "there is no wallet to pay with"));
        };
        let (reporter, stop) = (self.reporter.clone(), self.stop.clone());
        self.shared().tasks.spawn(async move {
            let (teller, name) = (reporter.clone(), word.name.clone());
            let taken = move || {
                let _ = teller.send(AnyReport::Money(Report::Taken(name)));
            };
            tokio::select! {
                lease = purse.open_tab(word.provider, taken) => {
                    let word = Box::new(word);
                    let opened = Report::Opened { word, prefix, lease };
                    // A lease that nobody takes is given back.
                    let _ = reporter.send(AnyReport::Money(opened));
                }
                () = stop.cancelled() => {}
                () = reporter.closed() => {}
            }
        });
        None
    }

    /// Puts an award on its provider's tab.
    pub(super) fn bill(
        &self,
        lease: Lease,
        word: &Word,
        award: &Signed<Award>,
        salt: Salt,
        prefix: usize,
    ) -> Bill {
        let prefix = prefix as u64;
        let attempt = Attempt {
            award: award.id(),
            job: award.job_id(),
            number: award.attempt,
            provider: word.provider,
            name: word.name.clone(),
            price: award.price,
            prefix_tokens: prefix,
            salt,
            opened_at: clock::now(),
        };
        let opened = Opened {
            attempt,
            max_input_tokens: award.limits.input_tokens.into(),
            max_output_tokens: award.limits.output_tokens.into(),
            budget: award.budget_msat,
        };
        lease.begin(opened, self.money.teller.clone());
        Bill {
            lease,
            prefix,
            counted: 0,
            input: 0,
            agreed: None,
            acknowledged_at: None,
            asked_anew: 0,
            owes: false,
            checks: false,
            waits: None,
        }
    }

    pub(super) fn about_money(&mut self, report: Report) -> Option<Input> {
        match report {
            Report::Opened {
                word,
                prefix,
                lease,
            } => match lease {
                Ok(lease) => self.place_on(*word, prefix, Some(lease)),
                Err(error) => Some(self.misplaced(&word, &error.to_string())),
            },
            Report::Taken(name) => {
                self.tell(Step::TabTaken { name });
                None
            }
            Report::Checked {
                award,
                invoice,
                checked,
            } => self.checked(award, *invoice, checked),
            Report::Anew(award) => {
                let most_msat = self.shared().purse.as_ref()?.limits().risk;
                self.whisper(award, Wish::Invoice { most_msat })
            }
            Report::Unwritten(error) => self.halt(&error.to_string()),
            Report::StillWaits(award, invoice) => self.still_waits(award, &invoice),
            Report::Charged {
                name,
                award,
                moved,
                left_msat,
            } => {
                self.money.closing = self.money.closing.saturating_sub(1);
                self.money.moved.paid.0 = self.money.moved.paid.0.saturating_add(moved.paid.0);
                self.money.left_msat = Some(left_msat);
                self.tell(Step::Charged {
                    name,
                    award,
                    amount: moved.charged,
                    paid: moved.paid,
                    left_msat,
                });
                None
            }
        }
    }

    /// The bill of an attempt, if it is the current one and not over.
    fn bill_of(&mut self, award: EventId) -> Option<&mut Bill> {
        let current = self.current.as_mut()?;
        let is_current = current.award.id() == award;
        current.bill.as_mut().filter(|_| is_current)
    }

    /// Ends the job: it cannot be paid, and that is no provider's fault.
    fn halt(&mut self, why: &str) -> Option<Input> {
        self.money.trouble = Some(why.to_owned());
        self.money.is_halted = true;
        Some(Input::Stop)
    }

    /// A provider declines. Where our money does not go out, the next one would wait for it too; where it is on its
    /// way, that may be this provider's doing.
    pub(super) fn declined(&mut self, input: Input) -> Option<Input> {
        let bill = self.current.as_ref()?.bill.as_ref();
        match (bill, self.money.trouble.clone()) {
            (Some(_), Some(why)) => self.halt(&why),
            (Some(bill), None) if bill.owes || bill.checks => {
                self.money.trouble = Some(bill.delay().into());
                Some(input)
            }
            (Some(_) | None, _) => Some(input),
        }
    }

    /// A provider has broken off, after it waited in vain for money of ours: as with one that declines.
    fn broken_off(&mut self) -> Option<Input> {
        match self.money.trouble.clone() {
            Some(why) => self.halt(&why),
            None => {
                let bill = self.current.as_ref()?.bill.as_ref();
                let why = bill.map_or(UNDER_WAY, Bill::delay);
                self.money.trouble = Some(why.into());
                self.leave("broke off, and waits for a payment of yours")
            }
        }
    }

    /// Notes that the deadline has come over money of ours.
    pub(super) fn note_delay(&mut self) {
        let current = self.current.as_ref().filter(|current| !current.is_spared);
        let bill = current.and_then(|current| current.bill.as_ref());
        if let Some(bill) = bill.filter(|bill| bill.owes || bill.checks) {
            let why = bill.delay();
            self.money.trouble.get_or_insert_with(|| why.into());
        }
    }

    /// Why the job ended without an answer, if it was for want of our money.
    pub(super) fn money_trouble(&self) -> Option<Error> {
        let why = self.money.trouble.as_ref()?;
        let was_stopped = self.stop.is_cancelled() && !self.money.is_halted;
        (!was_stopped).then(|| Error::Unpaid(why.clone()))
    }

    /// Whether what is said of an attempt would blame its provider for what was ours: we have left it, or our money
    /// did not come in time.
    pub(super) fn is_blameless(&self, account: &Account) -> bool {
        let current = self.current.as_ref();
        if current.is_some_and(|current| current.is_spared) {
            return true;
        }
        let bill = current.and_then(|current| current.bill.as_ref());
        let owes = bill.is_some_and(|bill| (bill.owes || bill.checks) && bill.counted == 0);
        owes && account.experience == Experience::Silent && self.now() >= self.plan.deadline
    }
}
