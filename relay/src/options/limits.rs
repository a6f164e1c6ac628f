//! How much the relay gives to whom.

use infernet_protocol::bounds::MAX_BLOB_BYTES;
use serde::{Deserialize, Deserializer};

use super::demands::{AddressLimits, Rate, Share};

/// How much one client may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time. The default stays below the 1,024 open files that most systems allow a process.
    pub connections: usize,
    /// Subscriptions at a time on one connection.
    pub subscriptions: usize,
    /// Messages a second on one connection, sustained; a faster sender is made to wait and loses nothing. By default
    /// a provider can stream sixteen jobs at sixty pieces a second.
    pub messages_per_second: u32,
    /// Messages that may come at once on one connection before it is made to wait.
    pub burst: u32,
    /// Bytes a second on one connection; a faster sender is made to wait here too.
    pub bytes_per_second: u32,
    /// Stored events answered to one filter, whatever it asks for.
    pub stored_events: usize,
    /// Messages that may wait for a client to read them. One that falls further behind is told so and disconnected.
    pub outbox_messages: usize,
    /// Bytes of these.
    pub outbox_bytes: usize,
    /// Whether this machine's own addresses are counted like others. By default they are not: a proxy may stand there,
    /// which is better named in `proxies`.
    pub count_loopback: bool,
    /// What a key with standing may write.
    #[serde(deserialize_with = "key")]
    pub key: Share,
    /// What a key without standing may write.
    #[serde(deserialize_with = "stranger")]
    pub stranger: Share,
    /// What an address may do.
    pub address: AddressLimits,
    /// What all may write together. A quarter of each burst is kept for trusted and allowed keys.
    #[serde(deserialize_with = "all")]
    pub all: Share,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 900,
            subscriptions: 200,
            messages_per_second: 1_000,
            burst: 4_000,
            bytes_per_second: 32 << 20,
            stored_events: 500,
            outbox_messages: 20_000,
            outbox_bytes: 8 << 20,
            count_loopback: false,
            key: Share {
                events: Rate::new(2_000, 10_000),
                bytes: Rate::new(8 << 20, 64 << 20),
            },
            stranger: Share {
                events: Rate::new(200, 2_000),
                bytes: Rate::new(1 << 20, 16 << 20),
            },
            address: AddressLimits::default(),
            all: Share {
                events: Rate::new(20_000, 40_000),
                bytes: Rate::new(16 << 20, 256 << 20),
            },
        }
    }
}

fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
    Share::read(deserializer, Limits::default().key)
}

fn stranger<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
    Share::read(deserializer, Limits::default().stranger)
}

fn all<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
    Share::read(deserializer, Limits::default().all)
}

/// How much is kept of blobs, and how long.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlobLimits {
    /// Bytes of one blob.
    pub bytes: u64,
    /// Bytes of all that one key keeps.
    pub key_bytes: u64,
    /// Bytes of all that all keep. Half a gigabyte of the disk stays free whatever this says.
    pub total_bytes: u64,
    /// Bytes that one address may send in an hour. This machine's own addresses may send any number.
    pub hourly_bytes: u64,
    /// Days that a blob is kept after its last upload.
    pub days: u64,
}

impl Default for BlobLimits {
    fn default() -> Self {
        Self {
            bytes: MAX_BLOB_BYTES,
            key_bytes: 2 << 30,
            total_bytes: 16 << 30,
            hourly_bytes: 4 << 30,
            days: 7,
        }
    }
}

/// How much memory reconciliations (NIP-77) may take: forty bytes for each event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReconciliationLimits {
    /// Events of one reconciliation; a peer with more asks in parts.
    pub events: usize,
    /// Events of all at a time.
    pub total_events: usize,
    /// Reconciliations at a time on one connection.
    pub per_connection: usize,
}

impl Default for ReconciliationLimits {
    fn default() -> Self {
        Self {
            events: 500_000,
            total_events: 4_000_000,
            per_connection: 4,
        }
    }
}
