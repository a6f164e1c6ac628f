//! The reading half of a connection: what the relay says, and what is done about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::SplitStream;
use nostr::message::{ClientMessage, MachineReadablePrefix, RelayMessage};
use nostr::{Event, EventId, JsonUtil, SubscriptionId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::DropGuard;

use super::MAX_EVENT_BYTES;
use super::demand::{Demand, plainly};
use super::desk::{Answer, Desk};
use super::error::{Refusal, plain};
use super::inbox::Dropped;
use super::message;
use super::outstanding::{Answered, Outstanding};
use super::socket::Socket;
use super::standing::{Memory, Next, Standing};
use super::work::Question;
use crate::clock;

/// How long the relay may be silent; it is asked for a sign of life more often.
const SILENCE: Duration = Duration::from_secs(45);

/// When to ask again for a subscription that a relay has refused for the moment.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// How long an answer may be worked on: a relay takes none that is ten minutes old.
const WORKING: Duration = Duration::from_secs(300);

/// The longest pause that a relay may ask for in which all is held back; for a longer one, only what it refused waits.
const LONGEST_HOLD: Duration = Duration::from_secs(10);

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
            let (again, give_up, slow) = (self.ask_again_at, self.give_up_at, self.slow_until);
            let at = |instant: Option<Instant>| sleep_until(instant.unwrap_or_else(Instant::now));
            let frame = tokio::select! {
                frame = timeout(SILENCE, stream.next()) => frame,
                Some(made) = self.making.join_next() => {
                    let (answer, bits) = made.unwrap_or_default();
                    self.made(answer, bits);
                    continue;
                }
                () = at(again), if again.is_some() => {
                    self.ask_again_at = None;
                    self.desk.ask_again(self.relay);
                    continue;
                }
                () = at(slow), if slow.is_some() => {
                    self.slow_until = None;
                    self.resume();
                    continue;
                }
                () = at(give_up), if give_up.is_some() => {
                    self.give_up("it gave us no way to show it");
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

    /// The relay would take the event if it knew more of us: it is sent again when it does.
    fn wanting(&mut self, id: &EventId, event: Option<Answered>, bits: u32, words: &str) {
        let now = Instant::now();
        match self.standing.refused(bits, self.memory, now) {
            Next::GiveUp(why) => {
                self.refused(id, Refusal::final_of(words, &why));
                if bits > 0 {
                    self.complain(&format!("{}; {why}", plainly(bits)));
                    self.desk.wants(self.relay, &plainly(bits), Some(&why));
                }
            }
            next => {
                let kept = event.is_some_and(|event| self.outstanding.refused(event, plain(words)));
                if !kept {
                    self.refused(id, Refusal::of(words));
                }
                self.wait_for(next, bits);
            }
        }
    }

    /// The relay takes no more for a moment. All that follows waits too: else the less important would be in the way of
    /// the important for ever.
    fn too_fast(&mut self, id: &EventId, event: Option<Answered>, pause: Duration, words: &str) {
        if !event.is_some_and(|event| self.outstanding.refused(event, plain(words))) {
            return self.refused(id, Refusal::of(words));
        }
        self.complain(&format!("finds us too fast: {}", plain(words)));
        self.desk.slowed(self.relay, Some(Refusal::of(words)));
        if self.slow_until.is_none() {
            let pause = pause.saturating_mul(2_u32.saturating_pow(self.slow_times));
            self.slow_until = Some(Instant::now() + pause.min(LONGEST_HOLD));
            self.slow_times += 1;
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

    /// The relay asks who we are (NIP-42).
    fn challenged(&mut self, challenge: &str) {
        match self.standing.challenged(challenge) {
            Next::GiveUp(why) => self.complain(&why),
            Next::Wait => {}
            Next::Answer(bits) => {
                self.stops_making = None;
                self.making = JoinSet::new();
                self.make(bits);
                if let Next::Answer(bits) = self.standing.owed(self.memory, Instant::now()) {
                    self.make(bits);
                }
            }
        }
    }

    /// Does what is next for something that waits for `wanted` bits of work.
    fn wait_for(&mut self, next: Next, wanted: u32) {
        if let Next::Answer(bits) = next {
            tracing::info!(relay = %self.url(), "the relay {}; doing it", plainly(wanted));
            self.make(bits);
        }
        let patience = match self.standing.is_making() {
            true => WORKING,
            false => self.desk.options.answer_timeout,
        };
        self.give_up_at.get_or_insert(Instant::now() + patience);
        self.desk.wants(self.relay, &plainly(wanted), None);
    }

    /// Answers the relay's challenge with so many bits of work; beside what else is done, if there is any.
    fn make(&mut self, bits: u8) {
        let Some(challenge) = self.standing.challenge() else {
            return;
        };
        let question = Question {
            challenge: challenge.to_owned(),
            relay: self.url().clone(),
            bits,
        };
        let keys = self.desk.options.keys.clone();
        let stop = self.desk.stop.child_token();
        if bits == 0 {
            let answer = question.answer(&keys, clock::now(), &stop);
            return self.made(answer, bits);
        }
        self.stops_making = Some(stop.clone().drop_guard());
        let turns = self.desk.working.clone();
        self.making.spawn(async move {
            // One core at most works for relays, however many of them ask.
            let Ok(_turn) = turns.acquire_owned().await else {
                return (None, bits);
            };
            let working = move || question.answer(&keys, clock::now(), &stop);
            let made = tokio::task::spawn_blocking(working).await;
            (made.ok().flatten(), bits)
        });
    }

    /// An answer is made: the relay is told.
    fn made(&mut self, answer: Option<Event>, bits: u8) {
        let Some(answer) = answer else {
            return self.give_up("no answer can be made");
        };
        self.standing.answers(answer.id, bits);
        let judged_by = Instant::now() + self.desk.options.answer_timeout;
        self.give_up_at = self.give_up_at.map(|_| judged_by);
        self.desk.request(self.relay, ClientMessage::auth(answer));
    }

    /// The relay has judged an answer of ours.
    fn judged(&mut self, taken: bool, words: &str) {
        if !taken {
            self.complain(&format!("does not know us: {}", plain(words)));
        }
        match self.standing.is_enough() {
            true if taken => self.welcomed(),
            _ if self.standing.is_under_way() => {}
            _ if !taken => self.give_up(&format!("it does not know us: {words}")),
            // More was asked for meanwhile.
            _ => match self.standing.owed(self.memory, Instant::now()) {
                Next::Answer(bits) => self.make(bits),
                _ => self.give_up("that is too often"),
            },
        }
    }

    /// The relay knows enough of us: what waited for that is sent again.
    fn welcomed(&mut self) {
        self.standing.settled();
        self.settled();
        let waiting = std::mem::take(&mut self.waiting);
        self.desk.ask_for(self.relay, waiting.keys());
        self.desk.ask_again(self.relay);
    }

    /// What waited waits no longer, and this is why.
    fn give_up(&mut self, why: &str) {
        let why = plain(why);
        let wanted = self.standing.wanted();
        self.standing.given_up(&why, Instant::now());
        self.stops_making = None;
        for (id, words) in self.outstanding.give_up() {
            self.refused(&id, Refusal::final_of(&words, &why));
        }
        for (id, words) in std::mem::take(&mut self.waiting) {
            self.complain(&format!("closed a subscription: {words} ({why})"));
            if let Some(inbox) = self.desk.inbox(&id) {
                inbox.refused(self.relay, words);
            }
        }
        self.settled();
        self.desk.wants(self.relay, &plainly(wanted), Some(&why));
    }

    fn settled(&mut self) {
        self.give_up_at = None;
        self.desk.content(self.relay);
        self.resume();
    }

    /// Sends again what was refused for the moment, and what was held back behind it, unless that has to wait still.
    fn resume(&mut self) {
        if self.standing.is_wanted() || self.slow_until.is_some() {
            return;
        }
        self.desk.slowed(self.relay, None);
        for frame in self.outstanding.resume() {
            self.desk.write_first(self.relay, frame);
        }
        self.outstanding.release();
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
