//! Addresses of Blossom servers.

use std::fmt;
use std::str::FromStr;

use infernet_protocol::batch::Blob;
use infernet_protocol::bounds::MAX_BLOB_SERVERS;
use nostr::{RelayUrl, Url};

/// Where a Blossom server is: `https://host` or `http://host`, with a port if it needs one. BUD-01 wants it at the root,
/// so there is no path: nobody who names a server can name a page of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Url);

/// Text that is no [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no blob server: write it as https://host or http://host:port, without a path")]
pub struct InvalidAddress(pub String);

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        let url: Url = text.trim().parse().map_err(|_| invalid())?;
        let is_origin = matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        match is_origin {
            true => Ok(Self(url)),
            false => Err(invalid()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl Address {
    /// Whether what is said there can be read on the way.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The server's name, as its tag in an authorization has it (BUD-11).
    pub(crate) fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Where blobs are uploaded.
    pub(crate) fn upload(&self) -> Url {
        self.at("upload")
    }

    /// Where a blob is.
    pub(crate) fn of(&self, blob: &Blob) -> Url {
        self.at(&blob.sha256.to_string())
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }
}

/// The blob servers of those who configured none: their relays' own addresses, as `infernet-relay` serves blobs.
pub fn servers_of<'a>(relays: impl IntoIterator<Item = &'a RelayUrl>) -> Vec<Address> {
    let mut servers = Vec::new();
    for relay in relays {
        // "ws" becomes "http", and "wss" "https".
        let url: Option<Url> = relay.as_str().replacen("ws", "http", 1).parse().ok();
        let Some(mut url) = url else { continue };
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        if !servers.contains(&Address(url.clone())) && servers.len() < MAX_BLOB_SERVERS {
            servers.push(Address(url));
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_is_an_origin() {
        for text in [
            "https://blobs.example",
            "http://127.0.0.1:7777",
            "https://[::1]:8443",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
            let slash = format!("{text}/");
            assert_eq!(slash.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "blobs.example",
            "ftp://blobs.example",
            "wss://blobs.example",
            "https://",
            "https://blobs.example/admin",
            "https://blobs.example/?delete=",
            "https://blobs.example/#",
            "https://me@blobs.example",
            "https://me:secret@blobs.example",
            "file:///etc/passwd",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn relays_are_the_servers_of_those_who_name_none() {
        let relays = [
            "ws://127.0.0.1:7777",
            "wss://relay.example/path",
            "wss://relay.example",
        ];
        let relays: Vec<RelayUrl> = relays.map(|url| url.parse().unwrap()).into();
        let servers: Vec<_> = servers_of(&relays).iter().map(Address::to_string).collect();
        assert_eq!(servers, ["http://127.0.0.1:7777", "https://relay.example"]);
    }

    #[test]
    fn a_blob_lies_under_its_hash() {
        let server: Address = "http://127.0.0.1:7777".parse().unwrap();
        let blob = Blob::of(b"", vec![]);
        let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(server.of(&blob).as_str(), format!("{server}/{hash}"));
        assert_eq!(server.upload().as_str(), format!("{server}/upload"));
    }
}
