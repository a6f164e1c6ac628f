//! The events that one connection has carried to a relay and that it has not answered yet, and those that it has
//! refused for the moment: they are sent again once it knows enough of us, or when it says.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nostr::EventId;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::demand::Demand;

/// The most events that are kept until they are answered, and their bytes. A relay that answers nothing to ephemeral
/// events is no burden: the oldest are forgotten.
const MAX_KEPT: usize = 512;
const MAX_KEPT_BYTES: usize = 8 << 20;

/// How often an event is sent again on one connection because the relay knows more of us.
const MAX_AGAIN: u8 = 3;

/// How long an event is tried for on one connection. Whoever still wants it published by then says so again.
const MAX_AGE: Duration = Duration::from_secs(60);

/// An event on its way to a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) id: EventId,
    /// The message that carries it.
    pub(super) frame: Utf8Bytes,
}

/// Shared by the two halves of a connection.
#[derive(Debug)]
pub(super) struct Outstanding {
    state: Mutex<State>,
    /// Whether events are held back behind one that the relay has refused for the moment.
    is_held: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    written: VecDeque<Kept>,
    /// With the relay's words.
    refused: VecDeque<(Kept, String)>,
    /// Of those that are written.
    bytes: usize,
    refused_bytes: usize,
}

#[derive(Debug)]
struct Kept {
    event: Outgoing,
    since: Instant,
    again: u8,
}

/// An event that a relay has answered, with how often it was sent again.
#[derive(Debug)]
pub(super) struct Answered(Kept);

impl Outstanding {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            is_held: watch::Sender::new(false),
        }
    }

    /// Follows whether events are held back.
    pub(super) fn held(&self) -> watch::Receiver<bool> {
        self.is_held.subscribe()
    }

    /// An event is about to be written.
    pub(super) fn written(&self, event: Outgoing) {
        self.state().push(Kept {
            event,
            since: Instant::now(),
            again: 0,
        });
    }

    /// The relay has answered to an event; none if it was not kept.
    pub(super) fn answered(&self, id: &EventId) -> Option<Answered> {
        let mut state = self.state();
        // Answers come in order, mostly: it is the first, or near.
        let place = state.written.iter().position(|kept| kept.event.id == *id)?;
        let kept = state.written.remove(place)?;
        state.bytes -= kept.event.frame.len();
        Some(Answered(kept))
    }

    /// Keeps an event that the relay has refused for the moment, and holds back what follows; false if it was tried
    /// long enough, or too many are kept.
    pub(super) fn refused(&self, Answered(mut kept): Answered, words: String) -> bool {
        let mut state = self.state();
        // Who is too fast is late, not wrong: it comes through in the end.
        kept.again += u8::from(is_for_standing(&words));
        let is_over = kept.again > MAX_AGAIN || kept.since.elapsed() >= MAX_AGE;
        let bytes = state.refused_bytes + kept.event.frame.len();
        if is_over || state.refused.len() >= MAX_KEPT || bytes > MAX_KEPT_BYTES {
            return false;
        }
        state.refused_bytes = bytes;
        state.refused.push_back((kept, words));
        drop(state);
        self.is_held.send_replace(true);
        true
    }

    /// What was refused is about to be sent again, in order, before all that was held back.
    pub(super) fn resume(&self) -> Vec<Utf8Bytes> {
        let mut state = self.state();
        state.refused_bytes = 0;
        let again = std::mem::take(&mut state.refused).into_iter();
        let mut frames = Vec::with_capacity(again.len());
        for (kept, _) in again {
            frames.push(kept.event.frame.clone());
            state.push(kept);
        }
        frames
    }

    /// Nothing is held back any more.
    pub(super) fn release(&self) {
        self.is_held.send_if_modified(std::mem::take);
    }

    /// What was refused for want of standing is refused for good, and with these words.
    pub(super) fn give_up(&self) -> Vec<(EventId, String)> {
        let mut state = self.state();
        let refused = std::mem::take(&mut state.refused).into_iter();
        let (lost, kept): (VecDeque<_>, _) = refused.partition(|(_, words)| is_for_standing(words));
        state.refused = kept;
        let bytes = |(kept, _): &(Kept, String)| kept.event.frame.len();
        state.refused_bytes = state.refused.iter().map(bytes).sum();
        let lost = lost.into_iter();
        lost.map(|(kept, words)| (kept.event.id, words)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_for_standing(words: &str) -> bool {
    matches!(Demand::in_words(words), Demand::Standing(_))
}

impl State {
    fn push(&mut self, kept: Kept) {
        self.bytes += kept.event.frame.len();
        self.written.push_back(kept);
        while self.written.len() > MAX_KEPT || self.bytes > MAX_KEPT_BYTES {
            let Some(oldest) = self.written.pop_front() else {
                return;
            };
            self.bytes -= oldest.event.frame.len();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn event(number: u16, bytes: usize) -> Outgoing {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        Outgoing {
            id: EventId::from_byte_array(id),
            frame: format!("{number} {}", "x".repeat(bytes)).into(),
        }
    }

    #[test]
    fn what_is_refused_for_the_moment_holds_back_what_follows_and_goes_first() {
        let outstanding = Outstanding::new();
        let held = outstanding.held();
        for number in 1..=3 {
            outstanding.written(event(number, 10));
        }
        for number in [1, 3] {
            assert!(!*held.borrow() || number == 3);
            let answered = outstanding.answered(&event(number, 10).id).unwrap();
            assert!(outstanding.refused(answered, "pow: 9 bits".into()));
        }
        assert!(*held.borrow());
        assert_eq!(
            outstanding.resume(),
            [event(1, 10).frame, event(3, 10).frame]
        );
        outstanding.release();
        assert!(!*held.borrow());
        assert!(outstanding.answered(&event(3, 10).id).is_some());
        assert!(outstanding.answered(&event(3, 10).id).is_none(), "once");
    }

    #[test]
    fn an_event_is_sent_again_a_few_times_only() {
        let outstanding = Outstanding::new();
        let event = event(1, 10);
        outstanding.written(event.clone());
        for _ in 0..MAX_AGAIN {
            let answered = outstanding.answered(&event.id).unwrap();
            assert!(outstanding.refused(answered, "pow: 9 bits".into()));
            assert_eq!(outstanding.resume().len(), 1);
        }
        let answered = outstanding.answered(&event.id).unwrap();
        assert!(!outstanding.refused(answered, "pow: 9 bits".into()));
        assert_eq!(outstanding.give_up(), []);
    }

    #[test]
    fn who_is_too_fast_comes_through_in_the_end() {
        let outstanding = Outstanding::new();
        let (fast, poor) = (event(1, 10), event(2, 10));
        outstanding.written(fast.clone());
        let slow_down = "rate-limited: again in 1 s";
        for _ in 0..3 * MAX_AGAIN {
            let answered = outstanding.answered(&fast.id).unwrap();
            assert!(outstanding.refused(answered, slow_down.into()));
            assert_eq!(outstanding.resume().len(), 1);
        }
        outstanding.written(poor.clone());
        for (event, words) in [(&fast, slow_down), (&poor, "pow: 9 bits")] {
            let answered = outstanding.answered(&event.id).unwrap();
            assert!(outstanding.refused(answered, words.into()));
        }
        assert_eq!(outstanding.give_up(), [(poor.id, "pow: 9 bits".into())]);
        assert_eq!(outstanding.resume(), [fast.frame]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_tried_for_ever_nor_kept_without_bound() {
        let outstanding = Outstanding::new();
        let slow_down = || "rate-limited: again in 1 s".to_owned();
        let refused = |number, bytes| {
            let event = event(number, bytes);
            outstanding.written(event.clone());
            let answered = outstanding.answered(&event.id).unwrap();
            outstanding.refused(answered, slow_down())
        };
        assert!(refused(1, MAX_KEPT_BYTES / 2) && refused(2, MAX_KEPT_BYTES / 4));
        assert!(!refused(3, MAX_KEPT_BYTES / 2), "too much");
        assert_eq!(outstanding.resume().len(), 2);
        assert!(refused(4, MAX_KEPT_BYTES / 2), "room again");
        tokio::time::advance(MAX_AGE).await;
        let old = outstanding.answered(&event(2, 0).id).unwrap();
        assert!(!outstanding.refused(old, slow_down()), "too old");
    }

    #[test]
    fn what_no_relay_answers_is_forgotten() {
        let outstanding = Outstanding::new();
        for number in 0..=512 {
            outstanding.written(event(number, 10));
        }
        assert!(outstanding.answered(&event(0, 10).id).is_none());
        assert!(outstanding.answered(&event(1, 10).id).is_some());
        let large = Outstanding::new();
        for number in 0..3 {
            large.written(event(number, MAX_KEPT_BYTES / 2));
        }
        assert!(large.answered(&event(0, 10).id).is_none());
        assert!(large.answered(&event(2, 10).id).is_some());
    }
}
