//! How a running relay is, for its owner.

use std::fmt;
use std::net::SocketAddr;

use nostr::Timestamp;
use serde::{Deserialize, Serialize};

use crate::session::Shared;

/// How it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// The process, for who wants to find it.
    pub pid: u32,
    /// Where it listens.
    pub address: SocketAddr,
    /// When it started, in Unix seconds.
    pub started_at: Timestamp,
    /// Websockets open.
    pub connections: u64,
    /// Subscriptions open.
    pub subscriptions: u64,
    /// Bytes of the store on the disk.
    pub disk_bytes: u64,
    /// Events in the log that are not in the index yet.
    pub backlog: usize,
    /// Bits of work that are asked of unknown keys now (NIP-13).
    pub work_bits: u8,
}

impl Status {
    /// As it is now.
    pub fn of(shared: &Shared, address: SocketAddr, started_at: Timestamp) -> Self {
        let (connections, subscriptions) = shared.metrics.open();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            address,
            started_at,
            connections,
            subscriptions,
            disk_bytes: shared.store.disk_bytes(),
            backlog: shared.store.backlog(),
            work_bits: shared.admission.work_asked(),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            pid,
            address,
            started_at,
            ..
        } = self;
        let since = started_at.to_human_datetime();
        let megabytes = self.disk_bytes.div_ceil(1_000_000);
        let work = match self.work_bits {
            0 => "none asked".to_owned(),
            bits => format!("{bits} bits asked of unknown keys"),
        };
        writeln!(
            f,
            "relay          {version} at {address} since {since} (process {pid})"
        )?;
        writeln!(f, "connections    {}", self.connections)?;
        writeln!(f, "subscriptions  {}", self.subscriptions)?;
        writeln!(
            f,
            "store          {megabytes} MB, {} events behind the log",
            self.backlog
        )?;
        write!(f, "proof of work  {work}")
    }
}
