//! Offers and awards: signing them, and getting them out.

use std::time::Duration;

use infernet_node::{clock, link, mortality};
use infernet_protocol::batch::Blob;
use infernet_protocol::bounds::{MAX_PAYLOAD_BYTES, MAX_SEALED_BYTES};
use infernet_protocol::event::{Award, Signed};
use infernet_protocol::inference::TokenId;
use infernet_protocol::job::buyer::Input;
use infernet_protocol::kinds;
use infernet_protocol::money::PaymentKind;
use infernet_protocol::seal::Sealed;
use infernet_protocol::seal::blob::Outsized;
use nostr::{Event, EventId, Timestamp};
use tokio::time::Instant;

use super::award::Plain;
use super::money::{self, Bill};
use super::{Current, Driver, Report, award};
use crate::answer::Step;
use crate::client::sign;
use crate::market::Word;
use crate::purse::Lease;

/// How long relays may be away before an award that is under way counts as failed; a provider would ignore one that
/// is much older.
const AWARD_PATIENCE: Duration = Duration::from_secs(20);

/// An award that is about to be made.
pub(super) struct Placement {
    word: Word,
    /// Tokens that earlier attempts have brought.
    prefix: Vec<TokenId>,
    /// The open tab, if it is paid.
    lease: Option<Lease>,
    plain: Plain,
}

impl Driver {
    /// Signs an offer and sends it out; bids may come from now on.
    pub(super) fn offer(&mut self, window_ms: u64) {
        let until = clock::unix_ms().saturating_add(window_ms).div_ceil(1_000);
        let until = Timestamp::from_secs(until).min(self.deadline);
        let offer = award::offer(&self.order, until, self.deadline, &self.relays)
            .and_then(|offer| sign(self.shared().keys(), &offer));
        let Some(offer) = offer else {
            tracing::error!("the offer cannot be made; going on with announcements");
            return;
        };
        self.job_id = Some(offer.id);
        self.ear.listen(offer.id);
        self.publish(offer.clone(), AWARD_PATIENCE, true);
        self.tell(Step::Offered { job: offer.id });
        self.offer = Some(offer);
    }

    /// Awards the next attempt; one that is paid once its tab is open.
    pub(super) fn place(&mut self, word: EventId, prefix: Vec<TokenId>) -> Option<Input> {
        self.settle_unfinished();
        let Some(word) = self.words.get(&word).cloned() else {
            tracing::error!(%word, "the job awards to somebody who is not known");
            return Some(Input::AwardFailed);
        };
        if !prefix.is_empty() && self.speaks.is_some_and(|model| model != word.model) {
            return Some(self.misplaced(&word, "it runs another model, with other tokens"));
        }
        match word.terms.kind() {
            PaymentKind::Tab => self.open_tab(word, prefix),
            PaymentKind::Free | PaymentKind::Escrow => self.place_on(word, prefix, None),
        }
    }

    /// Awards to a provider, whose tab is open if it is paid; at once if the input fits into the award.
    pub(super) fn place_on(
        &mut self,
        word: Word,
        prefix: Vec<TokenId>,
        lease: Option<Lease>,
    ) -> Option<Input> {
        let plain = self.placing(&word, &prefix).input();
        let placement = Placement {
            word,
            prefix,
            lease,
            plain,
        };
        if placement.plain.bytes.len() > MAX_SEALED_BYTES && self.shared().blobs.can_put() {
            return self.put_input(placement);
        }
        let sealed = self.seal(&placement);
        Some(self.place_sealed(placement, sealed))
    }

    fn seal(&self, placement: &Placement) -> Result<Sealed, award::Error> {
        let provider = &placement.word.provider;
        let pair = self.shared().conversations.with(provider)?;
        placement.plain.seal(&pair)
    }

    /// Puts the input where the provider can fetch it, and comes back.
    fn put_input(&mut self, placement: Placement) -> Option<Input> {
        let keys = self.shared().keys();
        let outsized = placement
            .plain
            .seal_outsized(keys, &placement.word.provider);
        let outsized = match outsized {
            Ok(outsized) => outsized,
            Err(error) => return Some(self.place_sealed(placement, Err(error))),
        };
        let (blobs, reporter) = (self.shared().blobs.clone(), self.reporter.clone());
        self.shared().tasks.spawn(async move {
            tokio::select! {
                put = blobs.put(outsized.bytes().to_vec()) => {
                    // The job may be over by now.
                    let _ = reporter.send(Report::Put(Box::new(placement), outsized, put));
                }
                () = reporter.closed() => {}
            }
        });
        None
    }

    /// The input was put on servers, or not: then it goes into the award, if it can.
    pub(super) fn input_put(
        &mut self,
        placement: Placement,
        outsized: Outsized,
        put: Result<Blob, infernet_blobs::Error>,
    ) -> Input {
        let sealed = match put {
            Ok(blob) => Ok(outsized.lies_in(blob)),
            Err(_) if placement.plain.bytes.len() <= MAX_PAYLOAD_BYTES => self.seal(&placement),
            Err(error) => Err(error.into()),
        };
        self.place_sealed(placement, sealed)
    }

    /// Awards what is sealed.
    fn place_sealed(
        &mut self,
        placement: Placement,
        sealed: Result<Sealed, award::Error>,
    ) -> Input {
        let Placement {
            word,
            prefix,
            lease,
            plain,
        } = placement;
        let (keys, now) = (self.shared().keys(), clock::now());
        let placing = self.placing(&word, &prefix);
        let signed = sealed.and_then(|sealed| placing.sign(&plain, sealed, keys, now));
        match signed {
            Ok(award) => {
                let behind = prefix.len();
                let bill = lease.map(|lease| self.bill(lease, &word, &award, plain.salt, behind));
                self.awarded(word, award, behind, bill)
            }
            Err(error) => self.misplaced(&word, &error.to_string()),
        }
    }

    /// Nobody is to blame for an award that cannot be made.
    pub(super) fn misplaced(&self, word: &Word, why: &str) -> Input {
        self.tell(Step::Failed {
            name: word.name.clone(),
            provider: word.provider,
            blame: None,
            how: format!("cannot be given it: {why}"),
        });
        Input::AwardFailed
    }

    fn placing<'a>(&'a self, word: &'a Word, prefix: &'a [TokenId]) -> award::Placing<'a> {
        award::Placing {
            order: &self.order,
            work: &self.request.work,
            prove: self.request.prove,
            word,
            offer: self.offer.as_ref(),
            job: self.job_id,
            attempt: self.attempts + 1,
            prefix,
            deadline: self.deadline,
            relays: &self.relays,
        }
    }

    fn awarded(
        &mut self,
        word: Word,
        award: Signed<Award>,
        behind: usize,
        bill: Option<Bill>,
    ) -> Input {
        let Ok(conversation) = self.shared().conversations.with(&word.provider) else {
            return Input::AwardFailed;
        };
        let (id, job) = (award.id(), award.job_id());
        if self.job_id.is_none() {
            self.job_id = Some(job);
            self.ear.listen(job);
        }
        self.attempts = award.attempt;
        self.trouble = None;
        match &bill {
            Some(bill) => self.publish_written(bill, &award),
            None => self.publish(award.event().clone(), AWARD_PATIENCE, true),
        }
        tracing::info!(%job, award = %id, attempt = award.attempt, provider = %word.provider, "awarded");
        self.tell(Step::Awarded {
            job,
            award: id,
            attempt: award.attempt,
            provider: word.provider,
            name: word.name.clone(),
            model: word.model_name.clone(),
            behind,
        });
        self.current = Some(Current {
            award,
            word,
            conversation,
            accepted: false,
            error: None,
            delivered: None,
            bill,
            is_spared: false,
            fetching: None,
            was_adrift: self.adrift || self.unanswered,
        });
        Input::Awarded { award: id }
    }

    /// Publishes an award that is paid once it is written down.
    fn publish_written(&self, bill: &Bill, award: &Signed<Award>) {
        let (id, event) = (award.id(), award.event().clone());
        let (written, reporter) = (bill.written(&id), self.reporter.clone());
        let publishing = self.publishing(event, AWARD_PATIENCE, true);
        self.shared().tasks.spawn(async move {
            match written.await {
                Ok(()) => publishing.await,
                Err(error) => {
                    // The job may be over by now.
                    let _ = reporter.send(Report::Money(money::Report::Unwritten(error)));
                }
            }
        });
    }

    /// Publishes in the background, and reports if no relay takes what the job rests on.
    pub(super) fn publish(&self, event: Event, patience: Duration, report: bool) {
        let publishing = self.publishing(event, patience, report);
        self.shared().tasks.spawn(publishing);
    }

    fn publishing(
        &self,
        event: Event,
        patience: Duration,
        report: bool,
    ) -> impl Future<Output = ()> + use<> {
        let (link, reporter) = (self.shared().link.clone(), self.reporter.clone());
        let by = Instant::now() + patience;
        async move {
            let Err(error) = link.publish_until(&event, by).await else {
                if event.kind.as_u16() == kinds::AWARD {
                    mortality::point("awarded");
                }
                return;
            };
            tracing::warn!(event = %event.id, kind = event.kind.as_u16(), %error, "not published");
            if report {
                // The job may be over by now.
                let _ = reporter.send(Report::Unpublished(event.id, error));
            }
        }
    }

    pub(super) fn unpublished(&mut self, event: EventId, error: link::Error) -> Option<Input> {
        let is_offer = self.offer.as_ref().is_some_and(|offer| offer.id == event);
        let current = self
            .current
            .as_mut()
            .filter(|current| current.award.id() == event);
        match (is_offer, current) {
            (true, _) => {
                self.trouble = Some(error);
                Some(Input::Stop)
            }
            // Some relay took it, whatever the others said.
            (false, Some(current)) if current.accepted => None,
            (false, Some(current)) => {
                let (name, provider) = (current.word.name.clone(), current.word.provider);
                let how = format!("the award did not get out: {error}");
                self.tell(Step::Failed {
                    name,
                    provider,
                    blame: None,
                    how,
                });
                self.trouble = Some(error);
                Some(Input::AwardFailed)
            }
            (false, None) => None,
        }
    }
}
