//! Where a client connects, who it is there, and how patient it is.

use std::collections::HashSet;
use std::time::Duration;

use infernet_blobs::{Address, servers_of};
use infernet_protocol::job::buyer::Patience;
use nostr::{Keys, PublicKey, RelayUrl};

use crate::{Error, purse};

/// How long bids are waited for if none is good enough at once: providers bid within a round trip, and a person
/// waits for this.
const AUCTION_WINDOW: Duration = Duration::from_millis(1_500);

/// How long the relays have at the start to say what is on sale.
const MARKET_PATIENCE: Duration = Duration::from_secs(3);

/// How long a first relay is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a client connects, who it is there, and how patient it is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Addresses of relays.
    pub relays: Vec<String>,
    /// The key pair that signs; a fresh one unless it is set.
    pub keys: Keys,
    /// Whose attestations count besides our own.
    pub trust: Vec<PublicKey>,
    /// Whose bans are followed: nothing is bought of those whom one of them bans.
    pub follow_bans: Vec<PublicKey>,
    /// How long to wait for a provider.
    pub patience: Patience,
    /// How long to wait for bids.
    pub auction_window: Duration,
    /// How long to wait for what is on sale.
    pub market_patience: Duration,
    /// How long to wait for a first relay.
    pub connect_timeout: Duration,
    /// What to pay with; without it only free work can be bought.
    pub purse: Option<purse::Options>,
    /// Blossom servers for what no event carries; none for the relays' own addresses.
    pub blobs: Vec<Address>,
    /// Whether work is bought on escrow terms, from providers that give this key credit. The client pays nothing for
    /// it: its owner, an aggregator, does.
    pub escrow: bool,
}

impl Options {
    /// These relays, and a fresh key pair: whoever wants to be known again sets [`Options::keys`].
    pub fn new(relays: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            relays: relays.into_iter().map(Into::into).collect(),
            keys: Keys::generate(),
            trust: Vec::new(),
            follow_bans: Vec::new(),
            patience: Patience::default(),
            auction_window: AUCTION_WINDOW,
            market_patience: MARKET_PATIENCE,
            connect_timeout: CONNECT_TIMEOUT,
            purse: None,
            blobs: Vec::new(),
            escrow: false,
        }
    }

    /// The same with this key pair.
    #[must_use]
    pub fn keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// The same with money.
    #[must_use]
    pub fn purse(mut self, purse: purse::Options) -> Self {
        self.purse = Some(purse);
        self
    }

    pub(crate) fn relay_urls(&self) -> Result<Vec<RelayUrl>, Error> {
        let parse =
            |text: &String| RelayUrl::parse(text).map_err(|_| Error::RelayAddress(text.clone()));
        self.relays.iter().map(parse).collect()
    }

    /// The blob servers to use.
    pub(crate) fn blob_servers(&self, relays: &[RelayUrl]) -> Vec<Address> {
        match self.blobs.is_empty() {
            true => servers_of(relays),
            false => self.blobs.clone(),
        }
    }

    /// Whose attestations count.
    pub(crate) fn trusted(&self) -> HashSet<PublicKey> {
        self.trust
            .iter()
            .copied()
            .chain([self.keys.public_key()])
            .collect()
    }
}
