//! Writing: events that must last are acknowledged, streamed ones go out in order without waiting.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nostr::{Event, EventId, JsonUtil, RelayUrl};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::desk::{Answer, Asked, Desk};
use super::error::{Error, Refusal, Trouble};
use super::outstanding::Outgoing;
use super::{Link, MAX_EVENT_BYTES};

/// How long the other relays are waited for once one has accepted an event: long enough to hear most of them, short
/// enough that one slow relay delays nobody.
const GRACE: Duration = Duration::from_millis(250);

/// The pauses of [`Link::publish_until`], which double; a change in a connection ends one early.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MOST: Duration = Duration::from_secs(10);

/// What became of an event that at least one relay has accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Relays that have acknowledged it.
    pub accepted: Vec<RelayUrl>,
    /// Relays that said no.
    pub refused: Vec<Trouble>,
    /// Relays that are not connected or have not answered yet; those that are connected have it in their queue.
    pub silent: Vec<RelayUrl>,
}

impl Link {
    /// Publishes an event that must last: returns when a relay has acknowledged it, and all have answered or a short
    /// grace (250 ms) is over. It is under way to the relays at once: who is in a hurry need not wait for the answer
    /// before listening for what the event brings.
    ///
    /// # Errors
    /// [`Error::Refused`] if none accepted and at least one said no, [`Error::Unreachable`] if none answered,
    /// [`Error::TooLarge`].
    pub async fn publish(&self, event: &Event) -> Result<Published, Error> {
        let answers = Answers::of(&self.desk, outgoing(event)?).await;
        answers.verdict()
    }

    /// Publishes, again and again with growing pauses, until a relay has accepted the event, all refuse it for good,
    /// or the deadline is over.
    ///
    /// # Errors
    /// As [`publish`](Self::publish): what the last attempt said.
    pub async fn publish_until(
        &self,
        event: &Event,
        deadline: Instant,
    ) -> Result<Published, Error> {
        let mut changes = self.changes();
        let mut pause = PAUSE_FIRST;
        let mut last = self.desk.unreachable();
        loop {
            changes.mark_unchanged();
            match timeout_at(deadline, self.publish(event)).await {
                Ok(Err(error)) if error.is_temporary() => last = error,
                Ok(done) => return done,
                Err(_) => return Err(last),
            }
            let asked = last.pause().unwrap_or(pause);
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(pause.max(asked)) => pause = PAUSE_MOST.min(2 * pause),
                () = sleep_until(deadline) => return Err(last),
            }
        }
    }

    /// Queues an ephemeral event for every connected relay, behind what was queued before, and does not wait: pieces
    /// of a stream keep their order and pay no round trip. A relay that is too slow loses it.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no relay's queue has taken it, [`Error::TooLarge`].
    pub fn send(&self, event: &Event) -> Result<(), Error> {
        let event = outgoing(event)?;
        let lines = self.desk.lines();
        let taken = |line: &&_| tokio::sync::mpsc::Sender::try_send(line, event.clone()).is_ok();
        match lines.iter().filter(taken).count() {
            0 => Err(self.desk.unreachable()),
            _ => Ok(()),
        }
    }
}

/// The event with the message that carries it.
fn outgoing(event: &Event) -> Result<Outgoing, Error> {
    let json = event.as_json();
    if json.len() > MAX_EVENT_BYTES {
        return Err(Error::TooLarge { bytes: json.len() });
    }
    Ok(Outgoing {
        id: event.id,
        frame: format!(r#"["EVENT",{json}]"#).into(),
    })
}

/// What the relays have answered so far.
struct Answers<'a> {
    desk: &'a Desk,
    id: EventId,
    accepted: Vec<usize>,
    refused: Vec<(usize, Refusal)>,
}

impl<'a> Answers<'a> {
    /// Asks all connected relays to take the event, and gathers their answers.
    async fn of(desk: &'a Desk, event: Outgoing) -> Self {
        let mut answers = Self {
            desk,
            id: event.id,
            accepted: Vec::new(),
            refused: Vec::new(),
        };
        let mut patience = Instant::now() + desk.options.answer_timeout;
        let asked = desk.expect_answers(event.id).into_iter();
        let mut coming: FuturesUnordered<_> = asked
            .map(|one| ask(desk, one, event.clone(), patience))
            .collect();
        while let Ok(Some((relay, answer))) = timeout_at(patience, coming.next()).await {
            match answer {
                Some(Answer::Accepted) => {
                    answers.accepted.push(relay);
                    patience = patience.min(Instant::now() + GRACE);
                }
                Some(Answer::Refused(refusal)) => answers.refused.push((relay, refusal)),
                None => {}
            }
        }
        answers
    }

    fn verdict(&self) -> Result<Published, Error> {
        let desk = self.desk;
        let refused = self.refused.iter().cloned();
        let refused: Vec<Trouble> = refused
            .map(|(relay, refusal)| desk.trouble(relay, refusal))
            .collect();
        match (self.accepted.is_empty(), refused.is_empty()) {
            (true, true) => Err(self.unanswered()),
            (true, false) => Err(Error::Refused(refused)),
            (false, _) => Ok(Published {
                accepted: self.urls(&self.accepted),
                refused,
                silent: self.urls(&self.silent()),
            }),
        }
    }

    /// Why no relay has answered: those that are connected may want something first, or find us too fast.
    fn unanswered(&self) -> Error {
        let mut wanted = self.desk.wanted();
        wanted.extend(self.desk.slow());
        match wanted.is_empty() {
            true => self.desk.unreachable(),
            false => Error::Refused(wanted),
        }
    }

    fn silent(&self) -> Vec<usize> {
        let refused = self.refused.iter().map(|(relay, _)| relay);
        let heard: BTreeSet<&usize> = self.accepted.iter().chain(refused).collect();
        let silent = |relay: &usize| !heard.contains(relay);
        (0..self.desk.relays()).filter(silent).collect()
    }

    fn urls(&self, relays: &[usize]) -> Vec<RelayUrl> {
        let url = |relay: &usize| self.desk.url(*relay).clone();
        relays.iter().map(url).collect()
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.desk.forget_answers(&self.id);
    }
}

/// Queues the event for one relay and waits for its answer; none if its connection ends before. A relay that asks us
/// to slow down is asked again when it says, if that is before `by`.
async fn ask(
    desk: &Desk,
    mut asked: Asked,
    event: Outgoing,
    by: Instant,
) -> (usize, Option<Answer>) {
    let relay = asked.relay;
    loop {
        let answer = answer(asked, event.clone()).await;
        let pause = match &answer {
            Some(Answer::Refused(refusal)) => refusal.pause(),
            _ => None,
        };
        let Some(pause) = pause.filter(|pause| Instant::now() + *pause < by) else {
            return (relay, answer);
        };
        sleep(pause).await;
        asked = match desk.expect_answer(relay, event.id) {
            Some(asked) => asked,
            None => return (relay, None),
        };
    }
}

async fn answer(asked: Asked, event: Outgoing) -> Option<Answer> {
    asked.events.send(event).await.ok()?;
    asked.answer.await.ok()
}
