//! The Nostr session: what a client says is read, answered and fanned out by nostr-relay-builder.
//!
//! Nothing else in this crate knows that library. Its write policies can refuse with the prefix `blocked:` only.

use std::net::SocketAddr;
use std::sync::Arc;

use nostr::message::MessageHandleError;
use nostr::{Event, Filter};
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{
    PolicyResult, QueryPolicy, RateLimit, RelayBuilder, WritePolicy,
};
use nostr_relay_builder::prelude::{BoxedFuture, DatabaseError, NostrDatabase};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Origin, Refusal, Source};
use crate::farewell::Farewell;
use crate::guard::Guard;
use crate::options::{Limits, Options};
use crate::store::{self, Store};

/// Characters of a subscription's id (NIP-01).
pub const MAX_SUBSCRIPTION_ID: usize = 64;

/// Serves websockets.
#[derive(Debug)]
pub struct Sessions {
    relay: LocalRelay,
    limits: Limits,
    stop: CancellationToken,
}

impl Sessions {
    /// Sessions over `store`, each of which ends after its current message once `stop` says so.
    pub fn new(store: Arc<Store>, admission: Arc<Admission>, options: &Options, stop: CancellationToken) -> Self {
        let limits = options.limits.clone();
        let admission = Gate {
            store: store.clone(),
            admission,
        };
        let builder = RelayBuilder::default()
            .database(store as Arc<dyn NostrDatabase>)
            .write_policy(admission)
            .query_policy(Frugal)
            .max_subid_length(MAX_SUBSCRIPTION_ID)
            .max_filter_limit(limits.stored_events)
            .default_filter_limit(limits.stored_events)
            .rate_limit(RateLimit {
                max_reqs: limits.subscriptions,
                // Its bucket fills only while a connection is silent for a second. The guard paces instead.
                notes_per_minute: u32::MAX,
            });
        Self {
            relay: LocalRelay::new(builder),
            limits,
            stop,
        }
    }

    /// Serves one websocket, just upgraded, until either side ends it.
    pub async fn serve<S>(&self, transport: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut guard = Guard::new(transport, &self.limits, self.stop.clone());
        let ended = self.relay.take_connection(&mut guard, peer).await;
        let failure = ended.err().map(|error| {
            tracing::debug!(%peer, %error, "session failed");
            if let Some(error) = error.downcast_ref::<MessageHandleError>() {
                return Farewell::Unreadable(error.to_string());
            }
            match error.downcast_ref::<DatabaseError>() {
                Some(DatabaseError::NotSupported) => Farewell::Unsupported,
                _ => Farewell::Failed,
            }
        });
        guard.part(failure).await;
    }
}

/// Asks the rules about each event, whose signature the library has checked by then.
#[derive(Debug)]
struct Gate {
    store: Arc<Store>,
    admission: Arc<Admission>,
}

impl Gate {
    async fn check(&self, event: &Event, peer: &SocketAddr) -> Result<(), Refusal> {
        let origin = Origin {
            address: Some(peer.ip()),
            authenticated: &[],
            source: Source::Client,
        };
        self.admission.glance(event, &origin)?;
        self.admission.examine(event, &origin)?;
        self.store.check(event).await?;
        self.admission.admitted(event, &origin);
        Ok(())
    }
}

impl WritePolicy for Gate {
    fn admit_event<'a>(
        &'a self,
        event: &'a Event,
        peer: &'a SocketAddr,
    ) -> BoxedFuture<'a, PolicyResult> {
        Box::pin(async move {
            match self.check(event, peer).await {
                Ok(()) => PolicyResult::Accept,
                Err(refusal) => {
                    tracing::debug!(%peer, event = %event.id, %refusal, "refused");
                    let said = refusal.to_string();
                    // The library writes that word itself.
                    let words = said.strip_prefix("blocked: ").unwrap_or(&said);
                    PolicyResult::Reject(words.to_owned())
                }
            }
        })
    }
}

/// Refuses searches (NIP-50), each of which would read through the whole store, and filters that are too broad.
#[derive(Debug)]
struct Frugal;

impl QueryPolicy for Frugal {
    fn admit_query<'a>(
        &'a self,
        query: &'a Filter,
        _peer: &'a SocketAddr,
    ) -> BoxedFuture<'a, PolicyResult> {
        let refused = match query.search {
            Some(_) => Some("this relay does not search"),
            None if store::is_too_broad(query) => {
                Some("too many authors, kinds and tags at once: ask in parts")
            }
            None => None,
        };
        Box::pin(async move {
            match refused {
                Some(why) => PolicyResult::Reject(why.to_owned()),
                None => PolicyResult::Accept,
            }
        })
    }
}
