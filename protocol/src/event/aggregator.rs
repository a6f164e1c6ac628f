//! Kind 38501: what an aggregator offers.

use nostr::{PublicKey, RelayUrl, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::announcement::{validate_name, validate_relays};
use super::{Body, Refusal, V1, expiration, tag};
use crate::batch::validate_server;
use crate::bounds::{
    MAX_ACCEPTED_MODELS, MAX_ANNOUNCEMENT_BYTES, MAX_BLOB_SERVERS, MAX_DURATION_MS, MAX_FEE_PPM,
    at_most, count, instant,
};
use crate::inference::Task;
use crate::kinds;
use crate::money::Msat;

/// What an aggregator offers: to split batches, buy, check and hold the money.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aggregator {
    /// The protocol's version.
    pub v: V1,
    /// The announcement's name among its author's, usually `infernet`.
    pub id: String,
    /// What to call the aggregator.
    pub name: String,
    /// The tasks it takes batches of.
    pub tasks: Vec<Task>,
    /// Its fee on accepted work, in millionths.
    pub fee_ppm: u32,
    /// The most that it holds for one group; 0 if it takes free work only.
    pub max_hold_msat: Msat,
    /// How long it holds a payment at most, in seconds.
    pub hold_s: u64,
    /// The keys of the checkers it runs itself.
    pub checkers: Vec<PublicKey>,
    /// The key that signs its ranks of providers (NIP-85), if it publishes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<PublicKey>,
    /// Blossom servers for its batches' blobs.
    pub blobs: Vec<String>,
    /// Where it listens.
    pub relays: Vec<RelayUrl>,
    /// Program and version.
    pub software: String,
    /// Until when it stands, in Unix seconds; renewed before. One that says goodbye
    /// lets it expire.
    pub expires_at: Timestamp,
}

impl Body for Aggregator {
    const KIND: u16 = kinds::AGGREGATOR;
    const MAX_CONTENT_BYTES: usize = MAX_ANNOUNCEMENT_BYTES;

    fn tags(&self) -> Vec<Tag> {
        let mut tags = vec![tag(["d", &self.id])];
        tags.extend(self.tasks.iter().map(|task| tag(["t", task.as_str()])));
        tags.push(expiration(self.expires_at));
        tags
    }

    fn alt(&self) -> String {
        format!("{} takes batches of inference", self.name)
    }

    fn validate(&self, _author: &PublicKey, created_at: Timestamp) -> Result<(), Refusal> {
        validate_name("id", &self.id)?;
        validate_name("name", &self.name)?;
        validate_name("software", &self.software)?;
        count("tasks", self.tasks.len(), MAX_ACCEPTED_MODELS)?;
        at_most("fee_ppm", self.fee_ppm.into(), MAX_FEE_PPM.into())?;
        at_most("max_hold_msat", self.max_hold_msat.0, Msat::MAX.0)?;
        at_most("hold_s", self.hold_s, MAX_DURATION_MS / 1_000)?;
        count("checkers", self.checkers.len(), MAX_ACCEPTED_MODELS)?;
        count("blob servers", self.blobs.len(), MAX_BLOB_SERVERS)?;
        let mut servers = self.blobs.iter();
        servers.try_for_each(|server| validate_server(server))?;
        validate_relays(&self.relays)?;
        instant("expires_at", self.expires_at)?;
        if self.tasks.is_empty() {
            return Err(Refusal::Invalid("it takes no task"));
        }
        match self.expires_at <= created_at {
            true => Err(Refusal::Invalid("it expires before it is made")),
            false => Ok(()),
        }
    }
}
