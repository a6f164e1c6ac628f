//! What one subscription has received: the checks on the way in, and the queue to its reader.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nostr::filter::MatchEventOptions;
use nostr::{Event, EventId, Filter, Timestamp};
use tokio::sync::Notify;

use super::subscription::Delivery;

/// Events that may wait for a slow reader; beyond it they are dropped and the reader is told of a gap.
const MAX_QUEUED: usize = 4_096;

/// Bytes of events that may wait for a slow reader.
const MAX_QUEUED_BYTES: usize = 32 << 20;

/// How many ids are remembered to tell an event that comes again. Older ones are forgotten: readers take an event
/// that comes twice as one, this only makes it rare.
const MAX_SEEN: usize = 16_384;

/// NIP-50 searches are the relay's own art, so their words are not matched here.
const MATCH: MatchEventOptions = MatchEventOptions::new().nip50(false);

/// Why an event was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// No filter asks for it.
    Unasked,
    /// Its time is over (NIP-40).
    Expired,
    /// It came before.
    Again,
    /// Its id or its signature is wrong.
    Forged,
    /// The reader is too slow.
    Full,
}

/// The receiving end of one subscription, filled by the tasks of all relays.
pub(super) struct Inbox {
    /// What was asked for: an event has to match one of them.
    pub(super) filters: Vec<Filter>,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(usize, Delivery)>,
    queued_bytes: usize,
    seen: Seen,
    missed: bool,
    stored: Stored,
}

/// How far the relays are with what they have stored.
#[derive(Debug, Default)]
struct Stored {
    /// Relays that were asked and are still sending.
    awaited: BTreeSet<usize>,
    /// Whether any of them has answered at all since the reader was last told.
    answered: bool,
    /// What relays said that do not serve this subscription (now).
    refused: BTreeMap<usize, String>,
}

impl Inbox {
    /// An inbox for `filters` that `relays` have been asked for.
    pub(super) fn new(filters: Vec<Filter>, relays: BTreeSet<usize>) -> Self {
        let mut state = State::default();
        state.stored.awaited = relays;
        Self {
            filters,
            state: Mutex::new(state),
            arrived: Notify::new(),
        }
    }

    /// Lets in an event of `bytes` length that a relay sent at `now`, or says why not.
    pub(super) fn admit(&self, event: Event, bytes: usize, now: Timestamp) -> Result<(), Dropped> {
        let asked = |filter: &Filter| filter.match_event(&event, MATCH);
        if !self.filters.iter().any(asked) {
            return Err(Dropped::Unasked);
        }
        if event.is_expired_at(&now) {
            return Err(Dropped::Expired);
        }
        // Only verified ids are remembered, so a forgery cannot keep the true event out.
        if self.state().seen.contains(&event.id) {
            return Err(Dropped::Again);
        }
        event.verify().map_err(|_| Dropped::Forged)?;
        self.state().push(event, bytes)?;
        self.arrived.notify_one();
        Ok(())
    }

    /// A relay was asked that had not been listening before: events may have passed by.
    pub(super) fn joined(&self, relay: usize) {
        let mut state = self.state();
        state.stored.refused.remove(&relay);
        state.stored.awaited.insert(relay);
        state.missed = true;
        drop(state);
        self.arrived.notify_one();
    }

    /// A relay is gone: what it has stored is no longer waited for.
    pub(super) fn left(&self, relay: usize) {
        self.state().stored.awaited.remove(&relay);
        self.settle_stored();
    }

    /// A relay has sent all that it has stored.
    pub(super) fn stored_sent(&self, relay: usize) {
        let mut state = self.state();
        if state.stored.awaited.remove(&relay) {
            state.stored.answered = true;
        }
        drop(state);
        self.settle_stored();
    }

    /// A relay does not serve this subscription (any more).
    pub(super) fn refused(&self, relay: usize, reason: String) {
        let mut state = self.state();
        state.stored.awaited.remove(&relay);
        state.stored.refused.insert(relay, reason);
        drop(state);
        self.settle_stored();
    }

    /// Whether `relay` does not serve this subscription.
    pub(super) fn is_refused_by(&self, relay: usize) -> bool {
        self.state().stored.refused.contains_key(&relay)
    }

    /// Whether `relay` has sent all that it has stored.
    pub(super) fn is_served_by(&self, relay: usize) -> bool {
        let stored = &self.state().stored;
        !stored.awaited.contains(&relay) && !stored.refused.contains_key(&relay)
    }

    /// Whether all relays that were asked said no.
    pub(super) fn is_refused(&self) -> bool {
        let stored = &self.state().stored;
        stored.awaited.is_empty() && !stored.answered && !stored.refused.is_empty()
    }

    /// What the relays said that do not serve this subscription.
    pub(super) fn refusals(&self) -> BTreeMap<usize, String> {
        self.state().stored.refused.clone()
    }

    /// Whether a relay has sent all that it has stored while others are still sending.
    pub(super) fn is_answered(&self) -> bool {
        self.state().stored.answered
    }

    /// Tells the reader when no relay is still sending what it has stored, and at least one did.
    fn settle_stored(&self) {
        let mut state = self.state();
        if state.stored.awaited.is_empty() && std::mem::take(&mut state.stored.answered) {
            state.queue.push_back((0, Delivery::EndOfStored));
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// The next delivery, if there is one. A gap comes before everything that is queued.
    pub(super) fn take(&self) -> Option<Delivery> {
        let mut state = self.state();
        if std::mem::take(&mut state.missed) {
            return Some(Delivery::Gap);
        }
        let (bytes, delivery) = state.queue.pop_front()?;
        state.queued_bytes -= bytes;
        Some(delivery)
    }

    /// Waits until something may have arrived.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, event: Event, bytes: usize) -> Result<(), Dropped> {
        let full = self.queue.len() >= MAX_QUEUED || self.queued_bytes + bytes > MAX_QUEUED_BYTES;
        if full {
            self.missed = true;
            return Err(Dropped::Full);
        }
        if !self.seen.insert(event.id) {
            return Err(Dropped::Again);
        }
        self.queued_bytes += bytes;
        self.queue
            .push_back((bytes, Delivery::Event(Box::new(event))));
        Ok(())
    }
}

/// The last [`MAX_SEEN`] ids.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<EventId>,
    order: VecDeque<EventId>,
}

impl Seen {
    fn contains(&self, id: &EventId) -> bool {
        self.ids.contains(id)
    }

    /// Remembers `id`; false if it is known.
    fn insert(&mut self, id: EventId) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_SEEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, Keys, Kind, Tag};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn note(content: &str) -> Event {
        signed(EventBuilder::text_note(content))
    }

    fn signed(builder: EventBuilder) -> Event {
        builder.sign_with_keys(&Keys::generate()).unwrap()
    }

    fn inbox() -> Inbox {
        Inbox::new(
            vec![Filter::new().kind(Kind::TextNote)],
            BTreeSet::from([0, 1]),
        )
    }

    fn all(inbox: &Inbox) -> Vec<Delivery> {
        std::iter::from_fn(|| inbox.take()).collect()
    }

    #[test]
    fn an_event_is_let_in_once() {
        let inbox = inbox();
        let event = note("hello");
        assert_eq!(inbox.admit(event.clone(), 10, NOW), Ok(()));
        assert_eq!(inbox.admit(event.clone(), 10, NOW), Err(Dropped::Again));
        assert_eq!(all(&inbox), [Delivery::Event(Box::new(event))]);
    }

    #[test]
    fn a_forgery_is_dropped_and_does_not_shut_the_true_event_out() {
        let inbox = inbox();
        let event = note("true");
        let mut altered = event.clone();
        altered.content = "altered".into();
        let mut unsigned = event.clone();
        unsigned.sig = note("other").sig;
        for forged in [altered, unsigned] {
            assert_eq!(inbox.admit(forged, 10, NOW), Err(Dropped::Forged));
        }
        assert_eq!(inbox.admit(event.clone(), 10, NOW), Ok(()));
        let mut later = event;
        later.content = "altered later".into();
        assert!(
            inbox.admit(later, 10, NOW).is_err(),
            "a known id is no proof"
        );
        assert_eq!(all(&inbox).len(), 1);
    }

    #[test]
    fn what_nobody_asked_for_and_what_expired_is_dropped() {
        let inbox = inbox();
        let unasked = signed(EventBuilder::new(Kind::Custom(8_600), ""));
        assert_eq!(inbox.admit(unasked, 10, NOW), Err(Dropped::Unasked));
        let expires = |at| signed(EventBuilder::text_note("").tag(Tag::expiration(at)));
        let over = inbox.admit(expires(NOW - 1), 10, NOW);
        assert_eq!(over, Err(Dropped::Expired));
        assert_eq!(inbox.admit(expires(NOW + 1), 10, NOW), Ok(()));
    }

    #[test]
    fn a_slow_reader_is_told_of_the_gap_and_gets_the_event_when_it_comes_again() {
        let inbox = inbox();
        let large = MAX_QUEUED_BYTES / 2;
        let dropped = note("third");
        assert_eq!(inbox.admit(note("first"), large, NOW), Ok(()));
        assert_eq!(inbox.admit(note("second"), large, NOW), Ok(()));
        let full = inbox.admit(dropped.clone(), 1, NOW);
        assert_eq!(full, Err(Dropped::Full));
        let got = all(&inbox);
        assert_eq!(got.len(), 3);
        assert_eq!(got[0], Delivery::Gap);
        assert_eq!(inbox.admit(dropped, 1, NOW), Ok(()));
    }

    #[test]
    fn the_queue_is_bounded_in_number() {
        let inbox = inbox();
        let keys = Keys::generate();
        let note = |n: usize| EventBuilder::text_note(n.to_string()).sign_with_keys(&keys);
        for n in 0..MAX_QUEUED {
            assert_eq!(inbox.admit(note(n).unwrap(), 1, NOW), Ok(()));
        }
        let full = inbox.admit(note(MAX_QUEUED).unwrap(), 1, NOW);
        assert_eq!(full, Err(Dropped::Full));
        assert_eq!(all(&inbox).len(), MAX_QUEUED + 1);
    }

    #[test]
    fn stored_events_end_when_the_last_relay_is_through_or_gone() {
        let inbox = inbox();
        inbox.stored_sent(0);
        inbox.stored_sent(0);
        assert_eq!(all(&inbox), []);
        inbox.left(1);
        assert_eq!(all(&inbox), [Delivery::EndOfStored]);
        inbox.joined(1);
        inbox.stored_sent(1);
        assert_eq!(all(&inbox), [Delivery::Gap, Delivery::EndOfStored]);
    }

    #[test]
    fn relays_that_go_without_an_answer_end_nothing() {
        let inbox = inbox();
        inbox.left(0);
        inbox.refused(1, "blocked: no".into());
        assert_eq!(all(&inbox), []);
        assert!(inbox.is_refused() && !inbox.is_answered());
        assert_eq!(inbox.refusals()[&1], "blocked: no");
    }

    #[test]
    fn the_memory_of_ids_is_bounded() {
        let mut seen = Seen::default();
        let id = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            EventId::from_byte_array(bytes)
        };
        for n in 0..=MAX_SEEN {
            assert!(seen.insert(id(n)));
        }
        assert_eq!(seen.ids.len(), MAX_SEEN);
        assert!(!seen.contains(&id(0)) && seen.contains(&id(MAX_SEEN)));
    }
}
