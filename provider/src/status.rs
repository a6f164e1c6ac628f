//! What a running provider tells of itself.

use infernet_engine::Capacity;
use infernet_protocol::event::{AnnouncedModel, Load, Promise, Status as Announced};
use infernet_protocol::inference::{Dtype, Task};
use infernet_protocol::money::{Msat, Price};
use nostr::secp256k1::PublicKey as NodeId;
use nostr::{EventId, PublicKey, RelayUrl, Timestamp};
use serde::{Deserialize, Serialize};

/// How a provider stands at a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who it is, as `npub1…`.
    pub npub: String,
    /// What it is called.
    pub name: String,
    /// The process, for who wants to find it.
    pub pid: u32,
    /// When it started, in Unix seconds.
    pub started_at: Timestamp,
    /// What it announces.
    pub status: Announced,
    /// Whether it finishes what runs and then ends.
    pub closing: bool,
    /// Engine and version.
    pub engine: String,
    /// What it runs on.
    pub hardware: String,
    /// Attempts side by side.
    pub slots: u32,
    /// Attempts that may wait.
    pub queue: u32,
    /// What it is doing.
    pub load: Load,
    /// Its relays.
    pub relays: Vec<Relay>,
    /// What it sells.
    pub models: Vec<Model>,
    /// How its wallet stands; none where everything is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wallet: Option<Wallet>,
    /// What it did since it started.
    pub tally: Tally,
    /// What it is doing, one by one.
    pub attempts: Vec<Attempt>,
}

/// How the connection to a relay stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// Its address.
    pub url: RelayUrl,
    /// Whether it is connected.
    pub connected: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// How the wallet stood when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wallet {
    /// Whether it answers.
    pub is_reachable: bool,
    /// What is in it, in msat.
    pub balance_msat: Option<Msat>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The node that signs its invoices, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
}

/// One model on sale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// What it is called.
    pub name: String,
    /// Its manifest's hash.
    pub model: String,
    /// What it does.
    pub task: Task,
    /// What it is computed in.
    pub dtype: Dtype,
    /// Tokens of its context.
    pub context: u32,
    /// Tokens that its cache holds for all jobs together; none where it needs no cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_tokens: Option<u64>,
    /// What its cache takes, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_mib: Option<u64>,
    /// What it costs.
    pub price: Price,
    /// How fast it is promised to be.
    pub promise: Promise,
}

impl Model {
    /// A model as it is announced, and how much the engine does with it at a time.
    pub fn new(model: AnnouncedModel, capacity: Option<Capacity>) -> Self {
        let capacity = capacity.filter(|capacity| capacity.cache_tokens > 0);
        Self {
            name: model.name,
            model: model.model.to_string(),
            task: model.task,
            dtype: model.dtype,
            context: model.context,
            cache_tokens: capacity.map(|capacity| capacity.cache_tokens),
            cache_mib: capacity.map(|capacity| capacity.cache_bytes >> 20),
            price: model.price,
            promise: model.promise,
        }
    }
}

/// What a provider did since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Bids made.
    pub bids: u64,
    /// Awards taken on.
    pub accepted: u64,
    /// Awards declined.
    pub declined: u64,
    /// Attempts that came to their own end.
    pub completed: u64,
    /// Attempts that the buyer stopped.
    pub stopped: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens drawn.
    pub output_tokens: u64,
}

/// One attempt that waits or runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its job.
    pub job: EventId,
    /// Its award.
    pub award: EventId,
    /// Whose it is.
    pub buyer: PublicKey,
    /// Its number in the job.
    pub number: u32,
    /// Whether it runs, or waits.
    pub running: bool,
    /// Whether it waits for money, outside the queue.
    pub unpaid: bool,
}
