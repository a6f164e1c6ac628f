//! What a running aggregator tells its owner.

use infernet_protocol::batch::{Progress, Standing};
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey, RelayUrl, Timestamp};
use serde::{Deserialize, Serialize};

/// How an aggregator stands at a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who it is, as `npub1…`.
    pub npub: String,
    /// What it is called.
    pub name: String,
    /// The process, for who wants to find it.
    pub pid: u32,
    /// Whether it is stopping.
    pub closing: bool,
    /// The fee on accepted work, in millionths.
    pub fee_ppm: u32,
    /// Whether money can be held; without, only free work is done.
    pub takes_money: bool,
    /// Its relays.
    pub relays: Vec<Relay>,
    /// Providers that are online and not banned.
    pub providers: u64,
    /// Shards that are with providers.
    pub running_shards: u64,
    /// Tokens of work a second that the providers at work do together, as measured.
    pub tokens_per_s: f64,
    /// What is owed to providers.
    pub owed_msat: Msat,
    /// Orders that are open.
    pub orders: Vec<Order>,
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

/// An order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Which.
    pub order: EventId,
    /// Whose.
    pub buyer: PublicKey,
    /// What is ordered, in a few words.
    pub models: String,
    /// Lines that were ordered.
    pub lines: u64,
    /// When it was taken.
    pub taken: Timestamp,
    /// When it must be done.
    pub deadline: Timestamp,
    /// When it was closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
    /// How it stands.
    pub standing: Standing,
    /// Its groups that are under way.
    pub groups: Vec<Group>,
}

/// A group that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its number.
    pub group: u32,
    /// How far it is.
    pub state: String,
    /// How far its work is.
    pub progress: Progress,
}

/// A provider, as it is dealt with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    /// Who.
    pub provider: PublicKey,
    /// What it is called.
    pub name: String,
    /// Whether it takes work now.
    pub online: bool,
    /// Its score from 0 to 1, as attestations make it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Shards of ours that it has.
    pub running: u32,
    /// Tokens of work a second that it does on one shard, as measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_s: Option<f64>,
    /// Shards that were accepted.
    pub done: u64,
    /// Shards that failed.
    pub failed: u64,
    /// Shards that were rejected.
    pub rejected: u64,
    /// What the accepted ones cost.
    pub cost_msat: Msat,
    /// What checks have shown, by model and engine.
    pub trust: Vec<Trust>,
    /// What is owed to it, and held back of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// Why it is not bought from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub banned: Option<String>,
}

/// What checks have shown of a provider with one model and engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// The model's manifest.
    pub model: String,
    /// The engine and its version.
    pub engine: String,
    /// Results in a row that have passed.
    pub streak: u32,
    /// How probable it is that the next is checked, in millionths, where checking
    /// adapts.
    pub chance_ppm: u32,
}

/// A provider's money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// What it is owed, the bond counted in.
    pub owed_msat: Msat,
    /// What is held back as its bond.
    pub bond_msat: Msat,
}
