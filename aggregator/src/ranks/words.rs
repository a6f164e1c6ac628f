//! Our own attestations, kept as relays have them.

use std::time::Duration;

use infernet_node::link::Link;
use infernet_protocol::event::{Attestation, Signed};
use infernet_protocol::kinds;
use infernet_protocol::reputation::CHECKS_HALF_LIFE_S;
use nostr::{Event, Filter, JsonUtil, Kind, PublicKey, Timestamp};
use sqlx::SqlitePool;

use super::{Error, seconds};
use crate::store;

/// Attestations that are asked for at a time; relays answer no more.
const PAGE: usize = 500;

/// How long relays have to answer a page.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an attestation is kept: the slowest part of it counts a 64th then.
const KEPT_S: u64 = 6 * CHECKS_HALF_LIFE_S;

/// By what it is remembered that all were kept once; no provider's key.
pub(super) const WALKED: [u8; 32] = [1; 32];

/// Those of one author.
fn by(author: &PublicKey) -> Filter {
    let kind = Kind::from(kinds::ATTESTATION);
    Filter::new().kind(kind).author(*author)
}

/// What to subscribe to: new ones, and the newest stored ones.
pub(super) fn live(author: &PublicKey) -> Filter {
    by(author).limit(PAGE)
}

/// The newest ones until then, the oldest first; nothing where there are none.
pub(super) async fn page(
    link: &Link,
    author: &PublicKey,
    until: Timestamp,
) -> Result<Option<Vec<Event>>, Error> {
    let asked = by(author).until(until).limit(PAGE);
    let mut events = link.fetch(vec![asked], PATIENCE).await?;
    events.sort_by_key(|event| event.created_at);
    Ok((!events.is_empty()).then_some(events))
}

/// Whether all of these are kept already.
pub(super) async fn known(pool: &SqlitePool, events: &[Event]) -> Result<bool, Error> {
    for event in events {
        let found: Option<(i64,)> = sqlx::query_as("SELECT 1 FROM attested WHERE id = ?")
            .bind(event.id.as_bytes().as_slice())
            .fetch_optional(pool)
            .await?;
        if found.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) async fn keep(
    pool: &SqlitePool,
    attestation: &Signed<Attestation>,
) -> Result<(), Error> {
    sqlx::query("INSERT OR IGNORE INTO attested (id, provider, event, made_s) VALUES (?, ?, ?, ?)")
        .bind(attestation.id().as_bytes().as_slice())
        .bind(attestation.provider.as_bytes().as_slice())
        .bind(attestation.event().as_json())
        .bind(seconds(attestation.created_at()))
        .execute(pool)
        .await?;
    Ok(())
}

/// All about one provider.
pub(super) async fn about(
    pool: &SqlitePool,
    provider: &PublicKey,
) -> Result<Vec<Signed<Attestation>>, Error> {
    let events: Vec<(String,)> = sqlx::query_as("SELECT event FROM attested WHERE provider = ?")
        .bind(provider.as_bytes().as_slice())
        .fetch_all(pool)
        .await?;
    let read = |(json,): &(String,)| {
        let event = Event::from_json(json).ok()?;
        Signed::from_verified(event).ok()
    };
    Ok(events.iter().filter_map(read).collect())
}

/// Whom there are any about; what is too old to count is forgotten.
pub(super) async fn providers(pool: &SqlitePool) -> Result<Vec<PublicKey>, Error> {
    let now = infernet_node::clock::now().as_secs();
    let oldest = Timestamp::from_secs(now.saturating_sub(KEPT_S));
    sqlx::query("DELETE FROM attested WHERE made_s < ?")
        .bind(seconds(oldest))
        .execute(pool)
        .await?;
    let keys: Vec<(Vec<u8>,)> = sqlx::query_as("SELECT DISTINCT provider FROM attested")
        .fetch_all(pool)
        .await?;
    let read = |(key,): &(Vec<u8>,)| PublicKey::from_slice(key);
    let keys: Result<Vec<_>, _> = keys.iter().map(read).collect();
    Ok(keys.map_err(|_| store::Error::Damaged("a public key"))?)
}
