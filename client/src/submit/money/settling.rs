//! The end of an attempt on its tab.

use std::time::Duration;

use infernet_node::clock;
use infernet_protocol::event::{Attestation, Experience, Usage};
use infernet_protocol::job::buyer::Account;
use infernet_protocol::money::Msat;
use nostr::EventId;
use tokio::time::{Instant, timeout_at};

use super::{AnyReport, Driver, Heard, Report};
use crate::answer::Step;
use crate::purse::{Closing, Done, LATE};
use crate::submit::results::{Checked, check};
use crate::submit::tally::Delivered;

/// How long a provider that was stopped has to deliver what it has drawn: what it charges is what has come.
const LAST_RESULT_PATIENCE: Duration = Duration::from_millis(2_500);

/// How often the relays are asked for it.
const LOOK_EVERY: Duration = Duration::from_millis(700);

/// How long charges may take to be on the disk.
const CHARGES_PATIENCE: Duration = Duration::from_secs(10);

impl Driver {
    /// Ends the current attempt on its tab.
    pub(in crate::submit) fn settle(
        &mut self,
        account: &Account,
        attestation: Option<Attestation>,
    ) {
        let may_come = account.experience == Experience::Silent;
        if may_come && account.result.is_none() && self.leave_unclear() {
            return;
        }
        let is_delivered = account.experience == Experience::Completed;
        self.close(is_delivered, account.result, attestation);
    }

    /// Ends the current attempt on its tab if nothing was said of it.
    pub(in crate::submit) fn settle_unfinished(&mut self) {
        self.close(false, None, None);
    }

    /// Ends the current attempt without its cost, if relays were away and its result may still come. Nothing is said
    /// of its provider: it may have said what nobody could hear.
    fn leave_unclear(&mut self) -> bool {
        self.acknowledge();
        let until = self.deadline.max(clock::now()) + LATE;
        let Some(current) = self.current.as_mut().filter(|current| current.was_adrift) else {
            return false;
        };
        let Some(bill) = current.bill.take() else {
            return false;
        };
        let (award, name) = (current.award.id(), current.word.name.clone());
        let charge = bill.lease.leave(award, until);
        self.spent(charge);
        self.tell(Step::Unclear { name, award });
        true
    }

    /// So much of what the job may cost is gone.
    fn spent(&mut self, charge: Msat) {
        let charged = &mut self.money.moved.charged;
        charged.0 = charged.0.saturating_add(charge.0);
        let left = &mut self.order.means.left;
        *left = left.map(|left| Msat(left.0.saturating_sub(charge.0)));
    }

    fn close(
        &mut self,
        is_delivered: bool,
        result: Option<EventId>,
        attestation: Option<Attestation>,
    ) {
        self.acknowledge();
        let Some(current) = &mut self.current else {
            return;
        };
        let Some(bill) = current.bill.take() else {
            return;
        };
        let (award, name) = (current.award.id(), current.word.name.clone());
        let delivered = current.delivered.as_ref().filter(|_| result.is_some());
        let counted = Usage {
            input_tokens: bill.input.saturating_sub(bill.prefix),
            prefix_tokens: bill.prefix,
            output_tokens: bill.counted,
        };
        let closing = Closing {
            award,
            is_delivered,
            done: Done {
                usage: delivered.map_or(counted, |delivered| delivered.usage),
                result,
            },
            attestation,
        };
        let reporter = self.reporter.clone();
        let charge = bill.lease.close(closing, move |moved, left_msat| {
            let charged = Report::Charged {
                name,
                award,
                moved,
                left_msat,
            };
            // The job may be over.
            let _ = reporter.send(AnyReport::Money(charged));
        });
        self.money.closing += 1;
        self.spent(charge);
    }

    /// The job is over: what runs is charged, with what its provider still delivers of it.
    pub(in crate::submit) async fn settle_last(&mut self) {
        let current = self.current.as_ref();
        let runs = current.is_some_and(|current| current.bill.is_some() && current.accepted);
        let result = match runs {
            true => self.last_result().await,
            false => None,
        };
        if result.is_some() || !self.leave_unclear() {
            self.close(false, result, None);
        }
        let until = Instant::now() + CHARGES_PATIENCE;
        while self.money.closing > 0 {
            match timeout_at(until, self.reports.recv()).await {
                Ok(Some(AnyReport::Money(report @ Report::Charged { .. }))) => {
                    self.about_money(report);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Waits for the result of an attempt that was told to stop.
    async fn last_result(&mut self) -> Option<EventId> {
        let award = self.current.as_ref()?.award.id();
        let until = Instant::now() + LAST_RESULT_PATIENCE;
        while Instant::now() < until {
            let look = (Instant::now() + LOOK_EVERY).min(until);
            let waiting = async {
                tokio::select! {
                    heard = self.ear.next() => vec![heard],
                    report = self.reports.recv() => match report {
                        Some(AnyReport::Found(events)) => {
                            let read = events.into_iter().filter_map(Heard::read);
                            read.map(|(_, heard)| heard).collect()
                        }
                        Some(AnyReport::Money(report)) => {
                            // Only a charge matters now.
                            if let Report::Charged { .. } = report {
                                self.about_money(report);
                            }
                            Vec::new()
                        }
                        Some(_) | None => Vec::new(),
                    },
                }
            };
            match timeout_at(look, waiting).await {
                Ok(heard) => {
                    let found = heard.into_iter().find_map(|heard| self.last_words(heard));
                    if found.is_some() {
                        return found;
                    }
                }
                Err(_) => {
                    self.look_up(award);
                }
            }
        }
        None
    }

    /// Counts what the result of an attempt that was stopped has brought.
    fn last_words(&mut self, heard: Heard) -> Option<EventId> {
        let Heard::Result(result) = heard else {
            return None;
        };
        let current = self.current.as_ref()?;
        let pair = &current.conversation;
        // An output in a blob is not waited for: what was acknowledged counts.
        let checked = check(&result, None, &current.award, &self.request.work, pair);
        let Checked::Good(product) = checked else {
            return None;
        };
        self.count_up_to(product.tokens().len() as u64);
        let stopped = self.claimed_by_result(&result, &product);
        if let (None, Some(current)) = (stopped, &mut self.current) {
            current.delivered = Some(Delivered::new(&result, &product));
        }
        Some(result.id())
    }
}
