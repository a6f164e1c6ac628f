//! Our side of one reconciliation (NIP-77), as the one that leads.

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr::{EventId, Timestamp};
use tokio::task::spawn_blocking;

use crate::session::negotiation::sealed;

/// Bytes of one message, before it is written in hex. With its filter it stays below what most relays read.
const FRAME_BYTES: u64 = 50_000;

/// The other's message cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("a message that cannot be followed: {0}")]
pub struct Malformed(String);

/// Our events in one reconciliation.
#[derive(Debug)]
pub struct Side {
    negentropy: Negentropy<'static, NegentropyStorageVector>,
}

/// What one message of the other tells.
#[derive(Debug, Default)]
pub struct Found {
    /// What it lacks.
    pub have: Vec<EventId>,
    /// What we lack.
    pub need: Vec<EventId>,
    /// What to say next; nothing when all is known.
    pub next: Option<Vec<u8>>,
}

impl Side {
    /// Our side, and the first message.
    ///
    /// # Errors
    /// None that is known of.
    pub async fn begin(items: Vec<(Timestamp, EventId)>) -> Result<(Self, Vec<u8>), Malformed> {
        off_the_async_threads(move || {
            let mut negentropy = Negentropy::owned(sealed(items), FRAME_BYTES)?;
            let first = negentropy.initiate()?;
            Ok((Self { negentropy }, first))
        })
        .await
    }

    /// Takes a message of the other in.
    ///
    /// # Errors
    /// When it is malformed.
    pub async fn take(mut self, message: Vec<u8>) -> Result<(Self, Found), Malformed> {
        off_the_async_threads(move || {
            let (mut have, mut need) = (Vec::new(), Vec::new());
            let negentropy = &mut self.negentropy;
            let next = negentropy.reconcile_with_ids(&message, &mut have, &mut need)?;
            let ids = |ids: Vec<Id>| {
                ids.iter()
                    .map(|id| EventId::from_byte_array(**id))
                    .collect()
            };
            let (have, need) = (ids(have), ids(need));
            Ok((self, Found { have, need, next }))
        })
        .await
    }
}

async fn off_the_async_threads<T: Send + 'static>(
    compute: impl FnOnce() -> Result<T, negentropy::Error> + Send + 'static,
) -> Result<T, Malformed> {
    match spawn_blocking(compute).await {
        Ok(computed) => computed.map_err(|error| Malformed(error.to_string())),
        Err(_) => Err(Malformed("it breaks the comparison off".to_owned())),
    }
}
