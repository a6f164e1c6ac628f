//! This relay's own side: what it has, and how it takes in what comes from another.

use std::sync::Arc;

use axum::body::Bytes;
use futures::future::join_all;
use infernet_node::clock;
use infernet_protocol::kinds;
use nostr::{Event, EventId, Filter, JsonUtil as _, Kind, Timestamp};
use tokio::task::spawn_blocking;

use crate::admission::{Admission, COMPANIONS, Origin, Refusal, Source};
use crate::metrics::Metrics;
use crate::store::{self, Saved, Store};
use crate::subscriptions::Hub;

/// What came from another relay is held to this relay's rules and lists, but neither to its limits nor to work.
const ORIGIN: Origin<'static> = Origin {
    address: None,
    authenticated: &[],
    source: Source::Sync,
};

/// Subscribers hear at once of events that are no older. A million old ones would only drown them.
const NEWS_SECS: u64 = 86_400;

/// This relay, as far as it matters to another.
#[derive(Debug, Clone)]
pub struct Ours {
    store: Arc<Store>,
    admission: Arc<Admission>,
    /// Who hears of new events at once; nobody where nothing is served.
    hub: Option<Arc<Hub>>,
    metrics: Arc<Metrics>,
    general: bool,
}

/// What becomes of an event from the other.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is here now and was not before.
    New,
    /// It was here already.
    Had,
    /// It is not taken, and why.
    Declined(String),
}

impl Ours {
    /// The relay with this store and these rules.
    pub fn new(
        store: Arc<Store>,
        admission: Arc<Admission>,
        hub: Option<Arc<Hub>>,
        metrics: Arc<Metrics>,
        general: bool,
    ) -> Self {
        Self {
            store,
            admission,
            hub,
            metrics,
            general,
        }
    }

    /// What this relay takes by itself and keeps.
    pub fn usual(&self) -> Filter {
        if self.general {
            return Filter::new();
        }
        let kinds = kinds::ALL.into_iter().chain(COMPANIONS).map(Kind::from);
        Filter::new().kinds(kinds.filter(|kind| !kind.is_ephemeral()))
    }

    /// The events that match, at most `most`.
    ///
    /// # Errors
    /// [`store::Error::TooMany`], or a store that cannot be read.
    pub async fn items(
        &self,
        filter: Filter,
        most: usize,
    ) -> Result<Vec<(Timestamp, EventId)>, store::Error> {
        self.store.items(filter, most).await
    }

    /// Whether this relay has the event.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn has(&self, id: &EventId) -> Result<bool, store::Error> {
        self.store.has(id)
    }

    /// These events as JSON, without those that only some may read, unless `with_private`.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn load(
        &self,
        ids: &[EventId],
        with_private: bool,
    ) -> Result<Vec<(EventId, String)>, store::Error> {
        let filter = Filter::new().ids(ids.iter().copied());
        let stored = self.store.query(filter, ids.len()).await?;
        let json = |json: &[u8]| String::from_utf8_lossy(json).into_owned();
        Ok(stored
            .iter()
            .filter(|stored| with_private || !self.admission.is_private(stored.kind))
            .map(|stored| (stored.id, json(&stored.json)))
            .collect())
    }

    /// Takes in events that the other gave: whatever it says they are, each is verified here. What is kept is on the
    /// disk when this is over.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub async fn take(&self, events: Vec<Event>) -> Result<Vec<(EventId, Taken)>, store::Error> {
        let verified = spawn_blocking(move || {
            let verified = |event: Event| (event.verify().is_ok(), event);
            events.into_iter().map(verified).collect::<Vec<_>>()
        });
        // Nothing comes of a check that panicked: what it was about is asked for again another time.
        let verified = verified.await.unwrap_or_default();
        let each = verified.into_iter().map(|(is_right, event)| async move {
            let id = event.id;
            let taken = match is_right {
                true => self.admit(event).await?,
                false => Taken::Declined("invalid: id or signature is wrong".to_owned()),
            };
            Ok((id, taken))
        });
        join_all(each).await.into_iter().collect()
    }

    async fn admit(&self, event: Event) -> Result<Taken, store::Error> {
        if self.store.has(&event.id)? {
            return Ok(Taken::Had);
        }
        let mut checked = self.admission.glance(&event, &ORIGIN);
        if checked.is_ok() {
            checked = self.admission.examine(&event, &ORIGIN);
        }
        if checked.is_ok() {
            checked = self.store.check(&event).await;
        }
        if let Err(refusal) = checked {
            return Ok(declined(&refusal));
        }
        let json = Bytes::from(event.as_json());
        let event = Arc::new(event);
        let _expected = self.hub.as_ref().map(|hub| hub.expect(event.id));
        match self.store.save(event.clone(), json.clone()).await? {
            Saved::New => {
                self.admission.admitted(&event);
                self.metrics.admitted("sync");
                self.metrics.stored(1);
                let is_news = event.created_at + NEWS_SECS > clock::now();
                if let Some(hub) = self.hub.as_ref().filter(|_| is_news) {
                    hub.publish(&event, &json);
                }
                Ok(Taken::New)
            }
            Saved::Duplicate => Ok(Taken::Had),
            Saved::Superseded(newer) => Ok(declined(&Refusal::Superseded(newer))),
            Saved::Deleted => Ok(declined(&Refusal::Deleted)),
            Saved::Refused(refusal) => Ok(declined(&refusal)),
        }
    }
}

fn declined(refusal: &Refusal) -> Taken {
    Taken::Declined(refusal.to_string())
}
