//! What a provider can be told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use infernet_blobs::{Address, servers_of};
use infernet_payments::PaymentRail;
use infernet_payments::tab::provider::Terms;
use infernet_protocol::bounds::{MAX_NAME_BYTES, MAX_RELAYS};
use infernet_protocol::event::Promise;
use infernet_protocol::money::{Msat, Price};
use nostr::{Keys, PublicKey, RelayUrl};

/// Attempts that may run side by side; more than any one machine serves well.
pub const MAX_SLOTS: u32 = 256;

/// Attempts that may wait; who is behind more than this is better off elsewhere.
pub const MAX_QUEUE: u32 = 1_024;

/// Everything that [`crate::run`] needs, but the engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who sells.
    pub keys: Keys,
    /// The folder of the store, the socket and the lock.
    pub home: PathBuf,
    /// What to call the provider.
    pub name: String,
    /// The relays to sell on.
    pub relays: Vec<RelayUrl>,
    /// The blob servers to put large outputs on; the relays themselves if there is none.
    pub blobs: Vec<Address>,
    /// The price of models that [`Options::prices`] does not name.
    pub price: Price,
    /// Prices by model name.
    pub prices: BTreeMap<String, Price>,
    /// Attempts that run side by side.
    pub slots: u32,
    /// Attempts that may wait.
    pub queue: u32,
    /// Tokens a second that one job gets at most; all that the engine can do if
    /// there is none.
    pub max_speed: Option<f32>,
    /// Whether an award may rest on the announcement alone.
    pub direct: bool,
    /// Whether to publish a profile (kind 0). It replaces one that the key has.
    pub profile: bool,
    /// Promised of every model instead of a measurement.
    pub promise: Option<Promise>,
    /// Where buyers pay; without it everything is free.
    pub wallet: Option<Arc<dyn PaymentRail>>,
    /// What is asked of buyers who pay.
    pub tab: Terms,
    /// Who may pay after the fact.
    pub escrow: Escrow,
    /// Whether others' results are checked, with each model that writes or embeds.
    pub verify: bool,
    /// What that costs, in msat for a million tokens that are read; what the model's
    /// input costs if there is none.
    pub price_verify: Option<u64>,
}

/// Aggregators that pay after they have checked the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escrow {
    /// Who is trusted with that; nobody if there is none.
    pub from: BTreeSet<PublicKey>,
    /// The most that each may owe.
    pub max_owed: Msat,
}

/// What one aggregator may owe, unless said otherwise: some thousand answers at usual
/// prices.
const MAX_OWED: Msat = Msat(1_000_000);

impl Default for Escrow {
    fn default() -> Self {
        Self {
            from: BTreeSet::new(),
            max_owed: MAX_OWED,
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
    /// Too many slots, or none.
    #[error("slots must be 1 to {MAX_SLOTS}; there are {0}")]
    Slots(u32),
    /// Too long a queue.
    #[error("the queue may have up to {MAX_QUEUE} places; there are {0}")]
    Queue(u32),
    /// The speed is no speed.
    #[error("max-speed must be a number of tokens a second above 0")]
    Speed,
    /// The smallest top-up is none, or the usual one is smaller.
    #[error("min_top_up_sats must be at least 1, and top_up_sats no less than it")]
    TopUp,
    /// Nothing would be prepaid.
    #[error("prepaid_output_tokens must be at least 1")]
    Prepaid,
    /// More credit than was ever paid.
    #[error("credit_per_mille must be at most 1000")]
    Credit,
}

impl Options {
    /// A free provider with one slot and everything else as most want it.
    pub fn new(keys: Keys, home: impl Into<PathBuf>, relays: Vec<RelayUrl>) -> Self {
        Self {
            keys,
            home: home.into(),
            name: "infernet provider".into(),
            relays,
            blobs: Vec::new(),
            price: Price::FREE,
            prices: BTreeMap::new(),
            slots: 1,
            queue: 8,
            max_speed: None,
            direct: true,
            profile: true,
            promise: None,
            wallet: None,
            tab: Terms::default(),
            escrow: Escrow::default(),
            verify: false,
            price_verify: None,
        }
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// The first thing found.
    pub fn validate(&self) -> Result<(), Error> {
        let named = !self.name.is_empty() && self.name.len() <= MAX_NAME_BYTES;
        if !named || self.name.chars().any(char::is_control) {
            return Err(Error::Name);
        }
        if self.relays.is_empty() || self.relays.len() > MAX_RELAYS {
            return Err(Error::Relays(self.relays.len()));
        }
        if !(1..=MAX_SLOTS).contains(&self.slots) {
            return Err(Error::Slots(self.slots));
        }
        if self.queue > MAX_QUEUE {
            return Err(Error::Queue(self.queue));
        }
        match self.max_speed {
            Some(speed) if !(speed.is_finite() && speed > 0.0) => Err(Error::Speed),
            _ => self.validate_tab(),
        }
    }

    /// Where large outputs go.
    pub(crate) fn blob_servers(&self) -> Vec<Address> {
        match self.blobs.is_empty() {
            true => servers_of(&self.relays),
            false => self.blobs.clone(),
        }
    }

    fn validate_tab(&self) -> Result<(), Error> {
        let tab = &self.tab;
        // Less than a satoshi cannot be paid everywhere.
        if tab.min_top_up.0 < 1_000 || tab.top_up < tab.min_top_up {
            return Err(Error::TopUp);
        }
        if !(1..=u64::from(u32::MAX)).contains(&tab.prepaid_output_tokens) {
            return Err(Error::Prepaid);
        }
        match tab.credit_per_mille {
            0..=1_000 => Ok(()),
            _ => Err(Error::Credit),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn nonsense_is_refused() {
        let relay = RelayUrl::parse("ws://127.0.0.1:7777").unwrap();
        let good = Options::new(Keys::generate(), "/tmp", vec![relay]);
        good.validate().unwrap();
        let refused = |change: fn(&mut Options)| {
            let mut options = good.clone();
            change(&mut options);
            options.validate().unwrap_err()
        };
        assert_eq!(refused(|o| o.name.clear()), Error::Name);
        assert_eq!(refused(|o| o.name.push('\u{1b}')), Error::Name);
        assert_eq!(refused(|o| o.relays.clear()), Error::Relays(0));
        assert_eq!(refused(|o| o.slots = 0), Error::Slots(0));
        assert_eq!(refused(|o| o.queue = 9_999), Error::Queue(9_999));
        assert_eq!(refused(|o| o.max_speed = Some(0.0)), Error::Speed);
        assert_eq!(refused(|o| o.max_speed = Some(f32::NAN)), Error::Speed);
        assert_eq!(refused(|o| o.tab.min_top_up.0 = 0), Error::TopUp);
        assert_eq!(refused(|o| o.tab.top_up.0 = 9_999), Error::TopUp);
        assert_eq!(refused(|o| o.tab.prepaid_output_tokens = 0), Error::Prepaid);
        assert_eq!(refused(|o| o.tab.credit_per_mille = 1_001), Error::Credit);
    }
}
