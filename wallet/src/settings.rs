//! What a wallet is told: `wallet.toml` in its folder.

use std::net::SocketAddr;
use std::path::Path;

use infernet_node::config;
use ldk_node::bitcoin::Network;
use nostr::RelayUrl;
use serde::{Deserialize, Serialize};

/// The settings of a wallet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// regtest, signet, testnet or bitcoin.
    pub network: String,
    /// Has to be true before the network may be `bitcoin`.
    pub real_money: bool,
    /// Blocks from a bitcoind: `http://user:password@host:port`.
    pub bitcoind: Option<String>,
    /// Blocks from an Esplora server: `https://host/api`.
    pub esplora: Option<String>,
    /// Where other Lightning nodes find this one, `host:port`.
    pub listen: Vec<String>,
    /// The name other Lightning nodes see, up to 32 bytes.
    pub alias: Option<String>,
    /// Where the wallet's own relay listens; it has to be a loopback address. Port 0: one is chosen at the first
    /// start, and kept.
    pub relay: Option<SocketAddr>,
    /// Further relays on which the wallet can be reached.
    pub relays: Vec<String>,
    /// Lightning nodes for whose channels no on-chain reserve is kept: they are trusted to close channels for us.
    pub no_reserve_for: Vec<String>,
    /// From whom `channel buy` buys (LSPS2).
    pub lsp: Option<Lsp>,
}

/// A seller of channels that speaks LSPS2 (bLIP-52).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lsp {
    /// Its node id.
    pub node: String,
    /// Its address, `host:port`.
    pub address: String,
    /// What it gave us to be known by, if it asks for that.
    pub token: Option<String>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] config::Error),
    /// A value makes no sense.
    #[error("{key} = {value:?}: {wanted}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it should say.
        wanted: &'static str,
    },
    /// Mainnet without saying so.
    #[error(
        "this would use real bitcoin. Infernet's wallet is young software, and you can lose what you put into it. \
         If that is what you want, pass --real-money to init (or set real_money = true)"
    )]
    RealMoney,
    /// Nothing says where blocks come from, or two things do.
    #[error(
        "name one source of blocks: bitcoind = \"http://user:password@host:port\" or esplora = \"https://…\""
    )]
    Chain,
}

/// Where blocks come from.
#[derive(Clone, PartialEq, Eq)]
pub enum Chain {
    /// A bitcoind's RPC.
    Bitcoind {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// Who we are there.
        user: String,
        /// And how we show it.
        password: String,
    },
    /// An Esplora server.
    Esplora(String),
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bitcoind { host, port, .. } => write!(f, "bitcoind at {host}:{port}"),
            Self::Esplora(url) => write!(f, "Esplora at {url}"),
        }
    }
}

impl Settings {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// A file that cannot be read, and anything in it that makes no sense.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let settings: Self = config::load(Some(path), path)?;
        settings.check()?;
        Ok(settings)
    }

    /// Checks what can be checked without a network.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn check(&self) -> Result<(), Error> {
        self.network()?;
        self.chain()?;
        self.relay_address()?;
        self.relays()?;
        Ok(())
    }

    /// The network.
    ///
    /// # Errors
    /// An unknown one, or mainnet without `real_money`.
    pub fn network(&self) -> Result<Network, Error> {
        match self.network.as_str() {
            "regtest" => Ok(Network::Regtest),
            "signet" => Ok(Network::Signet),
            "testnet" => Ok(Network::Testnet),
            "bitcoin" | "mainnet" if self.real_money => Ok(Network::Bitcoin),
            "bitcoin" | "mainnet" => Err(Error::RealMoney),
            other => Err(value(
                "network",
                other,
                "use regtest, signet, testnet or bitcoin",
            )),
        }
    }

    /// Whether it is real bitcoin.
    pub fn is_real(&self) -> bool {
        matches!(self.network(), Ok(Network::Bitcoin))
    }

    /// Where blocks come from.
    ///
    /// # Errors
    /// None, two, or an address that cannot be read.
    pub fn chain(&self) -> Result<Chain, Error> {
        match (&self.bitcoind, &self.esplora) {
            (Some(url), None) => bitcoind(url)
                // The address holds a password and is not repeated.
                .ok_or_else(|| value("bitcoind", "…", "use http://user:password@host:port")),
            (None, Some(url)) if url.starts_with("http") => Ok(Chain::Esplora(url.clone())),
            (None, Some(url)) => Err(value("esplora", url, "use https://host/api")),
            _ => Err(Error::Chain),
        }
    }

    /// The further relays.
    ///
    /// # Errors
    /// One that is no relay's address.
    pub fn relays(&self) -> Result<Vec<RelayUrl>, Error> {
        let parsed = self.relays.iter().map(|url| {
            RelayUrl::parse(url).map_err(|_| value("relays", url, "use wss://host or ws://host"))
        });
        parsed.collect()
    }

    /// Where the wallet's own relay listens.
    ///
    /// # Errors
    /// An address that others could reach.
    pub fn relay_address(&self) -> Result<SocketAddr, Error> {
        let address = self.relay.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        match address.ip().is_loopback() {
            true => Ok(address),
            false => Err(value(
                "relay",
                &address.to_string(),
                "the wallet's own relay listens on a loopback address such as 127.0.0.1:0; for others name public \
                 relays in `relays`",
            )),
        }
    }
}

fn bitcoind(url: &str) -> Option<Chain> {
    let (login, place) = url.strip_prefix("http://")?.rsplit_once('@')?;
    let (user, password) = login.split_once(':')?;
    let (host, port) = place.trim_end_matches('/').rsplit_once(':')?;
    Some(Chain::Bitcoind {
        host: host.to_owned(),
        port: port.parse().ok()?,
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

pub(crate) fn value(key: &'static str, value: &str, wanted: &'static str) -> Error {
    Error::Value {
        key,
        value: value.to_owned(),
        wanted,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn regtest() -> Settings {
        Settings {
            network: "regtest".into(),
            bitcoind: Some("http://me:se:cret@127.0.0.1:18443".into()),
            ..Settings::default()
        }
    }

    #[test]
    fn mainnet_wants_to_be_asked_for() {
        let mut settings = Settings {
            network: "bitcoin".into(),
            ..regtest()
        };
        assert!(matches!(settings.network(), Err(Error::RealMoney)));
        settings.real_money = true;
        assert_eq!(settings.network().unwrap(), Network::Bitcoin);
    }

    #[test]
    fn a_source_of_blocks_is_one_and_its_password_is_not_shown() {
        let chain = regtest().chain().unwrap();
        assert_eq!(format!("{chain:?}"), "bitcoind at 127.0.0.1:18443");
        let Chain::Bitcoind { password, .. } = chain else {
            panic!("not a bitcoind");
        };
        assert_eq!(password, "se:cret");
        let both = Settings {
            esplora: Some("https://example.com/api".into()),
            ..regtest()
        };
        assert!(matches!(both.chain(), Err(Error::Chain)));
        let wrong = Settings {
            bitcoind: Some("me:se:cret@host".into()),
            ..regtest()
        };
        assert!(!wrong.chain().unwrap_err().to_string().contains("cret"));
    }

    #[test]
    fn the_own_relay_is_for_this_machine() {
        let mut settings = regtest();
        assert_eq!(settings.relay_address().unwrap().port(), 0);
        settings.relay = Some(([0, 0, 0, 0], 4000).into());
        assert!(settings.relay_address().is_err());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = toml::to_string(&regtest()).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), regtest());
    }
}
