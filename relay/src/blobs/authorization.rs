//! Who wants what: the signed events in the header `Authorization` (BUD-11).

use axum::http::HeaderMap;
use infernet_protocol::seal::Digest;
use nostr::{Event, PublicKey, Timestamp};

use super::refusal::Refusal;
use crate::signed::{self, Unsigned, values};

/// The kind of these events.
const KIND: u16 = 24_242;

/// Seconds that `created_at` may lie ahead of our clock.
const MAX_AHEAD_SECS: u64 = 60;

/// What somebody may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// To keep a blob.
    Upload,
    /// To drop one.
    Delete,
    /// To list one's own.
    List,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

/// What somebody signed.
#[derive(Debug)]
pub struct Authorization {
    /// Who.
    pub author: PublicKey,
    event: Event,
}

impl Authorization {
    /// Reads who wants to do `verb`, here and now. `host` is what this server is called.
    ///
    /// # Errors
    /// [`Refusal::Unauthorized`] with what is wrong.
    pub fn read(
        headers: &HeaderMap,
        verb: Verb,
        host: &str,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let event = event(headers)?;
        let wrong = if event.kind.as_u16() != KIND {
            "this event is of another kind than 24242"
        } else if event.created_at.as_secs() > now.as_secs() + MAX_AHEAD_SECS {
            "it is signed in the future: check your clock"
        } else if event.tags.expiration().is_none_or(|until| *until <= now) {
            "it has expired, or never does"
        } else if !values(&event, "t").any(|value| value == verb.as_str()) {
            "it is for something else"
        } else if !is_for(&event, host) {
            "it is for another server"
        } else if event.verify().is_err() {
            "its signature is wrong"
        } else {
            let author = event.pubkey;
            return Ok(Self { author, event });
        };
        Err(Refusal::Unauthorized(wrong))
    }

    /// Whether this blob is meant.
    pub fn names(&self, blob: &Digest) -> bool {
        let hash = blob.to_string();
        values(&self.event, "x").any(|value| value == hash)
    }
}

fn event(headers: &HeaderMap) -> Result<Event, Refusal> {
    signed::event(headers).map_err(|unsigned| match unsigned {
        Unsigned::Missing => Refusal::Unauthorized("sign the request (BUD-11)"),
        Unsigned::Malformed => Refusal::Unauthorized("this is no event in base64"),
    })
}

/// Whether it names no server, or this one. Some clients write the whole address.
fn is_for(event: &Event, host: &str) -> bool {
    let mut servers = values(event, "server").peekable();
    servers.peek().is_none() || servers.any(|server| name(server) == name(host))
}

/// The name in an address or in what a client calls us: without scheme, port and path.
fn name(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let place = rest.split('/').next().unwrap_or_default();
    let name = match place.rsplit_once(':') {
        // Inside the brackets of an IPv6 address, a colon begins no port.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => place,
    };
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::http::header;
    use base64::Engine as _;
    use base64::engine::general_purpose;
    use nostr::{EventBuilder, JsonUtil as _, Keys, Kind, Tag};

    use super::*;
    use crate::signed::MAX_CHARS;

    const NOW: u64 = 1_800_000_000;

    fn builder(tags: &[[&str; 2]]) -> EventBuilder {
        let tags = tags.iter().map(|tag| Tag::parse(*tag).unwrap());
        EventBuilder::new(Kind::Custom(KIND), "?>~ 🌼")
            .tags(tags)
            .custom_created_at(Timestamp::from_secs(NOW - 10))
    }

    fn read_from(value: &str) -> Result<Authorization, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        Authorization::read(
            &headers,
            Verb::Upload,
            "blobs.example:7777",
            Timestamp::from_secs(NOW),
        )
    }

    fn read(builder: EventBuilder) -> Result<Authorization, Refusal> {
        let event = builder.sign_with_keys(&Keys::generate()).unwrap();
        let token = general_purpose::STANDARD.encode(event.as_json());
        read_from(&format!("Nostr {token}"))
    }

    const RIGHT: [[&str; 2]; 2] = [["t", "upload"], ["expiration", "1800000001"]];

    fn with(more: &[[&str; 2]]) -> Result<Authorization, Refusal> {
        read(builder(&[&RIGHT, more].concat()))
    }

    #[test]
    fn who_signed_may_and_names_blobs() {
        let hash = Digest::of(b"bytes").to_string();
        let read = with(&[["x", "ff"], ["x", &hash]]).unwrap();
        assert!(read.names(&Digest::of(b"bytes")));
        assert!(!read.names(&Digest::of(b"others")));
    }

    #[test]
    fn every_way_to_write_base64_is_read() {
        let event = builder(&RIGHT).sign_with_keys(&Keys::generate()).unwrap();
        for engine in [
            general_purpose::STANDARD,
            general_purpose::STANDARD_NO_PAD,
            general_purpose::URL_SAFE,
            general_purpose::URL_SAFE_NO_PAD,
        ] {
            let token = engine.encode(event.as_json());
            assert_eq!(
                read_from(&format!("nostr {token}")).unwrap().author,
                event.pubkey
            );
        }
    }

    #[test]
    fn servers_that_are_named_must_be_this_one() {
        for server in [
            "blobs.example",
            "https://Blobs.Example/",
            "blobs.example:443",
        ] {
            with(&[["server", "other.example"], ["server", server]]).unwrap();
        }
        for server in [
            "other.example",
            "blobs.example.evil",
            "evil/blobs.example",
            "",
        ] {
            let refused = with(&[["server", server]]).unwrap_err();
            assert_eq!(refused, Refusal::Unauthorized("it is for another server"));
        }
        assert_eq!(name("[::1]:7777"), name("http://[::1]"));
    }

    #[test]
    fn everything_else_is_refused() {
        let tags = |tags: &[[&str; 2]]| read(builder(tags)).unwrap_err();
        let expires = |at| tags(&[["t", "upload"], ["expiration", at]]);
        let cases = [
            tags(&[["expiration", "1800000001"]]),
            tags(&[["t", "delete"], ["expiration", "1800000001"]]),
            tags(&[["t", "upload"]]),
            expires("1800000000"),
            expires("never"),
            read(builder(&RIGHT).custom_created_at(Timestamp::from_secs(NOW + 61))).unwrap_err(),
            read(EventBuilder::text_note("").tags([
                Tag::parse(["t", "upload"]).unwrap(),
                Tag::parse(["expiration", "1800000001"]).unwrap(),
            ]))
            .unwrap_err(),
            read_from("Nostr").unwrap_err(),
            read_from("Bearer e30").unwrap_err(),
            read_from("Nostr e30").unwrap_err(),
            read_from(&format!("Nostr {}", "e".repeat(MAX_CHARS + 1))).unwrap_err(),
        ];
        for refused in cases {
            assert!(matches!(refused, Refusal::Unauthorized(_)), "{refused:?}");
        }
        let mut event = builder(&RIGHT).sign_with_keys(&Keys::generate()).unwrap();
        event.content.push('!');
        let token = general_purpose::STANDARD.encode(event.as_json());
        read_from(&format!("Nostr {token}")).unwrap_err();
    }
}
