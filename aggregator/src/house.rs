//! What all parts of a running aggregator share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infernet_blobs::Blobs;
use infernet_client::Client;
use infernet_node::clock;
use infernet_node::link::Link;
use infernet_node::shutdown::Shutdown;
use infernet_protocol::event::Body;
use nostr::{Event, EventId, Keys, PublicKey};
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Options;
use crate::checks::Checks;
use crate::desk::Voice;
use crate::dispatch::Floor;
use crate::group::Handle;
use crate::money::Money;
use crate::store::{self, Store};

/// How long an event is published again and again before it is left to the next
/// round.
const PUBLISH_FOR: Duration = Duration::from_secs(60);

/// What all parts of a running aggregator share.
pub(crate) struct House {
    pub options: Options,
    pub link: Link,
    pub client: Client,
    pub blobs: Blobs,
    pub store: Store,
    pub floor: Floor,
    pub checks: Checks,
    pub money: Money,
    pub voice: Voice,
    pub shutdown: Shutdown,
    /// Ends everything. What is under way goes on at the next start.
    pub closing: CancellationToken,
    /// Everything has ended.
    pub ended: CancellationToken,
    /// What runs beside the desk.
    pub tasks: TaskTracker,
    /// Groups that are worked on at a time.
    pub in_work: Semaphore,
    groups: Mutex<HashMap<(EventId, u32), Handle>>,
}

/// The parts of a house.
pub(crate) struct Parts {
    pub options: Options,
    pub link: Link,
    pub client: Client,
    pub store: Store,
    pub floor: Floor,
    pub checks: Checks,
    pub money: Money,
    pub shutdown: Shutdown,
}

impl House {
    pub fn new(parts: Parts) -> Arc<Self> {
        let keys = parts.options.keys.clone();
        Arc::new(Self {
            blobs: Blobs::new(parts.options.blobs.clone(), keys.clone()),
            voice: Voice::new(keys, parts.link.clone()),
            in_work: Semaphore::new(parts.options.limits.groups_in_work),
            options: parts.options,
            link: parts.link,
            client: parts.client,
            store: parts.store,
            floor: parts.floor,
            checks: parts.checks,
            money: parts.money,
            shutdown: parts.shutdown,
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            tasks: TaskTracker::new(),
            groups: Mutex::default(),
        })
    }

    pub const fn keys(&self) -> &Keys {
        &self.options.keys
    }

    pub fn public_key(&self) -> PublicKey {
        self.options.keys.public_key()
    }

    /// Signs a body as of now. Signing cannot fail for a key that is one.
    pub fn sign(&self, body: &impl Body) -> Option<Event> {
        let unsigned = body.to_unsigned(self.public_key(), clock::now());
        unsigned.sign_with_keys(self.keys()).ok()
    }

    /// The groups that are under way.
    pub fn groups(&self) -> MutexGuard<'_, HashMap<(EventId, u32), Handle>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of them.
    pub fn group(&self, order: &EventId, group: u32) -> Option<Handle> {
        self.groups().get(&(*order, group)).cloned()
    }

    /// Keeps an event until a relay has it, and publishes it beside what else is done.
    pub async fn post(self: &Arc<Self>, event: Event) -> Result<(), store::Error> {
        self.store.post(&event, clock::now()).await?;
        self.publish(event);
        Ok(())
    }

    /// Publishes an event that is in the outbox.
    pub fn publish(self: &Arc<Self>, event: Event) {
        let house = self.clone();
        self.tasks.spawn(async move {
            let until = Instant::now() + PUBLISH_FOR;
            let published = tokio::select! {
                published = house.link.publish_until(&event, until) => published,
                () = house.closing.cancelled() => return,
            };
            match published {
                Ok(_) => house.acknowledge(&event.id).await,
                Err(error) => {
                    tracing::warn!(event = %event.id, %error, "no relay has taken an event yet");
                }
            }
        });
    }

    async fn acknowledge(&self, event: &EventId) {
        if let Err(error) = self.store.acknowledge(event, clock::now()).await {
            tracing::error!(%error, "an event that was published may be published again");
        }
    }
}

impl std::fmt::Debug for House {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("House")
            .field("key", &self.public_key())
            .finish_non_exhaustive()
    }
}
