//! Events that a client sends: judged, the cheapest first, kept, answered, and told to others.

use std::sync::Arc;

use bytes::Bytes;
use nostr::{Event, EventId, JsonUtil, Kind};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::farewell::End;
use super::fault::Fault;
use super::identity;
use super::message::{self, Unreadable};
use super::{Session, say};
use crate::admission::Refusal;
use crate::store::{self, Saved};
use crate::subscriptions::Expected;

/// Tags of one event. Each is looked up when the event is told to others, and stands in the store's index.
pub const MAX_TAGS: usize = 2_000;

/// What became of an event that a client sent.
pub enum Outcome {
    /// There is nothing more to do than to say so.
    Answered(String),
    /// It is on the disk.
    Stored(Arc<Event>, Bytes, Expected),
    /// It is ephemeral.
    Passing(Event, Bytes),
}

impl Session {
    pub(super) async fn hear_event(&mut self, json: &RawValue) -> Result<(), End> {
        let event = match Event::from_json(json.get()) {
            Ok(event) => event,
            Err(error) => {
                let Some(id) = message::claimed_id(json) else {
                    return self.misunderstand(error);
                };
                self.refuse(&id, &Fault::Unreadable(Unreadable::new(error)));
                return self.bear_nonsense();
            }
        };
        let id = event.id;
        let Err(fault) = self.judge_event(event).await else {
            return Ok(());
        };
        self.refuse(&id, &fault);
        match fault {
            Fault::Id | Fault::Signature => self.bear_nonsense(),
            _ => Ok(()),
        }
    }

    /// Judges an event, the cheapest first, and sends it on its way.
    async fn judge_event(&mut self, event: Event) -> Result<(), Fault> {
        self.viewer.arrived()?;
        // Before anything is said of the id: what bears that of another event is not that event.
        if !event.verify_id() {
            return Err(Fault::Id);
        }
        let is_passing = event.kind.is_ephemeral();
        let is_known = match is_passing {
            true => self.shared.hub.is_old_news(&event.id),
            false => self.shared.store.has(&event.id)?,
        };
        if is_known {
            return Err(Fault::Duplicate);
        }
        if event.kind == Kind::Authentication {
            return Err(Fault::Misplaced);
        }
        if event.tags.len() > MAX_TAGS {
            return Err(Fault::Tags(event.tags.len()));
        }
        self.viewer.glance(&event)?;
        if !event.verify_signature() {
            self.viewer.forged();
            return Err(Fault::Signature);
        }
        self.viewer.examine(&event)?;
        let json = Bytes::from(event.as_json());
        if is_passing {
            let bytes = store::weight(&event, &json);
            self.pipeline
                .push_done(Outcome::Passing(event, json), bytes);
            return Ok(());
        }
        self.shared.store.check(&event).await?;
        self.save(Arc::new(event), json);
        Ok(())
    }

    fn save(&mut self, event: Arc<Event>, json: Bytes) {
        let bytes = store::weight(&event, &json);
        let expected = self.shared.hub.expect(event.id);
        let saving = self.shared.store.save(event.clone(), json.clone());
        let (metrics, began) = (self.shared.metrics.clone(), Instant::now());
        let saved = async move {
            let fault = match saving.await {
                Ok(Saved::New) => {
                    metrics.save_took(began.elapsed());
                    metrics.stored(1);
                    return Outcome::Stored(event, json, expected);
                }
                Ok(Saved::Duplicate) => Fault::Duplicate,
                Ok(Saved::Superseded(by)) => Fault::Refused(Refusal::Superseded(by)),
                Ok(Saved::Deleted) => Fault::Refused(Refusal::Deleted),
                Ok(Saved::Refused(refusal)) => Fault::Refused(refusal),
                Err(error) => Fault::Store(error),
            };
            Outcome::Answered(fault.answer(&event.id, &metrics))
        };
        self.pipeline.push(saved, bytes);
    }

    /// Answers an event, and tells others of it.
    pub(super) fn conclude(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered(text) => self.outbox.answer(text),
            Outcome::Stored(event, json, _expected) => {
                self.admitted(&event);
                self.shared.hub.publish(&event, &json);
            }
            Outcome::Passing(event, json) => {
                self.admitted(&event);
                self.shared.hub.publish_once(&event, &json);
            }
        }
    }

    fn admitted(&self, event: &Event) {
        self.viewer.admitted(event);
        self.shared.metrics.admitted("client");
        self.outbox.answer(say::ok(&event.id, true, ""));
    }

    fn refuse(&mut self, id: &EventId, fault: &Fault) {
        tracing::debug!(peer = %self.peer, event = %id, %fault, "refused");
        let answer = fault.answer(id, &self.shared.metrics);
        // In its turn: clients may count on the order of answers.
        let bytes = answer.len();
        self.pipeline.push_done(Outcome::Answered(answer), bytes);
    }

    pub(super) fn hear_auth(&mut self, json: &RawValue) -> Result<(), End> {
        let auth = match Event::from_json(json.get()) {
            Ok(auth) => auth,
            Err(error) => return self.misunderstand(error),
        };
        if let Err(refusal) = self.viewer.arrived() {
            self.refuse(&auth.id, &refusal.into());
            return Ok(());
        }
        let identified = self.viewer.identify(&auth);
        let why = identified
            .as_ref()
            .map_or_else(ToString::to_string, |()| String::new());
        let answer = say::ok(&auth.id, identified.is_ok(), &why);
        let bytes = answer.len();
        self.pipeline.push_done(Outcome::Answered(answer), bytes);
        match identified {
            Ok(()) => Ok(()),
            Err(error) => {
                if error == identity::Error::Signature {
                    self.viewer.forged();
                }
                self.bear_nonsense()
            }
        }
    }

    /// Waits for all that is under way.
    pub(super) async fn finish(&mut self) {
        while !self.pipeline.is_empty() {
            let outcome = self.pipeline.next().await;
            self.conclude(outcome);
        }
    }
}
