//! The reading half of a connection: what the relay says, and what is done about it.

mod demands;

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::SplitStream;
use nostr::message::{MachineReadablePrefix, RelayMessage};
use nostr::{Event, EventId, JsonUtil, SubscriptionId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::DropGuard;

use self::demands::LONGEST_HOLD;
use super::MAX_EVENT_BYTES;
use super::demand::Demand;
use super::desk::{Answer, Desk};
use super::error::{Refusal, plain};
use super::inbox::Dropped;
use super::message;
use super::outstanding::Outstanding;
use super::socket::Socket;
use super::standing::{Memory, Next, Standing};
use crate::clock;

/// How long the relay may be silent; it is asked for a sign of life more often.
const SILENCE: Duration = Duration::from_secs(45);

/// When to ask again for a subscription that a relay has refused for the moment.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What `["EVENT","<subscription>",…]` adds to an event, with room.
const ENVELOPE_BYTES: usize = 256;

pub(super) struct Reader<'a> {
    desk: &'a Desk,
    relay: usize,
    outstanding: Arc<Outstanding>,
    standing: Standing,
    memory: &'a mut Memory,
    /// The answer that is being made, and what ends that.
    making: JoinSet<(Option<Event>, u8)>,
    stops_making: Option<DropGuard>,
    /// When to give up what waits for our standing.
    give_up_at: Option<Instant>,
    /// Subscriptions that wait for it, with the relay's words.
    waiting: BTreeMap<SubscriptionId, String>,
    /// When a relay that finds us too fast may be sent events again.
    slow_until: Option<Instant>,
    /// How often it has found so since it took an event.
    slow_times: u32,
    /// When to ask again for subscriptions that the relay has refused for the moment.
    ask_again_at: Option<Instant>,
    /// Whether this relay's misbehaviour has been logged; once in a session is enough.
    has_complained: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        desk: &'a Desk,
        relay: usize,
        outstanding: Arc<Outstanding>,
        memory: &'a mut Memory,
    ) -> Self {
        Self {
            desk,
            relay,
            outstanding,
            standing: Standing::default(),
            memory,
            making: JoinSet::new(),
            stops_making: None,
            give_up_at: None,
            waiting: BTreeMap::new(),
            slow_until: None,
            slow_times: 0,
            ask_again_at: None,
            has_complained: false,
        }
    }

    /// Reads until the connection ends; answers why it did.
    pub(super) async fn run(&mut self, stream: &mut SplitStream<Socket>) -> String {
        loop {
            let due = [self.ask_again_at, self.give_up_at, self.slow_until];
            let due = due.into_iter().flatten().min();
            let frame = tokio::select! {
                frame = timeout(SILENCE, stream.next()) => frame,
                Some(made) = self.making.join_next() => {
                    let (answer, bits) = made.unwrap_or_default();
                    self.made(answer, bits);
                    continue;
                }
                () = until(due) => {
                    self.tend(Instant::now());
                    continue;
                }
            };
            match frame {
                Ok(Some(Ok(Message::Text(text)))) => self.hear(&text),
                Ok(Some(Ok(Message::Close(Some(frame))))) => return format!("closed: {frame}"),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return error.to_string(),
                Ok(None) => return "closed".to_owned(),
                Err(_) => return format!("silent for {} s", SILENCE.as_secs()),
            }
        }
    }

    /// Does what is due by `now`.
    fn tend(&mut self, now: Instant) {
        let is_due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if is_due(&mut self.ask_again_at) {
            self.desk.ask_again(self.relay);
        }
        if is_due(&mut self.slow_until) {
            self.resume();
        }
        if is_due(&mut self.give_up_at) {
            self.give_up("it gave us no way to show it");
        }
    }

    fn hear(&mut self, text: &str) {
        if text.len() > MAX_EVENT_BYTES + ENVELOPE_BYTES {
            return self.complain("sent something too long");
        }
        match message::read(text) {
            Ok(RelayMessage::Event {
                subscription_id,
                event,
            }) => self.admit(&subscription_id, event.into_owned(), text.len()),
            Ok(RelayMessage::Ok {
                event_id,
                status,
                message,
            }) => self.answered(&event_id, status, &message),
            Ok(RelayMessage::EndOfStoredEvents(id)) => {
                if let Some(inbox) = self.desk.inbox(&id) {
                    inbox.stored_sent(self.relay);
                }
            }
            Ok(RelayMessage::Closed {
                subscription_id,
                message,
            }) => self.closed(&subscription_id, &message),
            Ok(RelayMessage::Auth { challenge }) => self.challenged(&challenge),
            Ok(RelayMessage::Notice(words)) => {
                tracing::debug!(relay = %self.url(), words = plain(&words), "notice");
            }
            Ok(_) => {}
            Err(_) => self.complain("sent something that cannot be read"),
        }
    }

    fn admit(&mut self, id: &SubscriptionId, event: Event, bytes: usize) {
        // What was under way when a subscription was closed is nobody's fault.
        let Some(inbox) = self.desk.inbox(id) else {
            return;
        };
        // The exact length is worth counting only where the message leaves doubt.
        if bytes > MAX_EVENT_BYTES && event.as_json().len() > MAX_EVENT_BYTES {
            return self.complain("sent something too long");
        }
        match inbox.admit(event, bytes, clock::now()) {
            Ok(()) | Err(Dropped::Again | Dropped::Expired) => {}
            Err(Dropped::Forged) => self.complain("sent a forged event"),
            Err(Dropped::Unasked) => self.complain("sent an event that nobody asked for"),
            Err(Dropped::Full) => tracing::debug!(subscription = %id, "the reader is too slow"),
        }
    }

    /// The relay has answered to an event: to one that says who we are, or to any other.
    fn answered(&mut self, id: &EventId, taken: bool, words: &str) {
        if self.standing.is_judged(id, taken) {
            return self.judged(taken, words);
        }
        let event = self.outstanding.answered(id);
        // A relay that has the event already has accepted it, whatever it calls that.
        if taken || MachineReadablePrefix::parse(words) == Some(MachineReadablePrefix::Duplicate) {
            self.standing.helped();
            self.slow_times = 0;
            self.desk.answered(self.relay, id, || Answer::Accepted);
            return;
        }
        match Demand::in_words(words) {
            Demand::Standing(bits) => self.wanting(id, event, bits, words),
            Demand::Patience(Some(pause)) if pause <= LONGEST_HOLD => {
                self.too_fast(id, event, pause, words);
            }
            Demand::Patience(_) | Demand::Nothing => self.refused(id, Refusal::of(words)),
        }
    }

    fn refused(&mut self, id: &EventId, refusal: Refusal) {
        let answer = || Answer::Refused(refusal.clone());
        if !self.desk.answered(self.relay, id, answer) {
            self.complain(&format!("refuses our events: {}", refusal.words()));
        }
    }

    /// The relay has ended a subscription.
    fn closed(&mut self, id: &SubscriptionId, words: &str) {
        let Some(inbox) = self.desk.inbox(id) else {
            return;
        };
        // A relay that has served all the ids that were asked for may say that it is done.
        if words.is_empty() && inbox.is_served_by(self.relay) {
            return;
        }
        let demand = Demand::in_words(words);
        if let Demand::Standing(bits) = demand {
            let now = Instant::now();
            let next = self.standing.refused(bits, self.memory, now);
            if !matches!(next, Next::GiveUp(_)) {
                self.waiting.insert(id.clone(), plain(words));
                return self.wait_for(next, bits);
            }
        }
        self.complain(&format!("closed a subscription: {}", plain(words)));
        inbox.refused(self.relay, plain(words));
        let pause = match demand {
            Demand::Patience(pause) => pause.unwrap_or(ASK_AGAIN),
            Demand::Nothing if MachineReadablePrefix::parse(words).is_none() => ASK_AGAIN,
            // These are for good.
            Demand::Nothing | Demand::Standing(_) => return,
        };
        self.ask_again_at.get_or_insert(Instant::now() + pause);
    }

    fn complain(&mut self, what: &str) {
        match std::mem::replace(&mut self.has_complained, true) {
            false => tracing::warn!(relay = %self.url(), "the relay {what}"),
            true => tracing::debug!(relay = %self.url(), "the relay {what}"),
        }
    }

    fn url(&self) -> &'a nostr::RelayUrl {
        self.desk.url(self.relay)
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
