//! Reading: subscriptions that stay open, and asking once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nostr::{Event, EventId, Filter, SubscriptionId};
use tokio::time::{Instant, timeout_at};

use super::Link;
use super::error::{Error, Refusal};
use super::inbox::Inbox;

/// The most bytes that one [`Link::fetch`] answers; what comes beyond is left out.
const MAX_FETCHED_BYTES: usize = 64 << 20;

/// What a subscription hands its reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// An event that matches one of the filters: verified, not expired, the first of its id.
    Event(Box<Event>),
    /// The relays that were asked have sent what they have stored; from here on events are new. Comes again when a
    /// relay comes (back) and has sent what it has stored.
    EndOfStored,
    /// Events may have been lost: a relay has come (back) that was not listening, or this reader was too slow. Stored
    /// events of a relay that came back follow by themselves; ephemeral ones have to be asked for again.
    Gap,
}

/// A subscription on all relays, also on those that come back. Closed when dropped.
pub struct Subscription {
    id: SubscriptionId,
    inbox: Arc<Inbox>,
    link: Link,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscription").field(&self.id).finish()
    }
}

impl Subscription {
    /// Waits for the next delivery; nothing when the link has been shut down. Safe to cancel.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.inbox.take() {
                return Some(delivery);
            }
            if self.more().await.is_err() {
                return self.inbox.take();
            }
        }
    }

    /// Waits until there may be more.
    async fn more(&self) -> Result<(), Error> {
        tokio::select! {
            () = self.inbox.arrived() => Ok(()),
            () = self.link.desk.stop.cancelled() => Err(Error::Stopped),
        }
    }

    /// What the relays said that do not serve this subscription.
    fn refused(&self) -> Error {
        let refusals = self.inbox.refusals().into_iter();
        let desk = &self.link.desk;
        Error::Refused(
            refusals
                .map(|(relay, words)| desk.trouble(relay, Refusal::of(&words)))
                .collect(),
        )
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.link.desk.close(&self.id);
    }
}

impl Link {
    /// Opens a subscription for events that match one of `filters`, stored and new.
    ///
    /// It is queued for every connected relay before anything that is published after this call, so an answer to a
    /// later event is not missed.
    ///
    /// # Errors
    /// Too many open subscriptions, or a link that has been shut down. That no relay is connected is no error: the
    /// subscription begins when one is.
    pub fn subscribe(&self, filters: Vec<Filter>) -> Result<Subscription, Error> {
        let (id, inbox) = self.desk.open(filters)?;
        Ok(Subscription {
            id,
            inbox,
            link: self.clone(),
        })
    }

    /// The stored events that match one of `filters`, from all relays that are connected, by time and then id; what
    /// has come when `timeout` is over, if a relay is slower. A relay answers as many as it sees fit (often 500): set
    /// limits, and ask further with `until`.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no relay is connected or none answers in time, [`Error::Refused`] if all refuse.
    pub async fn fetch(
        &self,
        filters: Vec<Filter>,
        timeout: Duration,
    ) -> Result<Vec<Event>, Error> {
        let deadline = Instant::now() + timeout;
        if !self.relays().iter().any(|relay| relay.connected) {
            return Err(self.desk.unreachable());
        }
        let subscription = self.subscribe(filters)?;
        let mut fetched = Fetched::default();
        let ended = timeout_at(deadline, fetched.collect(&subscription)).await;
        match ended {
            Ok(Ok(())) => Ok(fetched.sorted()),
            Ok(Err(error)) => Err(error),
            Err(_) if fetched.is_empty() && !subscription.inbox.is_answered() => {
                Err(self.desk.unreachable())
            }
            Err(_) => Ok(fetched.sorted()),
        }
    }
}

#[derive(Default)]
struct Fetched {
    events: HashMap<EventId, Event>,
    bytes: usize,
}

impl Fetched {
    /// Collects until the relays have sent what they have stored.
    async fn collect(&mut self, from: &Subscription) -> Result<(), Error> {
        loop {
            match from.inbox.take() {
                Some(Delivery::Event(event)) => self.keep(*event),
                Some(Delivery::EndOfStored) => return Ok(()),
                Some(Delivery::Gap) => {}
                None if self.is_empty() && from.inbox.is_refused() => return Err(from.refused()),
                None => from.more().await?,
            }
        }
    }

    fn keep(&mut self, event: Event) {
        let words = event.tags.iter().flat_map(|tag| tag.as_slice());
        let bytes = event.content.len() + words.map(String::len).sum::<usize>();
        if self.bytes + bytes <= MAX_FETCHED_BYTES {
            self.bytes += bytes;
            self.events.insert(event.id, event);
        }
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn sorted(self) -> Vec<Event> {
        let mut events: Vec<Event> = self.events.into_values().collect();
        events.sort_by_key(|event| (event.created_at, event.id));
        events
    }
}
