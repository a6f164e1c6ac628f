//! Who is told of an event.
//!
//! The [`Hub`] holds all subscriptions of all connections in an index, so that an event costs what it matches and not
//! what is connected. An event's JSON is written once and shared.
//!
//! A REQ hears first what is stored and then what comes: the subscription begins before the store is asked, and keeps
//! what comes live until the stored events are out ([`Answering::begin_live`]). An event that was answered as a
//! stored one and is only then told of live is known by its id: the hub knows which events are on their way
//! ([`Hub::expect`]).

mod index;
mod recent;

use std::collections::HashSet;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use nostr::filter::MatchEventOptions;
use nostr::{Event, EventId, Filter};

use crate::metrics::Metrics;
use crate::session::outbox::{Envelope, Outbox, Parcel};

use index::{Index, Key};
use recent::Recent;

/// Whether a client may see an event.
pub type Sight = Arc<dyn Fn(&Event) -> bool + Send + Sync>;

/// All subscriptions.
pub struct Hub {
    index: RwLock<Index<Arc<Ear>>>,
    /// Events that are being saved, and not told of yet.
    expected: Mutex<HashSet<EventId>>,
    ephemeral: Mutex<Recent>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

/// One subscription, as the hub knows it.
struct Ear {
    filters: Vec<Filter>,
    envelope: Arc<Envelope>,
    outbox: Arc<Outbox>,
    sight: Sight,
    phase: Mutex<Phase>,
}

/// What becomes of live events.
enum Phase {
    /// Stored events go out first; these wait.
    Answering(Vec<(EventId, Parcel)>),
    /// They are sent, aside from these, which were sent as stored ones.
    Live(HashSet<EventId>),
}

impl Hub {
    /// One without subscriptions.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            index: RwLock::default(),
            expected: Mutex::default(),
            ephemeral: Mutex::default(),
            metrics,
        })
    }

    /// Begins a subscription to whatever matches one of `filters` and is in `sight`. It ends when it is dropped.
    pub fn subscribe(
        self: &Arc<Self>,
        filters: Vec<Filter>,
        envelope: Envelope,
        outbox: Arc<Outbox>,
        sight: Sight,
    ) -> Subscription {
        let keys = index::keys(&filters);
        let ear = Arc::new(Ear {
            filters,
            envelope: Arc::new(envelope),
            outbox,
            sight,
            phase: Mutex::new(Phase::Answering(Vec::new())),
        });
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let number = index.insert(&keys, ear.clone());
        drop(index);
        self.metrics.subscription_opened();
        Subscription {
            hub: self.clone(),
            number,
            keys,
            ear,
        }
    }

    /// Says that an event is being saved, and told of as soon as it is. To be called before it is saved and dropped
    /// after it is published.
    pub fn expect(self: &Arc<Self>, id: EventId) -> Expected {
        let new = lock(&self.expected).insert(id);
        Expected {
            hub: self.clone(),
            id: new.then_some(id),
        }
    }

    /// Tells all whom it concerns of an event.
    pub fn publish(&self, event: &Event, json: &Bytes) {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let ears = index.candidates(event);
        drop(index);
        let heard = ears.iter().filter(|ear| ear.wants(event));
        let delivered = heard.filter(|ear| ear.tell(event.id, json)).count();
        self.metrics.delivered(delivered as u64);
    }

    /// Whether an ephemeral event was told of lately.
    pub fn is_old_news(&self, id: &EventId) -> bool {
        lock(&self.ephemeral).contains(id)
    }

    /// Tells of an ephemeral event, unless it was told of lately.
    pub fn publish_once(&self, event: &Event, json: &Bytes) {
        if lock(&self.ephemeral).insert(event.id) {
            self.publish(event, json);
        }
    }
}

impl Ear {
    fn wants(&self, event: &Event) -> bool {
        let mut filters = self.filters.iter();
        filters.any(|filter| filter.match_event(event, MatchEventOptions::new()))
            && (self.sight)(event)
    }

    /// Sends a live event, or keeps it for later, and answers whether it did.
    fn tell(&self, id: EventId, json: &Bytes) -> bool {
        let parcel = Parcel::Event {
            envelope: self.envelope.clone(),
            json: json.clone(),
        };
        match &mut *lock(&self.phase) {
            Phase::Live(answered) => !answered.remove(&id) && self.outbox.push(parcel).is_ok(),
            Phase::Answering(held) => {
                let held_too = self.outbox.hold(&parcel).is_ok();
                if held_too {
                    held.push((id, parcel));
                }
                held_too
            }
        }
    }
}

/// An event is on its way, until this is dropped.
#[derive(Debug)]
pub struct Expected {
    hub: Arc<Hub>,
    /// None where somebody else's save of the same event is on its way already.
    id: Option<EventId>,
}

impl Drop for Expected {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            lock(&self.hub.expected).remove(id);
        }
    }
}

/// A subscription, which ends when this is dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    number: u64,
    keys: Vec<Key>,
    ear: Arc<Ear>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Subscription").field(&self.number).finish()
    }
}

impl Subscription {
    /// Whether it was given up since.
    pub fn is_closed(&self) -> bool {
        self.ear.envelope.is_closed()
    }

    /// A way to let it go on after its stored events.
    pub fn answering(&self) -> Answering {
        Answering {
            hub: self.hub.clone(),
            ear: self.ear.clone(),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.ear.envelope.close();
        let index = self.hub.index.write();
        index
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.keys, self.number);
        self.hub.metrics.subscriptions_closed(1);
        if let Phase::Answering(held) = &mut *lock(&self.ear.phase) {
            let held = mem::take(held);
            let bytes = held.iter().map(|(_, parcel)| parcel.weight()).sum();
            self.ear.outbox.give_back(held.len(), bytes);
        }
    }
}

/// A subscription whose stored events are being sent.
pub struct Answering {
    hub: Arc<Hub>,
    ear: Arc<Ear>,
}

impl Answering {
    /// What its stored events are sent in.
    pub fn envelope(&self) -> &Arc<Envelope> {
        &self.ear.envelope
    }

    /// The stored events, of which these were `answered`, are out: sends `end`, then what came live meanwhile, and
    /// from now on each event as it comes.
    pub fn begin_live(self, answered: &HashSet<EventId>, end: String) {
        let mut phase = lock(&self.ear.phase);
        let Phase::Answering(held) = &mut *phase else {
            return;
        };
        let held = mem::take(held);
        let told: HashSet<EventId> = held.iter().map(|(id, _)| *id).collect();
        let expected = lock(&self.hub.expected);
        let coming = expected.iter().filter(|id| answered.contains(*id));
        let coming = coming.filter(|id| !told.contains(*id)).copied().collect();
        drop(expected);
        let (twice, once): (Vec<_>, Vec<_>) =
            (held.into_iter()).partition(|(id, _)| answered.contains(id));
        let bytes = twice.iter().map(|(_, parcel)| parcel.weight()).sum();
        self.ear.outbox.give_back(twice.len(), bytes);
        self.ear.outbox.answer(end);
        self.ear
            .outbox
            .put_held(once.into_iter().map(|(_, parcel)| parcel));
        *phase = Phase::Live(coming);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is sound between any two changes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
