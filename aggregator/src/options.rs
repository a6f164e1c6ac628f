//! What an aggregator can be told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use infernet_blobs::{Address, servers_of};
use infernet_payments::PaymentRail;
use infernet_protocol::bounds::{MAX_BLOB_SERVERS, MAX_FEE_PPM, MAX_NAME_BYTES, MAX_RELAYS};
use infernet_protocol::inference::Task;
use infernet_protocol::money::Msat;
use nostr::{Keys, PublicKey, RelayUrl};

/// The fee unless the owner says otherwise: 1 %.
const FEE_PPM: u32 = 10_000;

/// The most that is held for one group, unless the owner says otherwise.
const MAX_HOLD: Msat = Msat(100_000_000);

/// Everything that [`crate::run`] needs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who takes batches.
    pub keys: Keys,
    /// The folder of the store, the work, the socket and the lock.
    pub home: PathBuf,
    /// What to call the aggregator.
    pub name: String,
    /// The relays to work on.
    pub relays: Vec<RelayUrl>,
    /// Blossom servers for the blobs of batches.
    pub blobs: Vec<Address>,
    /// Tasks that batches are taken of.
    pub tasks: Vec<Task>,
    /// The fee on accepted work, in millionths.
    pub fee_ppm: u32,
    /// The most that is held for one group.
    pub max_hold: Msat,
    /// Keys of the checkers that the owner runs.
    pub checkers: Vec<PublicKey>,
    /// Whose attestations count besides our own.
    pub trust: Vec<PublicKey>,
    /// Where buyers' money is held and providers are paid from; without it only free
    /// work is done.
    pub wallet: Option<Arc<dyn PaymentRail>>,
    /// How batches are taken and cut.
    pub limits: Limits,
}

/// How batches are taken and cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Orders that may be open at a time.
    pub orders: u32,
    /// Of these, one buyer's.
    pub orders_of_a_buyer: u32,
    /// Groups of one order that may be under way.
    pub groups_at_once: u32,
    /// Groups of all orders that are worked on at a time: their lines are in memory.
    pub groups_in_work: usize,
    /// Tokens that a shard is to have, prompts and answers, as they are guessed.
    pub shard_tokens: u64,
    /// How many times longer than expected a shard may take before it is bought
    /// again elsewhere.
    pub straggler: f64,
    /// The least that a shard may take before it is bought again.
    pub straggler_least: Duration,
    /// How long a group waits while nobody at all sells what it needs.
    pub seller_patience: Duration,
    /// How long before the deadline the last work is waited for.
    pub margin: Duration,
    /// How long a delivered group waits for the buyer to fetch it.
    pub fetch_patience: Duration,
    /// How long a soft stop waits for shards that run.
    pub stop_patience: Duration,
    /// How long what was settled is kept.
    pub kept: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            orders: 64,
            orders_of_a_buyer: 4,
            groups_at_once: 4,
            groups_in_work: 16,
            shard_tokens: 8_192,
            straggler: 3.0,
            straggler_least: Duration::from_secs(10),
            seller_patience: Duration::from_secs(60),
            margin: Duration::from_secs(60),
            fetch_patience: Duration::from_secs(20),
            stop_patience: Duration::from_secs(60),
            kept: Duration::from_secs(7 * 24 * 3_600),
        }
    }
}

/// Options that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name is empty, too long, or would disturb a terminal.
    #[error("the name must have 1 to {MAX_NAME_BYTES} bytes and no control characters")]
    Name,
    /// Too many relays, or none.
    #[error("name 1 to {MAX_RELAYS} relays, like wss://relay.example.com; there are {0}")]
    Relays(usize),
    /// Too many blob servers, or none.
    #[error(
        "name 1 to {MAX_BLOB_SERVERS} Blossom servers, like https://blobs.example.com; there are {0}"
    )]
    Blobs(usize),
    /// The fee is more than the protocol allows.
    #[error("the fee may be at most {MAX_FEE_PPM} millionths (2 %); it is {0}")]
    Fee(u32),
    /// A limit is zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
}

impl Options {
    /// An aggregator of this key on these relays and blob servers, with everything
    /// else as usual.
    pub fn new(keys: Keys, home: impl Into<PathBuf>, relays: Vec<RelayUrl>) -> Self {
        Self {
            keys,
            home: home.into(),
            name: "aggregator".into(),
            blobs: servers_of(&relays),
            relays,
            tasks: vec![Task::TextGeneration, Task::Embedding],
            fee_ppm: FEE_PPM,
            max_hold: MAX_HOLD,
            checkers: vec![],
            trust: vec![],
            wallet: None,
            limits: Limits::default(),
        }
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// The first thing found.
    pub fn validate(&self) -> Result<(), Error> {
        let name = &self.name;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(Error::Name);
        }
        if self.relays.is_empty() || self.relays.len() > MAX_RELAYS {
            return Err(Error::Relays(self.relays.len()));
        }
        if self.blobs.is_empty() || self.blobs.len() > MAX_BLOB_SERVERS {
            return Err(Error::Blobs(self.blobs.len()));
        }
        if self.fee_ppm > MAX_FEE_PPM {
            return Err(Error::Fee(self.fee_ppm));
        }
        let limits = &self.limits;
        for (what, is_zero) in [
            ("orders", limits.orders == 0),
            ("orders_of_a_buyer", limits.orders_of_a_buyer == 0),
            ("groups_at_once", limits.groups_at_once == 0),
            ("groups_in_work", limits.groups_in_work == 0),
            ("shard_tokens", limits.shard_tokens == 0),
        ] {
            if is_zero {
                return Err(Error::Zero(what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn options(relay: &str) -> Options {
        Options::new(
            Keys::generate(),
            "home",
            vec![RelayUrl::parse(relay).unwrap()],
        )
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let sane = options("ws://127.0.0.1:7777");
        assert_eq!(sane.validate(), Ok(()));
        let fee = Options {
            fee_ppm: 20_001,
            ..sane.clone()
        };
        assert_eq!(fee.validate(), Err(Error::Fee(20_001)));
        let name = Options {
            name: "\u{7}".into(),
            ..sane.clone()
        };
        assert_eq!(name.validate(), Err(Error::Name));
        let limits = Limits {
            shard_tokens: 0,
            ..Limits::default()
        };
        assert_eq!(
            Options { limits, ..sane }.validate(),
            Err(Error::Zero("shard_tokens"))
        );
    }
}
