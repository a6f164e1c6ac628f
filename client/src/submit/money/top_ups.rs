//! Invoices of the provider's: which are paid, and what is done about those that are not.

use std::time::Duration;

use infernet_node::{clock, mortality};
use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::job::buyer::Input;
use infernet_protocol::money::{Msat, PaymentTerms};
use infernet_protocol::payload::Wish;
use nostr::EventId;

use super::{AnyReport, Driver, Report};
use crate::answer::Step;
use crate::purse::{self, Flaw, Told, Trouble, Verdict};

/// How often a new invoice is asked for in one attempt.
const MAX_ANEW: u32 = 3;

/// How long to wait before asking for a new invoice when a payment has failed.
const ANEW_AFTER: Duration = Duration::from_secs(1);

/// How long an invoice may wait for more to come before one is asked for that fits.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);

/// Why a provider is left that wants too much at a time.
const OVER_RISK: &str = "asks for more ahead than you risk (risk_sats in client.toml)";

impl Driver {
    /// The provider asks for a top-up.
    pub(in crate::submit) fn due(&mut self, invoice: &str) -> Option<Input> {
        mortality::point("invoice-heard");
        let current = self.current.as_ref()?;
        current.bill.as_ref()?;
        let award = current.award.id();
        match purse::read_invoice(invoice, &award, &current.word.terms, clock::now()) {
            Ok(invoice) => {
                self.bill_of(award)?.checks = true;
                self.check_chain(award, invoice)
            }
            Err(flaw) => self.flawed(award, &flaw),
        }
    }

    fn check_chain(&self, award: EventId, invoice: Invoice) -> Option<Input> {
        let (purse, reporter) = (self.shared().purse.clone()?, self.reporter.clone());
        self.shared().tasks.spawn(async move {
            let checked = purse.is_payable_here(&invoice).await;
            let invoice = Box::new(invoice);
            let checked = Report::Checked {
                award,
                invoice,
                checked,
            };
            // The job may be over.
            let _ = reporter.send(AnyReport::Money(checked));
        });
        None
    }

    pub(super) fn checked(
        &mut self,
        award: EventId,
        invoice: Invoice,
        checked: Result<(), Flaw>,
    ) -> Option<Input> {
        self.bill_of(award)?.checks = false;
        if let Err(flaw) = checked {
            return self.flawed(award, &flaw);
        }
        let least = self.least();
        let bill = self.bill_of(award)?;
        let hash = invoice.hash();
        match bill.lease.invoice(award, invoice) {
            Verdict::Paid => {
                bill.owes = true;
                None
            }
            Verdict::Never { most } if most >= least && most > Msat::ZERO => {
                self.too_much(award, most)
            }
            // Where enough is left on the tab the provider begins, and asks for more at once.
            Verdict::Waits | Verdict::Never { .. } => {
                bill.owes = true;
                match bill.waits.replace(hash) {
                    // However often it is shown, it is looked after once.
                    Some(before) if before == hash => None,
                    _ => self.wait_for_room(award, hash),
                }
            }
            Verdict::Needless => None,
            Verdict::TooLarge { most } => self.too_much(award, most),
        }
    }

    /// Comes back when more should have come for what is paid.
    fn wait_for_room(&self, award: EventId, invoice: PaymentHash) -> Option<Input> {
        let reporter = self.reporter.clone();
        self.shared().tasks.spawn(async move {
            tokio::time::sleep(ROOM_PATIENCE).await;
            // The job may be over.
            let _ = reporter.send(AnyReport::Money(Report::StillWaits(award, invoice)));
        });
        None
    }

    /// What is paid may be too little for anything to go on with: asks for an invoice that fits beside it.
    pub(super) fn still_waits(&mut self, award: EventId, invoice: &PaymentHash) -> Option<Input> {
        let (least, accepted) = (self.least(), self.current.as_ref()?.accepted);
        let bill = self.bill_of(award)?;
        match bill.lease.room_before(invoice) {
            Some(most_msat) if most_msat < least || most_msat == Msat::ZERO => {
                match accepted || bill.lease.makes_room() {
                    true => self.wait_for_room(award, *invoice),
                    false => self.leave(OVER_RISK),
                }
            }
            room => {
                bill.waits = bill.waits.filter(|waits| waits != invoice);
                let most_msat = room?;
                self.whisper(award, Wish::Invoice { most_msat })
            }
        }
    }

    /// The smallest top-up that the provider takes.
    fn least(&self) -> Msat {
        match self.current.as_ref().map(|current| current.word.terms) {
            Some(PaymentTerms::Tab {
                min_payment_msat, ..
            }) => min_payment_msat,
            Some(PaymentTerms::Free | PaymentTerms::Escrow) | None => Msat::ZERO,
        }
    }

    /// The invoice is for more than we would pay ahead: for less, if the provider asks for so little.
    fn too_much(&mut self, award: EventId, most: Msat) -> Option<Input> {
        let (least, accepted) = (self.least(), self.current.as_ref()?.accepted);
        let risk = self.shared().purse.as_ref()?.limits().risk;
        let bill = self.bill_of(award)?;
        let most = match most < least && (accepted || bill.lease.makes_room()) {
            // It waits until more has come.
            true => risk,
            false => most,
        };
        let is_hopeless = most < least || most == Msat::ZERO;
        if !is_hopeless && bill.asked_anew < MAX_ANEW {
            bill.asked_anew += 1;
            return self.whisper(award, Wish::Invoice { most_msat: most });
        }
        self.leave(OVER_RISK)
    }

    fn flawed(&mut self, award: EventId, flaw: &Flaw) -> Option<Input> {
        let most_msat = self.shared().purse.as_ref()?.limits().risk;
        let bill = self.bill_of(award)?;
        match flaw {
            Flaw::Broken(why) => self.overcharged(why),
            Flaw::Chain { .. } => self.leave(&flaw.to_string()),
            Flaw::Expired if bill.asked_anew < MAX_ANEW => {
                bill.asked_anew += 1;
                self.whisper(award, Wish::Invoice { most_msat })
            }
            Flaw::Expired => self.leave(&flaw.to_string()),
        }
    }

    /// Takes the work to somebody else, without blame.
    pub(super) fn leave(&mut self, why: &str) -> Option<Input> {
        let current = self.current.as_mut()?;
        current.is_spared = true;
        let (award, accepted) = (current.award.id(), current.accepted);
        let (name, provider) = (current.word.name.clone(), current.word.provider);
        let how = why.to_owned();
        self.tell(Step::Failed {
            name,
            provider,
            blame: None,
            how,
        });
        self.whisper(award, Wish::Stop);
        Some(match accepted {
            true => Input::GivenUp { award },
            false => Input::AwardFailed,
        })
    }

    /// How a payment of ours went.
    pub(in crate::submit) fn told(&mut self, award: EventId, told: Told) -> Option<Input> {
        let name = self.current.as_ref()?.word.name.clone();
        let bill = self.bill_of(award)?;
        match told {
            Told::Paid {
                amount,
                fee,
                left_msat,
            } => {
                bill.owes = false;
                self.money.trouble = None;
                self.tell(Step::Paid {
                    name,
                    amount,
                    fee,
                    left_msat,
                });
                None
            }
            Told::Unpaid(Trouble { why, is_temporary }) => {
                bill.owes = true;
                bill.asked_anew += 1;
                let is_last = !is_temporary || bill.asked_anew > MAX_ANEW;
                if is_last {
                    return self.halt(&why);
                }
                self.money.trouble = Some(why.clone());
                self.tell(Step::Unpaid { name, why });
                self.ask_anew(award)
            }
        }
    }

    /// Asks for a new invoice once the wallet can pay.
    pub(super) fn ask_anew(&self, award: EventId) -> Option<Input> {
        let (purse, reporter) = (self.shared().purse.clone()?, self.reporter.clone());
        self.shared().tasks.spawn(async move {
            let answers = async {
                tokio::time::sleep(ANEW_AFTER).await;
                while !purse.wallet_answers().await {
                    tokio::time::sleep(ANEW_AFTER).await;
                }
            };
            tokio::select! {
                () = answers => {
                    let _ = reporter.send(AnyReport::Money(Report::Anew(award)));
                }
                () = reporter.closed() => {}
            }
        });
        None
    }
}
