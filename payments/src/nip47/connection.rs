//! The string that connects us to a wallet.

use std::fmt;
use std::str::FromStr;

use infernet_node::link::MAX_RELAYS;
use nostr::nips::nip47::NostrWalletConnectURI;
use nostr::{PublicKey, RelayUrl, SecretKey};

/// Bytes of a connection string: a key, a secret and some relays.
const MAX_BYTES: usize = 4_096;

/// Text that is no connection to a wallet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConnection {
    /// Copy it from the wallet again, whole.
    #[error(
        "that is no wallet connection: it looks like nostr+walletconnect://<key>?relay=…&secret=…"
    )]
    Unreadable,
    /// It names no relay, or too many.
    #[error("a wallet connection names 1 to {MAX_RELAYS} relays, this one {0}")]
    Relays(usize),
}

/// Where a wallet is, and the secret that lets us use it. Whoever has it can spend: keep its file at mode 0600.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// The wallet service's key.
    pub wallet: PublicKey,
    /// Where it listens.
    pub relays: Vec<RelayUrl>,
    /// Our key for this connection alone.
    pub secret: SecretKey,
}

impl Connection {
    /// The connection as text, with its secret.
    pub fn to_uri(&self) -> String {
        let secret = self.secret.clone();
        NostrWalletConnectURI::new(self.wallet, self.relays.clone(), secret, None).to_string()
    }
}

impl FromStr for Connection {
    type Err = InvalidConnection;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_BYTES {
            return Err(InvalidConnection::Unreadable);
        }
        let uri = NostrWalletConnectURI::parse(text.trim());
        let uri = uri.map_err(|_| InvalidConnection::Unreadable)?;
        match uri.relays.len() {
            1..=MAX_RELAYS => Ok(Self {
                wallet: uri.public_key,
                relays: uri.relays,
                secret: uri.secret,
            }),
            other => Err(InvalidConnection::Relays(other)),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({}, {:?}, …)", self.wallet, self.relays)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const KEY: &str = "b889ff5b1513b641e2a139f661a661364979c5beee91842f8f0ef42ab558e9d4";
    const SECRET: &str = "71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c";

    #[test]
    fn a_connection_survives_its_text_and_never_shows_its_secret() {
        let text = format!(
            "nostr+walletconnect://{KEY}?relay=wss%3A%2F%2Fone.example&relay=ws%3A%2F%2F127.0.0.1%3A7&secret={SECRET}&lud16=a@b.c"
        );
        let connection: Connection = text.parse().unwrap();
        assert_eq!(connection.relays.len(), 2);
        assert_eq!(connection.to_uri().parse(), Ok(connection.clone()));
        assert!(!format!("{connection:?}").contains(SECRET));
    }

    #[test]
    fn what_is_no_connection_is_refused() {
        let without_relay = format!("nostr+walletconnect://{KEY}?secret={SECRET}");
        let without_secret = format!("nostr+walletconnect://{KEY}?relay=ws%3A%2F%2Fa.example");
        for text in ["", "https://a.example", &without_relay, &without_secret] {
            assert!(text.parse::<Connection>().is_err(), "{text}");
        }
        let relays = "relay=ws%3A%2F%2Fa.example&".repeat(MAX_RELAYS + 1);
        let many = format!("nostr+walletconnect://{KEY}?{relays}secret={SECRET}");
        assert_eq!(
            many.parse::<Connection>(),
            Err(InvalidConnection::Relays(MAX_RELAYS + 1))
        );
    }
}
