//! What a job tells others: the caller, the provider in private, and the market.

use std::time::Duration;

use infernet_node::clock;
use infernet_protocol::event::{Body, CancelReason, Experience, Private};
use infernet_protocol::job::buyer::{Account, Input};
use infernet_protocol::kinds;
use infernet_protocol::payload::{Control, Payload, Wish};
use infernet_protocol::seal::whisper;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{EventId, Filter, Kind, PublicKey};

use super::{Driver, Report, award};
use crate::answer::Step;
use crate::client::sign;

/// How long is tried to publish what is said about an attempt after it.
const RECORD_PATIENCE: Duration = Duration::from_secs(30);

/// How long the relays have to say whether there is a result. They are asked at half of a provider's time: whether
/// they or the provider are silent must be known before it is over.
const LOOK_UP_TIMEOUT: Duration = Duration::from_millis(1_500);

impl Driver {
    pub(super) fn show(&mut self, text: String, tokens: usize) -> Option<Input> {
        self.speaks = self.current.as_ref().map(|current| current.word.model);
        self.tally.add(self.real(), &text, tokens);
        if !text.is_empty() {
            self.tell(Step::Text(text));
        }
        None
    }

    /// Tells the provider something in private.
    pub(super) fn whisper(&self, award: EventId, wish: Wish) -> Option<Input> {
        let current = self.current.as_ref()?;
        let control = Control { award, wish };
        let content = whisper(&current.conversation, &control.to_bytes(), &mut OsRng).ok()?;
        let private = Private {
            kind: kinds::CONTROL,
            job: current.award.job_id(),
            reader: current.word.provider,
            content,
        };
        let keys = self.shared().keys();
        let unsigned = private.to_unsigned(keys.public_key(), clock::now());
        let event = unsigned.sign_with_keys(keys).ok()?;
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
    pub(super) fn attest(&self, account: &Account) -> Option<Input> {
        let current = self.current.as_ref()?;
        let word = &current.word;
        if account.experience != Experience::Completed {
            self.tell(Step::Failed {
                name: word.name.clone(),
                how: current.how(account.experience),
            });
        }
        let is_own = word.provider == self.client.public_key();
        if !is_own {
            self.record(&award::attestation(self.job_id?, word, account));
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
