//! `nostr+walletconnect://…`: what a client is given.

use std::fmt;
use std::str::FromStr;

use nostr::nips::nip47::NostrWalletConnectURI;
use nostr::{Keys, PublicKey, RelayUrl};

/// Where a wallet is, who it is, and the key to ask it with. `Debug` does not show the key; `Display` does.
#[derive(Clone)]
pub struct ConnectionString {
    /// The wallet's key for this connection.
    pub service: PublicKey,
    /// Where it listens.
    pub relays: Vec<RelayUrl>,
    /// The client's key.
    pub client: Keys,
}

/// The text is no connection string. It holds a secret and is not repeated.
#[derive(Debug, thiserror::Error)]
#[error("this is no connection string (nostr+walletconnect://<key>?relay=<url>&secret=<hex>)")]
pub struct Unreadable;

impl FromStr for ConnectionString {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let uri = NostrWalletConnectURI::parse(text.trim()).map_err(|_| Unreadable)?;
        match uri.relays.is_empty() {
            true => Err(Unreadable),
            false => Ok(Self {
                service: uri.public_key,
                relays: uri.relays,
                client: Keys::new(uri.secret),
            }),
        }
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = self.client.secret_key().clone();
        NostrWalletConnectURI::new(self.service, self.relays.clone(), secret, None).fmt(f)
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString")
            .field("service", &self.service)
            .field("relays", &self.relays)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_debug_keeps_the_secret() {
        let written = ConnectionString {
            service: Keys::generate().public_key(),
            relays: vec![
                RelayUrl::parse("ws://127.0.0.1:4000").unwrap(),
                RelayUrl::parse("wss://relay.example.com").unwrap(),
            ],
            client: Keys::generate(),
        };
        let text = written.to_string();
        let read: ConnectionString = text.parse().unwrap();
        assert_eq!(read.relays, written.relays);
        assert_eq!(read.client, written.client);
        assert_eq!(read.to_string(), text);
        let secret = written.client.secret_key().to_secret_hex();
        assert!(text.contains(&secret) && !format!("{read:?}").contains(&secret));
        assert!(
            "nostr+walletconnect://abc"
                .parse::<ConnectionString>()
                .is_err()
        );
    }
}
