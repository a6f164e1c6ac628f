//! Who manages the relay: a signed event with each request (NIP-98), good for one request at one relay.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use axum::http::HeaderMap;
use nostr::{Event, EventId, PublicKey, Timestamp, Url};
use sha2::{Digest as _, Sha256};

use crate::signed::{self, Unsigned, values};

/// The kind of these events.
const KIND: u16 = 27_235;

/// Seconds that its clock and ours may be apart.
const MAX_APART_SECS: u64 = 60;

/// Why a request is not obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody signed it, or not as it should be.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// Whoever signed it has no say here.
    #[error("your key does not manage this relay (admins, pubkey)")]
    Stranger,
}

/// Knows who may, and what was asked already.
#[derive(Debug)]
pub struct Gate {
    admins: Vec<PublicKey>,
    names: Names,
    since: Timestamp,
    seen: Mutex<HashMap<EventId, Timestamp>>,
}

impl Gate {
    /// Lets `admins` through, who speak to a relay of these `names` that runs since then.
    pub fn new(admins: Vec<PublicKey>, names: Names, since: Timestamp) -> Self {
        Self {
            admins,
            names,
            since,
            seen: Mutex::default(),
        }
    }

    /// Who asks for what is in `body`, once.
    ///
    /// # Errors
    /// When that may not be.
    pub fn admin(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<PublicKey, Refusal> {
        let event = signed::event(headers).map_err(|unsigned| match unsigned {
            Unsigned::Missing => Refusal::Unauthorized("sign the request (NIP-98)"),
            Unsigned::Malformed => Refusal::Unauthorized("this is no event in base64"),
        })?;
        if let Some(wrong) = self.fault(&event, body, now) {
            return Err(Refusal::Unauthorized(wrong));
        }
        if !self.admins.contains(&event.pubkey) {
            return Err(Refusal::Stranger);
        }
        if !self.is_first(&event, now) {
            return Err(Refusal::Unauthorized(
                "this was asked already: sign it again",
            ));
        }
        Ok(event.pubkey)
    }

    fn fault(&self, event: &Event, body: &[u8], now: Timestamp) -> Option<&'static str> {
        if event.kind.as_u16() != KIND {
            return Some("this event is of another kind than 27235");
        }
        if event.created_at.as_secs().abs_diff(now.as_secs()) > MAX_APART_SECS {
            return Some("it was signed more than a minute before or after now: check your clock");
        }
        // What was asked before, nobody remembers.
        if event.created_at < self.since {
            return Some("it was signed before this relay started: sign it again");
        }
        if !is_only(event, "method", |method| {
            method.eq_ignore_ascii_case("POST")
        }) {
            return Some("its tag `method` is not POST");
        }
        if !is_only(event, "u", |url| self.names.is(url)) {
            return Some(self.names.advice());
        }
        let hash = hex::encode(Sha256::digest(body));
        if !is_only(event, "payload", |payload| {
            payload.eq_ignore_ascii_case(&hash)
        }) {
            return Some("its tag `payload` is not the sha256 of the request's body");
        }
        event.verify().is_err().then_some("its signature is wrong")
    }

    fn is_first(&self, event: &Event, now: Timestamp) -> bool {
        // Counts are sound whatever their last user did.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, signed| signed.as_secs() + MAX_APART_SECS >= now.as_secs());
        seen.insert(event.id, event.created_at).is_none()
    }
}

/// Whether the event has one such tag, and its value is right.
fn is_only(event: &Event, name: &str, is_right: impl Fn(&str) -> bool) -> bool {
    let mut values = values(event, name);
    values.next().is_some_and(is_right) && values.next().is_none()
}

/// What this relay is called in what is signed for it. What the client calls it counts nothing: a request that was
/// signed for another relay must not be good here.
#[derive(Debug)]
pub struct Names {
    /// As its operator says.
    address: Option<String>,
    /// Where it listens.
    bound: SocketAddr,
}

impl Names {
    /// A relay that listens there, and is known by `address` if that is set.
    pub fn new(address: Option<String>, bound: SocketAddr) -> Self {
        Self { address, bound }
    }

    fn is(&self, url: &str) -> bool {
        let Some(said) = Place::of(url) else {
            return false;
        };
        match &self.address {
            Some(address) => Place::of(address).is_some_and(|own| own == said),
            None => {
                let here = ["127.0.0.1", "[::1]", "localhost"];
                let bound = match self.bound {
                    SocketAddr::V4(bound) => bound.ip().to_string(),
                    SocketAddr::V6(bound) => format!("[{}]", bound.ip()),
                };
                let is_here = here.contains(&said.host.as_str()) || said.host == bound;
                is_here && said.port == Some(self.bound.port()) && said.path == "/"
            }
        }
    }

    fn advice(&self) -> &'static str {
        match self.address {
            Some(_) => "its tag `u` is not this relay's address",
            None => {
                "its tag `u` is not this relay's address (without `address` in its configuration, \
                 that is this machine's own)"
            }
        }
    }
}

/// An address without what may differ: `wss` and `https` are one port.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: Option<u16>,
    path: String,
}

impl Place {
    fn of(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        let is_web = ["http", "https", "ws", "wss"].contains(&url.scheme());
        let is_bare = url.query().is_none() && url.username().is_empty();
        (is_web && is_bare).then_some(())?;
        Some(Self {
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default(),
            path: format!("{}/", url.path().trim_end_matches('/')),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::http::header;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use nostr::{EventBuilder, JsonUtil as _, Keys, Kind, Tag};

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const BODY: &[u8] = b"{}";

    fn gate(admins: &[&Keys], address: Option<&str>) -> Gate {
        let admins = admins.iter().map(|keys| keys.public_key()).collect();
        let bound = "127.0.0.1:7777".parse().unwrap();
        let names = Names::new(address.map(str::to_owned), bound);
        Gate::new(admins, names, Timestamp::from_secs(NOW - 30))
    }

    fn tags() -> Vec<[String; 2]> {
        let hash = hex::encode(Sha256::digest(BODY));
        [
            ["u", "http://127.0.0.1:7777"],
            ["method", "POST"],
            ["payload", &hash],
        ]
        .map(|tag| tag.map(str::to_owned))
        .to_vec()
    }

    fn event(keys: &Keys, kind: u16, at: u64, tags: Vec<[String; 2]>) -> Event {
        let tags = tags.iter().map(|tag| Tag::parse(tag).unwrap());
        EventBuilder::new(Kind::Custom(kind), "")
            .tags(tags)
            .custom_created_at(Timestamp::from_secs(at))
            .sign_with_keys(keys)
            .unwrap()
    }

    fn ask(gate: &Gate, event: &Event) -> Result<PublicKey, Refusal> {
        let token = STANDARD.encode(event.as_json());
        let mut headers = HeaderMap::new();
        headers.insert(
            header::AUTHORIZATION,
            format!("Nostr {token}").parse().unwrap(),
        );
        gate.admin(&headers, BODY, Timestamp::from_secs(NOW))
    }

    #[test]
    fn an_admin_is_heard_once() {
        let keys = Keys::generate();
        let gate = gate(&[&keys], None);
        let right = event(&keys, KIND, NOW, tags());
        assert_eq!(ask(&gate, &right), Ok(keys.public_key()));
        let again = Err(Refusal::Unauthorized(
            "this was asked already: sign it again",
        ));
        assert_eq!(ask(&gate, &right), again);
        assert!(ask(&gate, &event(&keys, KIND, NOW - 1, tags())).is_ok());
        let stranger = event(&Keys::generate(), KIND, NOW, tags());
        assert_eq!(ask(&gate, &stranger), Err(Refusal::Stranger));
    }

    #[test]
    fn whatever_is_wrong_is_refused() {
        let keys = Keys::generate();
        let gate = gate(&[&keys], None);
        let without = |at: usize| {
            let mut tags = tags();
            tags.remove(at);
            tags
        };
        let with = |at: usize, value: &str| {
            let mut tags = tags();
            tags[at][1] = value.to_owned();
            tags
        };
        let twice = |at: usize| [tags(), vec![tags()[at].clone()]].concat();
        let mut wrong: Vec<Event> = [
            without(0),
            without(1),
            without(2),
            twice(0),
            with(0, "http://127.0.0.1:7778"),
            with(0, "http://relay.example:7777"),
            with(0, "http://127.0.0.1:7777/other"),
            with(0, "http://127.0.0.1:7777/?x=1"),
            with(0, ""),
            with(1, "GET"),
            with(2, "00"),
        ]
        .map(|tags| event(&keys, KIND, NOW, tags))
        .to_vec();
        wrong.push(event(&keys, 24_242, NOW, tags()));
        wrong.push(event(&keys, KIND, NOW + 61, tags()));
        wrong.push(event(&keys, KIND, NOW - 31, tags()));
        let mut forged = event(&keys, KIND, NOW, tags());
        forged.content.push('!');
        wrong.push(forged);
        for event in wrong {
            let refused = ask(&gate, &event);
            assert!(
                matches!(refused, Err(Refusal::Unauthorized(_))),
                "{event:?} {refused:?}"
            );
        }
        let nobody = gate.admin(&HeaderMap::new(), BODY, Timestamp::from_secs(NOW));
        assert_eq!(
            nobody,
            Err(Refusal::Unauthorized("sign the request (NIP-98)"))
        );
    }

    #[test]
    fn what_is_signed_for_another_relay_counts_nothing() {
        let known = gate(&[], Some("https://Relay.Example"));
        for own in [
            "https://relay.example",
            "wss://relay.example/",
            "https://relay.example:443",
        ] {
            assert!(known.names.is(own), "{own}");
        }
        for other in [
            "http://127.0.0.1:7777",
            "https://relay.example:444",
            "http://relay.example",
            "https://relay.example.evil",
            "https://evil@relay.example/",
            "ftp://relay.example",
        ] {
            assert!(!known.names.is(other), "{other}");
        }
        let local = gate(&[], None);
        for own in ["ws://localhost:7777", "http://[::1]:7777/"] {
            assert!(local.names.is(own), "{own}");
        }
        assert!(!local.names.is("http://localhost"));
    }
}
