//! What a job tells others: the caller, the provider in private, and the market.

use std::time::Duration;

use infernet_protocol::event::{Body, CancelReason, Experience};
use infernet_protocol::job::buyer::{Account, Input};
use infernet_protocol::kinds;
use infernet_protocol::payload::Wish;
use nostr::{EventId, Filter, Kind, PublicKey};

use super::{Driver, Report, award};
use crate::answer::Step;
use crate::client::sign;
use crate::control::control;

/// How long is tried to publish what is said about an attempt after it.
const RECORD_PATIENCE: Duration = Duration::from_secs(30);

/// How long the relays have to say whether there is a result. They are asked at half of a provider's time: whether
/// they or the provider are silent must be known before it is over.
const LOOK_UP_TIMEOUT: Duration = Duration::from_millis(1_500);

impl Driver {
    pub(super) fn show(&mut self, text: String, tokens: usize) -> Option<Input> {
        self.speaks = self.current.as_ref().map(|current| current.word.model);
        self.tally.add(self.real(), &text, tokens);
        self.count(tokens);
        if !text.is_empty() {
            self.tell(Step::Text(text));
        }
        None
    }

    /// Tells the provider something in private.
    pub(super) fn whisper(&self, award: EventId, wish: Wish) -> Option<Input> {
        let current = self.current.as_ref()?;
        let event = control(
            self.shared().keys(),
            &current.conversation,
            current.word.provider,
            current.award.job_id(),
            award,
            wish,
        )?;
        if let Err(error) = self.shared().link.send(&event) {
            tracing::debug!(%error, "a message was not sent");
        }
        None
    }

    /// Asks the relays whether there is a result, or a cancel.
    pub(super) fn look_up(&self, award: EventId) -> Option<Input> {
        let current = self.current.as_ref()?;
        let filter = Filter::new()
            .kinds([kinds::RESULT, kinds::CANCEL].map(Kind::from))
            .author(current.word.provider)
            .event(award);
        let (link, reporter) = (self.shared().link.clone(), self.reporter.clone());
        self.shared().tasks.spawn(async move {
            let report = match link.fetch(vec![filter], LOOK_UP_TIMEOUT).await {
                Ok(events) => Report::Found(events),
                Err(_) => Report::Unanswered(award),
            };
            let _ = reporter.send(report);
        });
        None
    }

    pub(super) fn record_cancel(
        &self,
        award: Option<EventId>,
        provider: Option<PublicKey>,
        reason: CancelReason,
    ) -> Option<Input> {
        let cancel = award::cancel(self.job_id?, award, provider, reason);
        self.record(&cancel);
        None
    }

    /// Tells the caller and the market how an attempt went.
    pub(super) fn attest(&mut self, account: &Account) -> Option<Input> {
        let current = self.current.as_ref()?;
        let word = current.word.clone();
        let (is_billed, how) = (current.bill.is_some(), current.how(account.experience));
        let is_blameless = self.is_blameless(account);
        if is_blameless {
            self.note_delay();
        } else if account.experience != Experience::Completed {
            self.tell(Step::Failed {
                name: word.name.clone(),
                provider: word.provider,
                blame: Some(account.experience),
                how,
            });
        }
        let is_own = word.provider == self.client.public_key();
        let is_ours_to_say = self.request.attest || account.experience != Experience::Completed;
        let attestation = (!is_own && !is_blameless && is_ours_to_say)
            .then_some(award::attestation(self.job_id?, &word, account));
        if is_billed {
            // It goes out with the receipt that it names.
            self.settle(account, attestation);
        } else if let Some(attestation) = attestation {
            self.record(&attestation);
        }
        None
    }

    /// Signs and publishes what is said about an attempt.
    fn record(&self, body: &impl Body) {
        match sign(self.shared().keys(), body) {
            Some(event) => self.publish(event, RECORD_PATIENCE, false),
            None => tracing::error!("an event cannot be signed"),
        }
    }
}
