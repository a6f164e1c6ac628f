//! What an operator can set.

mod demands;
mod example;
mod limits;
mod peers;
mod sense;

use std::net::IpAddr;
use std::path::PathBuf;

use infernet_protocol::bounds::MAX_EVENT_BYTES;
use nostr::PublicKey;
use serde::{Deserialize, Deserializer};

pub use demands::{Access, AddressLimits, Auth, Rate, Share, Work};
pub use example::EXAMPLE;
pub use limits::{BlobLimits, Limits, ReconciliationLimits};
pub use peers::{Direction, Peer, filter_of, url_of};
pub use sense::Senseless;

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
    #[serde(deserialize_with = "addresses")]
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

/// Public keys as npub or hex.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PublicKey>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parsed(text)).collect()
}

fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PublicKey>, D::Error> {
    parsed(&String::deserialize(deserializer)?).map(Some)
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let wrong = |text: &String| serde::de::Error::custom(format!("{text:?} is no IP address"));
    let read = |text: &String| text.parse().map_err(|_| wrong(text));
    texts.iter().map(read).collect()
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
    fn a_share_may_be_changed_in_part() {
        let text = "[limits.key]\nevents = { per_second = 1, burst = 2 }\n[work.free]\nbytes = { per_second = 3, burst = 4 }\n";
        let options: Options = toml::from_str(text).unwrap();
        let usual = Options::default();
        assert_eq!(options.limits.key.events, Rate::new(1, 2));
        assert_eq!(options.limits.key.bytes, usual.limits.key.bytes);
        assert_eq!(options.work.free.bytes, Rate::new(3, 4));
        assert_eq!(options.work.free.events, usual.work.free.events);
    }

    #[test]
    fn a_proxy_is_an_address() {
        let refused = toml::from_str::<Options>("proxies = [\"10.0.0.0/8\"]").unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("\"10.0.0.0/8\" is no IP address")
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
