//! What an operator can set.

mod demands;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use infernet_protocol::bounds::{MAX_BLOB_BYTES, MAX_EVENT_BYTES};
use nostr::{Filter, PublicKey, RelayUrl};
use serde::{Deserialize, Deserializer, Serialize};

pub use demands::{Access, AddressLimits, Auth, Rate, Share, Work};

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
    /// The address of its icon, for clients to show.
    pub icon: Option<String>,
    /// The operator's public key (npub or hex), if they want to be known. Whoever has it may manage the relay.
    #[serde(deserialize_with = "key")]
    pub pubkey: Option<PublicKey>,
    /// Others who may manage the relay (NIP-86), as npub or hex.
    #[serde(deserialize_with = "keys")]
    pub admins: Vec<PublicKey>,
    /// Reverse proxies, whose word is taken for the address of a client (`X-Forwarded-For`).
    pub proxies: Vec<IpAddr>,
    /// Whether everybody may read `/metrics`; without it, this machine may.
    pub public_metrics: bool,
    /// Where to serve `/metrics` besides, to everybody who reaches it, as `host:port`.
    pub metrics: Option<String>,
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
    /// Whom the operator knows.
    pub lists: Lists,
    /// Aggregators (npub or hex) whose receipts and settlements give standing for good to those whom they name.
    #[serde(deserialize_with = "keys")]
    pub trust: Vec<PublicKey>,
    /// Who may write and read.
    pub auth: Auth,
    /// What keys without standing must show.
    pub work: Work,
    /// How much one client may take.
    pub limits: Limits,
    /// How much is kept of blobs.
    pub blob_limits: BlobLimits,
    /// How much memory reconciliations (NIP-77) may take.
    pub reconciliation: ReconciliationLimits,
    /// Relays to be kept equal with while this one serves.
    pub sync: Vec<Peer>,
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

/// A relay to be kept equal with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its address, `wss://…`.
    pub url: RelayUrl,
    /// Of which events; without it, of all that this relay takes.
    #[serde(default, deserialize_with = "filter")]
    pub filter: Option<Filter>,
    /// Which way events go.
    #[serde(default)]
    pub direction: Direction,
    /// How long to wait after one reconciliation before the next, such as `30s`, `5m` or `1h`.
    #[serde(default = "five_minutes", deserialize_with = "duration")]
    pub every: Duration,
}

/// Which way events go between two relays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Both have all in the end.
    #[default]
    Both,
    /// From the other to this one only.
    Down,
    /// From this one to the other only.
    Up,
}

/// A filter as a table. A filter reads numbers as JSON has them, not as TOML does.
fn filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Filter>, D::Error> {
    let table = serde_json::Value::deserialize(deserializer)?;
    let filter = serde_json::from_value(table).map_err(serde::de::Error::custom)?;
    Ok(Some(filter))
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

/// A time such as `30s`, `5m` or `1h`; at least a second.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let unknown = || serde::de::Error::custom(format!("{text:?} is no time such as 30s, 5m or 1h"));
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(unknown)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(unknown()),
    };
    let number: u32 = number.parse().map_err(|_| unknown())?;
    match u64::from(number) * seconds {
        0 => Err(unknown()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// Whom the operator knows, for good. Whom it knows for now stands in the relay's folder (`crate::lists`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lists {
    /// Keys that may whatever any key may, and need not work for it (npub or hex).
    #[serde(deserialize_with = "keys")]
    pub allow: Vec<PublicKey>,
    /// Keys of which nothing is taken (npub or hex).
    #[serde(deserialize_with = "keys")]
    pub ban: Vec<PublicKey>,
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
    pub key: Share,
    /// What a key without standing may write.
    pub stranger: Share,
    /// What an address may do.
    pub address: AddressLimits,
    /// What all may write together. A quarter of each burst is kept for trusted and allowed keys.
    pub all: Share,
}

/// Public keys as npub or hex.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PublicKey>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parsed(text)).collect()
}

fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PublicKey>, D::Error> {
    parsed(&String::deserialize(deserializer)?).map(Some)
}

fn parsed<E: serde::de::Error>(text: &str) -> Result<PublicKey, E> {
    PublicKey::parse(text).map_err(|_| E::custom(format!("{text:?} is no npub")))
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
            icon: None,
            pubkey: None,
            admins: Vec::new(),
            proxies: Vec::new(),
            public_metrics: false,
            metrics: None,
            contact: None,
            address: None,
            blobs: true,
            follow_bans: Vec::new(),
            lists: Lists::default(),
            trust: Vec::new(),
            auth: Auth::default(),
            work: Work::default(),
            limits: Limits::default(),
            blob_limits: BlobLimits::default(),
            reconciliation: ReconciliationLimits::default(),
            sync: Vec::new(),
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

/// A file with every setting at its default, for people to begin with.
pub const EXAMPLE: &str = include_str!("../relay.toml");

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
    fn a_peer_has_a_url_and_how_often_it_is_asked() {
        let parse = |text: &str| toml::from_str::<Options>(text);
        let text = "[[sync]]\nurl = \"wss://a.example\"\n[[sync]]\nurl = \"ws://b.example:7777\"\nevery = \"90s\"\ndirection = \"down\"\nfilter = { kinds = [8603], \"#t\" = [\"text\"] }";
        let peers = parse(text).unwrap().sync;
        assert_eq!(peers[0].every, Duration::from_secs(300));
        assert_eq!(
            (peers[0].direction, &peers[0].filter),
            (Direction::Both, &None)
        );
        assert_eq!(peers[1].every, Duration::from_secs(90));
        assert_eq!(peers[1].direction, Direction::Down);
        let filter = peers[1].filter.clone().unwrap();
        assert_eq!(filter.generic_tags.len(), 1);
        for wrong in ["0s", "5", "m", "", "5 m", "-1s", "5d", "5ä"] {
            let text = format!("[[sync]]\nurl = \"wss://a.example\"\nevery = \"{wrong}\"");
            let refused = parse(&text).unwrap_err().to_string();
            assert!(refused.contains("30s"), "{wrong}: {refused}");
        }
        assert!(parse("[[sync]]\nurl = \"https://a.example\"").is_err());
    }

    #[test]
    fn the_example_says_the_defaults() {
        let example: Options = toml::from_str(EXAMPLE).unwrap();
        assert_eq!(example, Options::default());
    }

    /// The example with what it leaves out.
    fn whole_example() -> String {
        let is_setting = |line: &str| line.starts_with("# [[") || line.contains(" = ");
        let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
            Some(setting) if is_setting(line) => setting,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_names_every_setting() {
        let whole = whole_example();
        let options: Options = toml::from_str(&whole).unwrap();
        assert!(options.pubkey.is_some() && options.sync[0].filter.is_some());
        let table: toml::Table = toml::from_str(&whole).unwrap();
        named(&table, "", &mut Vec::new());
    }

    /// Checks that each table of `whole` has all keys that this place in the options knows.
    fn named(table: &toml::Table, place: &str, path: &mut Vec<String>) {
        let mut text = String::new();
        if !path.is_empty() {
            let heading = path.join(".");
            text = match place {
                "[]" => format!("[[{heading}]]\nurl = \"wss://x\"\n"),
                _ => format!("[{heading}]\n"),
            };
        }
        text.push_str("unheard_of = 1");
        let refused = toml::from_str::<Options>(&text).unwrap_err().to_string();
        let known = refused.split("expected").nth(1).unwrap();
        for key in known.split('`').skip(1).step_by(2) {
            assert!(table.contains_key(key), "{path:?} without {key}");
        }
        for (key, value) in table {
            path.push(key.clone());
            match value {
                // A filter is not ours, and a rate has its keys.
                toml::Value::Table(_)
                    if ["filter", "free", "events", "bytes", "requests"]
                        .contains(&key.as_str()) => {}
                toml::Value::Table(inner) => named(inner, "", path),
                toml::Value::Array(array) => {
                    if let Some(toml::Value::Table(inner)) = array.first() {
                        named(inner, "[]", path);
                    }
                }
                _ => {}
            }
            path.pop();
        }
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        for text in ["generl = true", "[limits]\nconections = 7"] {
            let refused = toml::from_str::<Options>(text).unwrap_err();
            assert!(refused.to_string().contains("unknown field"), "{refused}");
        }
    }
}
