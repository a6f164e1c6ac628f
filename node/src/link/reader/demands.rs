//! What a relay wants before it takes what it has refused, and what is done about it.

use std::time::Duration;

use nostr::message::ClientMessage;
use nostr::{Event, EventId};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Reader;
use crate::clock;
use crate::link::demand::plainly;
use crate::link::error::{Refusal, plain};
use crate::link::outstanding::Answered;
use crate::link::standing::Next;
use crate::link::work::Question;

/// How long an answer may be worked on: a relay takes none that is ten minutes old.
const WORKING: Duration = Duration::from_secs(300);

/// The longest pause that a relay may ask for in which all is held back; for a longer one, only what it refused waits.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(10);

impl Reader<'_> {
    /// The relay would take the event if it knew more of us: it is sent again when it does.
    pub(super) fn wanting(
        &mut self,
        id: &EventId,
        event: Option<Answered>,
        bits: u32,
        words: &str,
    ) {
        let now = Instant::now();
        match self.standing.refused(bits, self.memory, now) {
            Next::GiveUp(why) => {
                self.refused(id, Refusal::final_of(words, &why));
                if bits > 0 {
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
    pub(super) fn too_fast(
        &mut self,
        id: &EventId,
        event: Option<Answered>,
        pause: Duration,
        words: &str,
    ) {
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

    /// The relay asks who we are (NIP-42).
    pub(super) fn challenged(&mut self, challenge: &str) {
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
    pub(super) fn wait_for(&mut self, next: Next, wanted: u32) {
        if let Next::Answer(bits) = next {
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
    pub(super) fn made(&mut self, answer: Option<Event>, bits: u8) {
        let Some(answer) = answer else {
            return self.give_up("no answer can be made");
        };
        self.standing.answers(answer.id, bits);
        let judged_by = Instant::now() + self.desk.options.answer_timeout;
        self.give_up_at = self.give_up_at.map(|_| judged_by);
        self.desk.request(self.relay, ClientMessage::auth(answer));
    }

    /// The relay has judged an answer of ours.
    pub(super) fn judged(&mut self, taken: bool, words: &str) {
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
    pub(super) fn give_up(&mut self, why: &str) {
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
    pub(super) fn resume(&mut self) {
        if self.standing.is_wanted() || self.slow_until.is_some() {
            return;
        }
        self.desk.slowed(self.relay, None);
        for frame in self.outstanding.resume() {
            self.desk.write_first(self.relay, frame);
        }
        self.outstanding.release();
    }
}
