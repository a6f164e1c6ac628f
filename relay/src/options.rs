//! What an operator can set.

use std::path::PathBuf;

use infernet_protocol::bounds::{MAX_BLOB_BYTES, MAX_EVENT_BYTES};
use nostr::PublicKey;
use serde::{Deserialize, Deserializer};

/// Bytes of one websocket message. Twice an event's bound, so that an event somewhat over it is answered with a
/// refusal that names its id; only far larger ones end the connection.
pub const MAX_MESSAGE_BYTES: usize = 2 * MAX_EVENT_BYTES;

/// Everything the relay can be told. In a TOML file unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where to listen, as `host:port`. Port 0 takes any free port.
    pub listen: String,
    /// The folder of the store. It is made where there is none. The default names none.
    pub data: PathBuf,
    /// Whether kinds that are not the market's are taken too.
    pub general: bool,
    /// The relay's name, as clients and visitors see it.
    pub name: String,
    /// What it says about itself.
    pub description: String,
    /// The operator's public key in hex, if they want to be known.
    pub pubkey: Option<String>,
    /// How to reach the operator, for example a `mailto:` address.
    pub contact: Option<String>,
    /// The address that clients know this relay by, as `https://host`: it stands in what is said of a blob, and what is
    /// signed for a server must be for this one. Without it, it is what each client says.
    pub address: Option<String>,
    /// Whether blobs are kept and served.
    pub blobs: bool,
    /// Aggregators whose bans are followed (npub or hex): whom one of them bans cannot announce or bid here.
    #[serde(deserialize_with = "keys")]
    pub follow_bans: Vec<PublicKey>,
    /// How much one client may take.
    pub limits: Limits,
    /// How much is kept of blobs.
    pub blob_limits: BlobLimits,
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
    /// Stored events answered to one filter, whatever it asks for; the store is read into memory for it.
    pub stored_events: usize,
}

/// Public keys as npub or hex.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PublicKey>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parse = |text: &String| {
        let unknown = || serde::de::Error::custom(format!("{text:?} is no npub"));
        PublicKey::parse(text).map_err(|_| unknown())
    };
    texts.iter().map(parse).collect()
}

impl Options {
    /// The defaults, with the store in `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            listen: "127.0.0.1:7777".to_owned(),
            data: data.into(),
            general: false,
            name: "Infernet relay".to_owned(),
            description: "Carries the signed events of an open market for inference.".to_owned(),
            pubkey: None,
            contact: None,
            address: None,
            blobs: true,
            follow_bans: Vec::new(),
            limits: Limits::default(),
            blob_limits: BlobLimits::default(),
        }
    }
}

impl Default for Options {
    /// [`Options::new`] without a folder.
    fn default() -> Self {
        Self::new("")
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 900,
            subscriptions: 200,
            messages_per_second: 1_000,
            burst: 4_000,
            stored_events: 500,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_names_what_it_changes() {
        let options: Options =
            toml::from_str("general = true\nfollow_bans = [\"npub1zuuajd7u3sx8xu92yav9jwxpr839cs0kc3q6t56vd5u9q033xmhsk6c2uc\"]\n[limits]\nconnections = 7\n").unwrap();
        assert!(options.general);
        assert_eq!(options.follow_bans.len(), 1);
        assert_eq!(options.limits.connections, 7);
        assert_eq!(
            options.limits.subscriptions,
            Limits::default().subscriptions
        );
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        for text in ["generl = true", "[limits]\nconections = 7"] {
            let refused = toml::from_str::<Options>(text).unwrap_err();
            assert!(refused.to_string().contains("unknown field"), "{refused}");
        }
    }
}
