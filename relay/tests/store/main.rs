//! The relay's store against a naive one, against crashes and against full disks.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash;
mod full;
mod model;
mod older;
mod random;
mod rules;

use std::sync::Arc;

use infernet_relay::store::{Saved, Store};
use nostr::{Event, EventId, Filter, JsonUtil};

/// Saves an event as a session does.
async fn save(store: &Store, event: &Event) -> Saved {
    let json = event.as_json().into();
    store.save(Arc::new(event.clone()), json).await.unwrap()
}

/// The ids of what a filter finds.
async fn ids(store: &Store, filter: Filter) -> Vec<EventId> {
    let found = store.query(filter, 1_000).await.unwrap();
    found.into_iter().map(|stored| stored.id).collect()
}
