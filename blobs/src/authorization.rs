//! Signed words to a Blossom server (BUD-11): who wants to do what with which blob there, and until when.

use base64::Engine as _;
use infernet_protocol::batch::Blob;
use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag, Timestamp};

use crate::Address;
use crate::error::Failure;

/// The kind of these events, which no relay keeps.
const KIND: u16 = 24_242;

/// How long one holds, in seconds: an upload as long as any may take.
const HOLDS_SECS: u64 = 600;

/// How much the server's clock may be behind, in seconds: it takes nothing that is signed in its future.
const BEHIND_SECS: u64 = 30;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// To put a blob there.
    Upload,
    /// To take it away.
    Delete,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Delete => "delete",
        }
    }
}

/// The value of the header `Authorization`.
///
/// # Errors
/// [`Failure::Unsigned`] if the keys cannot sign.
pub fn header(
    verb: Verb,
    blob: &Blob,
    server: &Address,
    keys: &Keys,
    now: Timestamp,
) -> Result<String, Failure> {
    let said = format!("{} a blob", verb.as_str());
    let event = EventBuilder::new(Kind::Custom(KIND), said)
        .tag(Tag::custom("t".into(), [verb.as_str()]))
        .tag(Tag::custom("x".into(), [blob.sha256.to_string()]))
        .tag(Tag::custom("server".into(), [server.host()]))
        .tag(Tag::expiration(now + HOLDS_SECS))
        .custom_created_at(now - BEHIND_SECS)
        .sign_with_keys(keys)
        .map_err(|_| Failure::Unsigned)?;
    let mut json = event.as_json();
    // Old servers want base64 and new ones the URL's alphabet without padding. Of a multiple of three bytes of such text
    // both are the same.
    while json.len() % 3 != 0 {
        json.push(' ');
    }
    let token = base64::engine::general_purpose::STANDARD.encode(json);
    Ok(format!("Nostr {token}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use nostr::Event;

    use super::*;

    #[test]
    fn old_and_new_servers_read_the_same_event() {
        let keys = Keys::generate();
        let now = Timestamp::from_secs(1_800_000_000);
        let blob = Blob::of(b"bytes", vec![]);
        for server in [
            "https://blobs.example",
            "https://b.example",
            "http://bl.example:1",
        ] {
            let server: Address = server.parse().unwrap();
            let header = header(Verb::Upload, &blob, &server, &keys, now).unwrap();
            let token = header.strip_prefix("Nostr ").unwrap();
            let read = STANDARD.decode(token).unwrap();
            assert_eq!(URL_SAFE_NO_PAD.decode(token).unwrap(), read);
            let event = Event::from_json(read).unwrap();
            event.verify().unwrap();
            assert!(event.created_at < now);
            assert_eq!(event.tags.expiration(), Some(&(now + 600_u64)));
            let tags: Vec<_> = event.tags.iter().map(|tag| tag.as_slice()).collect();
            let hash = blob.sha256.to_string();
            assert_eq!(tags[0], ["t", "upload"]);
            assert_eq!(tags[1], ["x", hash.as_str()]);
            assert_eq!(tags[2], ["server", server.host()]);
        }
    }
}
