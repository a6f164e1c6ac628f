//! What a job hears: each event is checked against the attempt that counts, and becomes an input or nothing.

use infernet_node::{clock, mortality};
use infernet_protocol::bounds::MAX_BIDS;
use infernet_protocol::event::{Bid, Cancel, JobResult, Signed};
use infernet_protocol::inference::EndReason;
use infernet_protocol::job::buyer::Input;
use infernet_protocol::payload::{News, Progress};
use nostr::PublicKey;

use super::results::{self, Checked};
use super::tally::Delivered;
use super::{Current, Driver, Heard};
use crate::answer::Step;
use crate::market::on_bid;

impl Driver {
    pub(super) fn heard(&mut self, heard: Heard) -> Option<Input> {
        match heard {
            Heard::Bid(bid) => self.bid(&bid),
            Heard::Result(result) => self.result(&result),
            Heard::Cancel(cancel) => self.cancelled(&cancel),
            Heard::Progress { author, content } => self.progress(&author, &content),
            Heard::Gap => {
                let award = self.current.as_ref()?.award.id();
                self.look_up(award)
            }
        }
    }

    /// A bid counts if it meets the offer; the first of each provider, and no more than a job looks at.
    fn bid(&mut self, bid: &Signed<Bid>) -> Option<Input> {
        let offer = self.offer.as_ref()?;
        if self.attempts > 0 || bid.offer != offer.id || bid.buyer != self.client.public_key() {
            return None;
        }
        let bids = || self.words.values().filter(|word| word.is_bid);
        if bids().count() >= MAX_BIDS || bids().any(|word| word.provider == bid.author()) {
            return None;
        }
        let word = on_bid(&self.shared().market(), &self.order, bid, clock::now())?;
        // Waiting is not worth it when nobody who is known promises better.
        let announced = self.words.values().filter(|word| !word.is_bid);
        let best = announced.map(|word| word.rank).max_by(f64::total_cmp);
        let candidate = word.candidate(best.is_some_and(|best| word.rank >= best));
        self.tell(Step::Bid {
            name: word.name.clone(),
            price: word.price,
            promise: word.promise,
        });
        self.words.insert(word.event.id, word);
        Some(Input::Candidate(candidate))
    }

    fn result(&mut self, result: &Signed<JobResult>) -> Option<Input> {
        match &result.output.blob {
            Some(blob) => self.fetch(result, blob),
            None => self.opened(result, None),
        }
    }

    /// A result came, and its output, if that had to be fetched.
    pub(super) fn opened(
        &mut self,
        result: &Signed<JobResult>,
        fetched: Option<Vec<u8>>,
    ) -> Option<Input> {
        let current = self.current.as_ref()?;
        let pair = &current.conversation;
        let checked = results::check(result, fetched, &current.award, &self.request.work, pair);
        let award = current.award.id();
        match checked {
            Checked::Foreign => None,
            Checked::Bad(flaw) => {
                tracing::warn!(result = %result.id(), provider = %result.author(), flaw, "a bad result");
                Some(Input::BadResult { award })
            }
            Checked::Good(product) => {
                self.note_delivery(result, &product);
                mortality::point("result-heard");
                if let Some(input) = self.claimed_by_result(result, &product) {
                    return Some(input);
                }
                Some(Input::Result {
                    award,
                    result: result.id(),
                    ended: result.ended,
                    usage: result.usage,
                    product,
                })
            }
        }
    }

    fn note_delivery(
        &mut self,
        result: &Signed<JobResult>,
        product: &infernet_protocol::payload::Product,
    ) {
        self.listened();
        if let Some(current) = &mut self.current {
            current.error = match result.ended {
                EndReason::Cancelled => Some("it was stopped".into()),
                EndReason::Failed | EndReason::Stop | EndReason::Length => result.error.clone(),
            };
            current.delivered = Some(Delivered::new(result, product));
        }
    }

    fn cancelled(&mut self, cancel: &Signed<Cancel>) -> Option<Input> {
        let current = self.current.as_ref()?;
        let award = current.award.id();
        if cancel.author() != current.word.provider || cancel.award != Some(award) {
            return None;
        }
        self.listened();
        Some(Input::GivenUp { award })
    }

    fn progress(&mut self, author: &PublicKey, content: &str) -> Option<Input> {
        let current = self.current.as_ref()?;
        let progress = results::progress(author, content, &current.award, &current.conversation)?;
        self.listened();
        let claimed = progress.tab.and_then(|tab| self.claimed(&tab));
        claimed.or_else(|| self.news(progress))
    }

    /// The provider of the current attempt was heard.
    fn listened(&mut self) {
        let now = self.real();
        self.pace.heard(now);
        self.trouble = None;
    }

    fn news(&mut self, Progress { award, news, .. }: Progress) -> Option<Input> {
        Some(match news {
            News::Accepted { ahead } => {
                self.accepted(Some(ahead));
                Input::Alive {
                    award,
                    accepted: true,
                }
            }
            News::Declined { reason, detail } => {
                if let Some(Current { word, .. }) = &self.current {
                    let name = word.name.clone();
                    self.tell(Step::Declined {
                        name,
                        reason,
                        detail,
                    });
                }
                return self.declined(Input::Declined { award, reason });
            }
            News::Piece(piece) => {
                self.accepted(None);
                Input::Piece { award, piece }
            }
            News::Due {
                invoice: Some(invoice),
            } => {
                let alive = Input::Alive {
                    award,
                    accepted: false,
                };
                return self.due(&invoice).or(Some(alive));
            }
            News::Alive { .. }
            | News::Due { invoice: None }
            | News::Refunding
            | News::Payable { .. }
            | News::RefundRefused { .. } => Input::Alive {
                award,
                accepted: false,
            },
        })
    }

    fn accepted(&mut self, ahead: Option<u32>) {
        let Some(current) = &mut self.current else {
            return;
        };
        let first = !std::mem::replace(&mut current.accepted, true);
        if let (true, Some(ahead)) = (first, ahead) {
            self.tell(Step::Accepted { ahead });
        }
    }
}
