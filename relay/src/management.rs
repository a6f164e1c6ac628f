//! The operator's own say, from afar: JSON over HTTP (NIP-86), signed request by request (NIP-98).

mod authorization;
mod method;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use infernet_node::clock;
use nostr::{Kind, PublicKey};
use serde_json::{Value, json};

use crate::decisions::decide;
use crate::lists::{Change, Lists};
use crate::options::Options;
use crate::store::Store;
use authorization::{Gate, Names, Refusal};
use method::{Method, NAMES, Request};

/// The media type of a request and of its answer.
pub const MEDIA_TYPE: &str = "application/nostr+json+rpc";

/// Bytes of a request: the longest description, written as wordily as JSON can.
pub const MAX_BYTES: usize = 64 * 1024;

/// Does what the operator asks.
#[derive(Debug)]
pub struct Management {
    gate: Gate,
    options: Options,
    lists: Arc<Lists>,
    store: Arc<Store>,
}

impl Management {
    /// For a relay that listens at `bound`.
    pub fn new(options: &Options, bound: SocketAddr, lists: Arc<Lists>, store: Arc<Store>) -> Self {
        let admins = options.admins.iter().chain(&options.pubkey);
        let names = Names::new(options.address.clone(), bound);
        Self {
            gate: Gate::new(admins.copied().collect(), names, clock::now()),
            options: options.clone(),
            lists,
            store,
        }
    }

    /// Answers a request.
    pub async fn answer(&self, headers: &HeaderMap, body: &[u8]) -> (StatusCode, Value) {
        let admin = match self.gate.admin(headers, body, clock::now()) {
            Ok(admin) => admin,
            Err(refusal) => return (status(refusal), failure(&refusal)),
        };
        let request = match serde_json::from_slice::<Request>(body) {
            Ok(request) => request,
            Err(error) => return (StatusCode::BAD_REQUEST, failure(&error)),
        };
        let done = match request.method() {
            Ok(method) => self.obey(method, &admin).await,
            Err(error) => Err(error.to_string()),
        };
        let said = done.map_or_else(
            |error| failure(&error),
            |result| json!({ "result": result }),
        );
        (StatusCode::OK, said)
    }

    async fn obey(&self, method: Method, admin: &PublicKey) -> Result<Value, String> {
        Ok(match method {
            Method::Supported => json!(NAMES),
            Method::BannedKeys => reasons("pubkey", self.lists.banned_keys()),
            Method::AllowedKeys => reasons("pubkey", self.lists.allowed_keys()),
            Method::BannedEvents => reasons("id", self.lists.banned_events()),
            Method::BlockedAddresses => reasons("ip", self.lists.blocked_addresses()),
            Method::AllowedKinds => json!(self.kinds()),
            Method::Change(change) => {
                tracing::info!(admin = %admin, ?change, "the operator changes something");
                self.change(change).await?;
                json!(true)
            }
        })
    }

    async fn change(&self, change: Change) -> Result<(), String> {
        if let Change::BanKey(key, _) = &change
            && (self.options.admins.contains(key) || self.options.pubkey == Some(*key))
        {
            return Err("this key manages this relay: it cannot be banned".to_owned());
        }
        let decided = decide(&self.lists, &self.store, change).await;
        decided.map_err(|error| error.to_string())
    }

    /// The kinds that are taken: the relay's own choice, changed by the operator's. A general relay takes others too.
    fn kinds(&self) -> Vec<Kind> {
        let said = self.lists.kinds();
        let usual = (0..=u16::MAX).filter(|kind| crate::document::is_usual(*kind));
        let usual = usual.map(Kind::from);
        let more = said.iter().filter(|(_, allowed)| *allowed);
        let mut kinds: Vec<Kind> = usual.chain(more.map(|(kind, _)| *kind)).collect();
        kinds.retain(|kind| self.lists.kind(*kind) != Some(false));
        kinds.sort();
        kinds.dedup();
        kinds
    }
}

const fn status(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        Refusal::Stranger => StatusCode::FORBIDDEN,
    }
}

fn failure(error: &impl ToString) -> Value {
    json!({ "error": error.to_string() })
}

fn reasons<T: ToString>(name: &str, entries: Vec<(T, String)>) -> Value {
    let entry = |(what, why): (T, String)| json!({ name: what.to_string(), "reason": why });
    entries.into_iter().map(entry).collect()
}
