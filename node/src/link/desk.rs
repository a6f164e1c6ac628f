//! What the tasks of a link share: the lines to the relays, the open inboxes, and who waits for which answer.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nostr::message::ClientMessage;
use nostr::{EventId, Filter, JsonUtil, RelayUrl, SubscriptionId};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::{Error, Refusal, Trouble};
use super::inbox::Inbox;
use super::outstanding::Outgoing;
use super::{MAX_RELAYS, Options, RelayStatus};

/// How many subscriptions may be open at once; relays allow few for one connection, some only 20.
const MAX_SUBSCRIPTIONS: usize = 256;

/// The shared state. Its lock is held for moments only and never across an await; an inbox's lock may be taken
/// inside it, never the other way round.
pub(super) struct Desk {
    pub(super) options: Options,
    pub(super) statuses: watch::Sender<Vec<RelayStatus>>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// Who may work for a relay at the moment: one, so that the other cores are left to the market.
    pub(super) working: Arc<Semaphore>,
    state: Mutex<State>,
    next_subscription: AtomicU64,
}

struct State {
    /// By relay; none while it is not connected.
    lines: Vec<Option<Line>>,
    inboxes: HashMap<SubscriptionId, Arc<Inbox>>,
}

/// The writing end of one connection.
pub(super) struct Line {
    /// Requests and closings, which go before events. Unbounded as a channel; what is open is bounded by
    /// [`MAX_SUBSCRIPTIONS`], and a connection that does not take them ends by its write timeout.
    pub(super) requests: mpsc::UnboundedSender<Utf8Bytes>,
    /// Events, in order.
    pub(super) events: mpsc::Sender<Outgoing>,
    waiting: HashMap<EventId, Vec<oneshot::Sender<Answer>>>,
    /// The words of a relay that takes nothing for a moment.
    slowed: Option<Refusal>,
}

/// A relay's answer to an event (`OK`).
#[derive(Debug)]
pub(super) enum Answer {
    Accepted,
    Refused(Refusal),
}

/// One relay that is being asked to take an event.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) relay: usize,
    pub(super) events: mpsc::Sender<Outgoing>,
    pub(super) answer: oneshot::Receiver<Answer>,
}

impl Line {
    pub(super) fn new(
        requests: mpsc::UnboundedSender<Utf8Bytes>,
        events: mpsc::Sender<Outgoing>,
    ) -> Self {
        Self {
            requests,
            events,
            waiting: HashMap::new(),
            slowed: None,
        }
    }

    fn request(&self, message: ClientMessage<'_>) {
        // A line whose connection has just ended is about to be taken away: whoever comes back asks again.
        let _ = self.requests.send(message.as_json().into());
    }

    fn expect_answer(&mut self, relay: usize, id: EventId) -> Asked {
        let (tell, answer) = oneshot::channel();
        self.waiting.entry(id).or_default().push(tell);
        Asked {
            relay,
            events: self.events.clone(),
            answer,
        }
    }

    fn ask_for(&self, id: &SubscriptionId, inbox: &Inbox) {
        self.request(ClientMessage::req(id.clone(), inbox.filters.clone()));
    }
}

impl Desk {
    pub(super) fn new(mut options: Options, stop: CancellationToken) -> Result<Self, Error> {
        let mut known = BTreeSet::new();
        options.relays.retain(|url| known.insert(url.clone()));
        let relays = match options.relays.len() {
            0 => return Err(Error::NoRelay),
            many @ MAX_RELAYS.. if many > MAX_RELAYS => return Err(Error::TooManyRelays(many)),
            relays => relays,
        };
        let begun = options.relays.iter().map(RelayStatus::begun).collect();
        Ok(Self {
            statuses: watch::Sender::new(begun),
            options,
            stop,
            tasks: TaskTracker::new(),
            working: Arc::new(Semaphore::new(1)),
            state: Mutex::new(State {
                lines: (0..relays).map(|_| None).collect(),
                inboxes: HashMap::new(),
            }),
            next_subscription: AtomicU64::new(0),
        })
    }

    pub(super) fn relays(&self) -> usize {
        self.options.relays.len()
    }

    pub(super) fn url(&self, relay: usize) -> &RelayUrl {
        &self.options.relays[relay]
    }

    pub(super) fn trouble(&self, relay: usize, refusal: Refusal) -> Trouble {
        Trouble::said(self.url(relay).clone(), refusal)
    }

    /// Why no relay can be reached.
    pub(super) fn unreachable(&self) -> Error {
        if self.stop.is_cancelled() {
            return Error::Stopped;
        }
        let statuses = self.statuses.borrow();
        Error::Unreachable(statuses.iter().map(RelayStatus::explained).collect())
    }

    /// Opens an inbox, and asks every connected relay to fill it.
    pub(super) fn open(&self, filters: Vec<Filter>) -> Result<(SubscriptionId, Arc<Inbox>), Error> {
        if self.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        let number = self.next_subscription.fetch_add(1, Ordering::Relaxed);
        let id = SubscriptionId::new(format!("s{number}"));
        let mut state = self.state();
        if state.inboxes.len() >= MAX_SUBSCRIPTIONS {
            return Err(Error::TooManySubscriptions(MAX_SUBSCRIPTIONS));
        }
        let inbox = Arc::new(Inbox::new(filters, state.connected()));
        for line in state.lines.iter().flatten() {
            line.ask_for(&id, &inbox);
        }
        state.inboxes.insert(id.clone(), inbox.clone());
        Ok((id, inbox))
    }

    /// Closes an inbox, and tells the relays.
    pub(super) fn close(&self, id: &SubscriptionId) {
        let mut state = self.state();
        state.inboxes.remove(id);
        for line in state.lines.iter().flatten() {
            line.request(ClientMessage::close(id.clone()));
        }
    }

    pub(super) fn inbox(&self, id: &SubscriptionId) -> Option<Arc<Inbox>> {
        self.state().inboxes.get(id).cloned()
    }

    /// A relay is connected: from now on it is written to, and it is asked for everything that is open.
    pub(super) fn connected(&self, relay: usize, line: Line) {
        let mut state = self.state();
        for (id, inbox) in &state.inboxes {
            line.ask_for(id, inbox);
            inbox.joined(relay);
        }
        state.lines[relay] = Some(line);
        drop(state);
        tracing::info!(relay = %self.url(relay), "connected");
        self.report(relay, |status| {
            status.connected = true;
            status.sessions += 1;
            status.trouble = None;
        });
    }

    /// A relay's connection has ended: who waits for its answers waits no longer.
    pub(super) fn lost(&self, relay: usize, why: &str) {
        let mut state = self.state();
        state.lines[relay] = None;
        for inbox in state.inboxes.values() {
            inbox.left(relay);
        }
        drop(state);
        tracing::info!(relay = %self.url(relay), why, "disconnected");
        self.failed(relay, why);
    }

    /// A relay is not connected, and this is why.
    pub(super) fn failed(&self, relay: usize, why: &str) {
        self.report(relay, |status| {
            status.connected = false;
            status.trouble = Some(why.to_owned());
        });
    }

    /// A relay that is connected wants something of us: it is being done, or is not, and why.
    pub(super) fn wants(&self, relay: usize, what: &str, not_done: Option<&str>) {
        let trouble = match not_done {
            None => format!("{what}; it is being done"),
            Some(why) => format!("{what}; {why}"),
        };
        let is_new = self.report(relay, |status| status.trouble = Some(trouble.clone()));
        match (is_new, not_done) {
            (false, _) => {}
            (true, None) => tracing::info!(relay = %self.url(relay), "the relay {trouble}"),
            (true, Some(_)) => tracing::warn!(relay = %self.url(relay), "the relay {trouble}"),
        }
    }

    /// A relay that is connected wants nothing of us that it has not got.
    pub(super) fn content(&self, relay: usize) {
        self.report(relay, |status| status.trouble = None);
    }

    /// A relay takes nothing for a moment, or all again.
    pub(super) fn slowed(&self, relay: usize, words: Option<Refusal>) {
        if let Some(line) = &mut self.state().lines[relay] {
            line.slowed = words;
        }
    }

    /// What the relays said that take nothing for a moment.
    pub(super) fn slow(&self) -> Vec<Trouble> {
        let state = self.state();
        let lines = state.lines.iter().enumerate();
        let slow = lines.filter_map(|(relay, line)| Some((relay, line.as_ref()?.slowed.clone()?)));
        slow.map(|(relay, words)| self.trouble(relay, words))
            .collect()
    }

    /// What the relays want that are connected.
    pub(super) fn wanted(&self) -> Vec<Trouble> {
        let statuses = self.statuses.borrow();
        let wanting = statuses.iter().filter(|status| status.connected);
        let wanting = wanting.filter(|status| status.trouble.is_some());
        wanting.map(RelayStatus::explained).collect()
    }

    /// Changes what is known of a relay; whether that is anything new.
    fn report(&self, relay: usize, change: impl FnOnce(&mut RelayStatus)) -> bool {
        self.statuses.send_if_modified(|statuses| {
            let before = statuses[relay].clone();
            change(&mut statuses[relay]);
            statuses[relay] != before
        })
    }

    /// Asks a relay once more for the subscriptions that it has refused.
    pub(super) fn ask_again(&self, relay: usize) {
        let state = self.state();
        let Some(line) = &state.lines[relay] else {
            return;
        };
        for (id, inbox) in &state.inboxes {
            if inbox.is_refused_by(relay) {
                line.ask_for(id, inbox);
                inbox.joined(relay);
            }
        }
    }

    /// Asks a relay once more for these subscriptions, as far as they are still open.
    pub(super) fn ask_for<'a>(
        &self,
        relay: usize,
        ids: impl IntoIterator<Item = &'a SubscriptionId>,
    ) {
        let state = self.state();
        let Some(line) = &state.lines[relay] else {
            return;
        };
        for id in ids {
            if let Some(inbox) = state.inboxes.get(id) {
                line.ask_for(id, inbox);
                inbox.joined(relay);
            }
        }
    }

    /// Writes an event to one relay before those that are queued.
    pub(super) fn write_first(&self, relay: usize, frame: Utf8Bytes) {
        if let Some(line) = &self.state().lines[relay] {
            // As for requests.
            let _ = line.requests.send(frame);
        }
    }

    /// Writes a request to one relay.
    pub(super) fn request(&self, relay: usize, message: ClientMessage<'_>) {
        if let Some(line) = &self.state().lines[relay] {
            line.request(message);
        }
    }

    /// The event queue of every connected relay.
    pub(super) fn lines(&self) -> Vec<mpsc::Sender<Outgoing>> {
        let state = self.state();
        let connected = state.lines.iter().flatten();
        connected.map(|line| line.events.clone()).collect()
    }

    /// Registers with every connected relay for its answer to the event `id`.
    pub(super) fn expect_answers(&self, id: EventId) -> Vec<Asked> {
        let mut state = self.state();
        let lines = state.lines.iter_mut().enumerate();
        let connected = lines.filter_map(|(relay, line)| Some((relay, line.as_mut()?)));
        let asked = connected.map(|(relay, line)| line.expect_answer(relay, id));
        asked.collect()
    }

    /// Registers with one relay for its answer to the event `id`; none if it is not connected.
    pub(super) fn expect_answer(&self, relay: usize, id: EventId) -> Option<Asked> {
        let mut state = self.state();
        let line = state.lines[relay].as_mut()?;
        Some(line.expect_answer(relay, id))
    }

    /// Forgets those who no longer wait for an answer to the event `id`.
    pub(super) fn forget_answers(&self, id: &EventId) {
        let mut state = self.state();
        for line in state.lines.iter_mut().flatten() {
            if let Some(waiting) = line.waiting.get_mut(id) {
                waiting.retain(|one| !one.is_closed());
                if waiting.is_empty() {
                    line.waiting.remove(id);
                }
            }
        }
    }

    /// A relay has answered to the event `id`; false if nobody waits for it.
    pub(super) fn answered(&self, relay: usize, id: &EventId, answer: impl Fn() -> Answer) -> bool {
        let mut state = self.state();
        let line = state.lines[relay].as_mut();
        let waiting = line.and_then(|line| line.waiting.remove(id));
        let waiting = waiting.unwrap_or_default();
        let any = !waiting.is_empty();
        for one in waiting {
            // Whoever has stopped waiting does not mind.
            let _ = one.send(answer());
        }
        any
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn connected(&self) -> BTreeSet<usize> {
        let lines = self.lines.iter().enumerate();
        let connected = lines.filter(|(_, line)| line.is_some());
        connected.map(|(relay, _)| relay).collect()
    }
}

impl RelayStatus {
    fn begun(url: &RelayUrl) -> Self {
        Self {
            url: url.clone(),
            connected: false,
            sessions: 0,
            trouble: None,
        }
    }

    fn explained(&self) -> Trouble {
        let otherwise = if self.connected {
            "no answer"
        } else {
            "not connected yet"
        };
        Trouble {
            relay: self.url.clone(),
            reason: self.trouble.clone().unwrap_or_else(|| otherwise.to_owned()),
            is_final: false,
        }
    }
}
