//! What the relay asks of those who write and read.

use nostr::Kind;
use serde::{Deserialize, Deserializer};

/// How fast something may go. In a file both are given, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How much a second, sustained. 0 sets no bound.
    pub per_second: u64,
    /// How much may come at once.
    pub burst: u64,
}

impl Rate {
    /// So much a second, and so much at once.
    pub const fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second, burst }
    }
}

/// How many events may be written, and of how many bytes in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Events.
    pub events: Rate,
    /// Bytes of these events as JSON.
    pub bytes: Rate,
}

impl Share {
    /// Reads what a file says of a share. What it leaves out is as `usual`.
    pub(super) fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        usual: Self,
    ) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Said {
            events: Option<Rate>,
            bytes: Option<Rate>,
        }
        let said = Said::deserialize(deserializer)?;
        Ok(Self {
            events: said.events.unwrap_or(usual.events),
            bytes: said.bytes.unwrap_or(usual.bytes),
        })
    }
}

/// What one address may do; of version 6, one network of 64 bits. A network of 48 bits may do four times as much, one
/// of 32 bits sixteen times.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AddressLimits {
    /// Connections at a time. 0 sets no bound.
    pub connections: usize,
    /// Events that it sends, refused and known ones among them.
    pub events: Rate,
    /// Requests: subscriptions, counts, messages of reconciliations; one more for each millisecond that they take.
    pub requests: Rate,
    /// Keys that may earn standing in an hour by work shown from there. 0 sets no bound.
    pub standings_per_hour: u64,
    /// Bytes that may be stored in an hour for keys which the operator did not choose. 0 sets no bound.
    pub stored_per_hour: u64,
}

impl Default for AddressLimits {
    fn default() -> Self {
        Self {
            connections: 100,
            events: Rate::new(4_000, 20_000),
            requests: Rate::new(500, 5_000),
            standings_per_hour: 120,
            stored_per_hour: 1 << 30,
        }
    }
}

/// When proof of work (NIP-13) is asked of keys without standing, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Work {
    /// Bits asked even at rest.
    pub min_bits: u8,
    /// Bits asked first when the free share is used up.
    pub first_bits: u8,
    /// Bits that are never exceeded. 0 asks for none, ever, and every key is as good as one with standing.
    pub max_bits: u8,
    /// What all keys without standing may write together without work.
    #[serde(deserialize_with = "free")]
    pub free: Share,
    /// Keys that may earn standing in a second before more bits are asked.
    pub standings_per_second: u64,
    /// Bytes that may be stored in a second for keys that earned standing before more bits are asked. 0 sets no bound.
    pub stored_per_second: u64,
    /// Seconds that standing lasts.
    pub standing_secs: u64,
    /// Events that it lasts for.
    pub standing_events: u64,
    /// Bytes that may be stored by it.
    pub standing_bytes: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            min_bits: 0,
            first_bits: 16,
            max_bits: 24,
            free: Share {
                events: Rate::new(20, 10_000),
                bytes: Rate::new(16 << 10, 16 << 20),
            },
            standings_per_second: 5,
            stored_per_second: 2 << 20,
            standing_secs: 3_600,
            standing_events: 1_000_000,
            standing_bytes: 64 << 20,
        }
    }
}

fn free<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
    Share::read(deserializer, Work::default().free)
}

/// Who may write and read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Who may write.
    pub write: Access,
    /// Who may read.
    pub read: Access,
    /// Kinds of which an event is answered only to its author and the keys that it names in `p` tags, once they have
    /// identified themselves (NIP-42).
    #[serde(deserialize_with = "kinds")]
    pub private_kinds: Vec<Kind>,
}

/// Kinds as numbers. A kind reads itself from JSON alone.
fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Kind>, D::Error> {
    let numbers = Vec::<u16>::deserialize(deserializer)?;
    Ok(numbers.into_iter().map(Kind::from).collect())
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            write: Access::Anyone,
            read: Access::Anyone,
            private_kinds: vec![Kind::EncryptedDirectMessage, Kind::GiftWrap],
        }
    }
}

/// Who may do something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Anybody.
    #[default]
    Anyone,
    /// Who has identified itself with any key (NIP-42).
    Identified,
    /// Keys of the allow list, and the operator's own.
    Listed,
}
