//! What a client asks of the stored events, answered one after the other: they share one connection anyway, and so no
//! client has the store look up many things at once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use nostr::{EventId, Filter};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::count;
use super::negotiation::Negotiations;
use super::outbox::{Envelope, Outbox, Parcel};
use super::say;
use super::viewer::Viewer;
use crate::metrics::Metrics;
use crate::store::{self, Seen, Store, Stored};
use crate::subscriptions::Answering;

/// Bytes of stored events that are kept in memory for one client. What is over it is looked up again, by its ids, when
/// the client has taken what was before it.
const MAX_KEPT: usize = 1 << 20;

/// Events looked up again at a time.
const PIECE: usize = 16;

/// Something that is asked.
pub enum Ask {
    /// The stored events of a subscription.
    Stored {
        /// Its id.
        id: String,
        /// The subscription.
        answering: Answering,
        /// What it asks for.
        filters: Vec<Filter>,
    },
    /// How many events there are.
    Count {
        /// Its id.
        id: String,
        /// Of which.
        filters: Vec<Filter>,
    },
    /// A reconciliation begins.
    NegOpen {
        /// Its id.
        id: String,
        /// Of which events.
        filter: Filter,
        /// The first message.
        message: String,
    },
    /// A reconciliation goes on.
    NegMessage {
        /// Its id.
        id: String,
        /// The next message.
        message: String,
    },
    /// A reconciliation ends.
    NegClose(String),
}

/// Answers one client.
pub struct Clerk {
    /// Where the events are.
    pub store: Arc<Store>,
    /// Who asks.
    pub viewer: Arc<Viewer>,
    /// Where answers go.
    pub outbox: Arc<Outbox>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Its reconciliations.
    pub negotiations: Mutex<Negotiations>,
    /// Stored events answered to one filter.
    pub stored_events: usize,
}

/// Questions of one client that wait for their answer, and what they may have in bytes: in memory a filter has a
/// dozen times as many.
const MAX_ASKS: usize = 64;
const MAX_BYTES: usize = 256 << 10;

/// What one client asks, in its order.
pub struct Asks {
    clerk: Arc<Clerk>,
    /// Each with its bytes.
    waiting: VecDeque<(Ask, usize)>,
    current: Option<(BoxFuture<'static, ()>, usize)>,
    bytes: usize,
}

impl Asks {
    /// With nothing asked.
    pub fn new(clerk: Arc<Clerk>) -> Self {
        Self {
            clerk,
            waiting: VecDeque::new(),
            current: None,
            bytes: 0,
        }
    }

    /// Whether nothing waits for its answer.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none()
    }

    /// Whether more may come in.
    pub fn has_room(&self) -> bool {
        let asks = self.waiting.len() + usize::from(self.current.is_some());
        asks < MAX_ASKS && self.bytes < MAX_BYTES
    }

    /// Takes something in that came in so many bytes.
    pub fn push(&mut self, ask: Ask, bytes: usize) {
        self.bytes += bytes;
        self.waiting.push_back((ask, bytes));
    }

    /// Answers the next. It may be dropped at any time and goes on where it was.
    pub async fn advance(&mut self) {
        if self.current.is_none() {
            let Some((ask, bytes)) = self.waiting.pop_front() else {
                return;
            };
            self.current = Some((self.clerk.clone().answer(ask).boxed(), bytes));
        }
        if let Some((current, bytes)) = &mut self.current {
            current.await;
            self.bytes -= *bytes;
            self.current = None;
        }
    }
}

impl Clerk {
    async fn answer(self: Arc<Self>, ask: Ask) {
        let began = Instant::now();
        match ask {
            Ask::Stored {
                id,
                answering,
                filters,
            } => self.stored(&id, answering, filters).await,
            Ask::Count { id, filters } => {
                let counted = count::count(&self.seen(), filters).await;
                self.outbox.answer(match counted {
                    Ok(count) => say::count(&id, count.events, count.exact),
                    Err(store::Error::TooMany) => say::closed(&id, UNCOUNTABLE),
                    Err(error) => {
                        tracing::debug!(%error, "the store cannot count");
                        say::closed(&id, UNREADABLE)
                    }
                });
            }
            Ask::NegOpen {
                id,
                filter,
                message,
            } => {
                let mut negotiations = self.negotiations.lock().await;
                let reader = self.viewer.reader();
                let answer = negotiations.open(&id, filter, &message, reader).await;
                self.outbox.answer(answer);
            }
            Ask::NegMessage { id, message } => {
                let answer = self.negotiations.lock().await.message(&id, &message).await;
                self.outbox.answer(answer);
            }
            Ask::NegClose(id) => self.negotiations.lock().await.close(&id),
        }
        self.metrics.query_took(began.elapsed());
    }

    async fn stored(&self, id: &str, answering: Answering, filters: Vec<Filter>) {
        let envelope = answering.envelope().clone();
        let mut answered = HashSet::new();
        for filter in filters {
            let sent = self.answer_filter(filter, &envelope, &mut answered).await;
            if envelope.is_closed() {
                return;
            }
            if !sent {
                envelope.close();
                return self.outbox.answer(say::closed(id, UNREADABLE));
            }
        }
        answering.begin_live(&answered, say::eose(id));
    }

    /// Sends what is stored, newest first, and answers whether the store could be read.
    async fn answer_filter(
        &self,
        filter: Filter,
        envelope: &Arc<Envelope>,
        answered: &mut HashSet<EventId>,
    ) -> bool {
        let most = self.stored_events;
        let limit = filter.limit.map_or(most, |limit| limit.min(most));
        if limit == 0 {
            return true;
        }
        let Some(mut events) = self.query(filter, limit).await else {
            return false;
        };
        let later = shed(&mut events);
        self.send(events, envelope, answered).await;
        for piece in later.chunks(PIECE) {
            let again = Filter::new().ids(piece.iter().copied());
            let Some(events) = self.query(again, piece.len()).await else {
                return false;
            };
            self.send(events, envelope, answered).await;
        }
        true
    }

    /// Sends those that were not sent before, as there is room, until the subscription is over.
    async fn send(
        &self,
        events: Vec<Stored>,
        envelope: &Arc<Envelope>,
        answered: &mut HashSet<EventId>,
    ) {
        for event in events {
            if !answered.insert(event.id) {
                continue;
            }
            self.outbox.room().await;
            if envelope.is_closed() {
                return;
            }
            self.outbox.put(Parcel::Event {
                envelope: envelope.clone(),
                json: event.json,
            });
        }
    }

    async fn query(&self, filter: Filter, limit: usize) -> Option<Vec<Stored>> {
        let events = self.seen().query(filter, limit).await;
        let events =
            events.inspect_err(|error| tracing::debug!(%error, "the store cannot be read"));
        events.ok()
    }

    /// The store as the client may see it now.
    fn seen(&self) -> Seen<'_> {
        self.store.seen_by(self.viewer.reader())
    }
}

/// What a client hears that counts too much at once.
const UNCOUNTABLE: &str =
    "invalid: too many events for one count: ask for each filter, or for less time";

/// What a client hears when the store fails.
const UNREADABLE: &str = "error: the store cannot be read; try again";

/// Leaves as many events as are kept in memory, and answers the ids of the others, in their order.
fn shed(events: &mut Vec<Stored>) -> Vec<EventId> {
    let mut kept = 0;
    let over = events.iter().position(|event| {
        kept += event.json.len();
        kept > MAX_KEPT
    });
    let over = over.map(|over| events.split_off(over)).unwrap_or_default();
    over.into_iter().map(|event| event.id).collect()
}
