//! Who a client is (NIP-42): it signs the challenge that it got when it connected, for this relay.

use nostr::{Event, Kind, PublicKey, TagKind, Timestamp, Url};

/// Seconds that the event may be older or newer than now.
const WITHIN_SECS: u64 = 600;

/// Keys that one connection may be identified with: some clients hold several accounts.
const MAX_KEYS: usize = 16;

/// How often a client may show who it is: each time a signature is checked.
const MAX_TRIES: u32 = 200;

/// Why an event does not show who a client is. Clients read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid: kind {0} identifies nobody; it is kind 22242")]
    Kind(Kind),
    #[error("invalid: created_at is more than {WITHIN_SECS} s off: check your clock")]
    Time,
    #[error("invalid: it does not bear the challenge of this connection")]
    Challenge,
    #[error("invalid: it is for another relay than {0}")]
    Relay(String),
    #[error("invalid: its id or signature is wrong")]
    Signature,
    #[error("rate-limited: one connection has {MAX_KEYS} keys at most")]
    TooMany,
    #[error("rate-limited: one connection is identified {MAX_TRIES} times at most; connect again")]
    TooOften,
}

/// A host, and its port if that is not the usual one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    host: String,
    port: Option<u16>,
}

impl Name {
    /// Of a URL, or of what stands in `Host:`.
    fn parse(text: &str) -> Option<Self> {
        let url = match text.contains("://") {
            true => Url::parse(text).ok()?,
            false => Url::parse(&format!("ws://{text}")).ok()?,
        };
        // Whether TLS ends here or at a proxy, the relay cannot tell: either usual port is none.
        let port = url.port().filter(|port| ![80, 443].contains(port));
        Some(Self {
            host: url.host_str()?.trim_end_matches('.').to_owned(),
            port,
        })
    }
}

/// Who one client has shown to be.
#[derive(Debug)]
pub struct Identity {
    challenge: String,
    /// What this relay is called.
    called: String,
    name: Option<Name>,
    keys: Vec<PublicKey>,
    tries: u32,
}

impl Identity {
    /// Nobody yet. The relay is `called` by its operator's word or, without one, by the client's.
    pub fn new(challenge: String, called: &str) -> Self {
        Self {
            challenge,
            called: called.to_owned(),
            name: Name::parse(called),
            keys: Vec::new(),
            tries: 0,
        }
    }

    /// The keys that it has shown to hold.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Checks everything of `event` and, if it is right, knows its author from now on.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn identify(&mut self, event: &Event, now: Timestamp) -> Result<(), Error> {
        self.tries += 1;
        if self.tries > MAX_TRIES {
            return Err(Error::TooOften);
        }
        if event.kind != Kind::Authentication {
            return Err(Error::Kind(event.kind));
        }
        if event.created_at.as_secs().abs_diff(now.as_secs()) > WITHIN_SECS {
            return Err(Error::Time);
        }
        if tag(event, TagKind::Challenge) != Some(self.challenge.as_str()) {
            return Err(Error::Challenge);
        }
        let named = tag(event, TagKind::Relay).and_then(Name::parse);
        if named.is_none() || named != self.name {
            return Err(Error::Relay(self.called.clone()));
        }
        let known = self.keys.contains(&event.pubkey);
        if !known && self.keys.len() == MAX_KEYS {
            return Err(Error::TooMany);
        }
        event.verify().map_err(|_| Error::Signature)?;
        if !known {
            self.keys.push(event.pubkey);
        }
        Ok(())
    }
}

fn tag<'a>(event: &'a Event, kind: TagKind<'_>) -> Option<&'a str> {
    event.tags.find(kind)?.content()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, Keys, Tag};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    struct Claim {
        kind: Kind,
        at: u64,
        challenge: &'static str,
        relay: &'static str,
    }

    fn right() -> Claim {
        Claim {
            kind: Kind::Authentication,
            at: NOW,
            challenge: "abc",
            relay: "wss://relay.example/",
        }
    }

    fn signed(claim: &Claim, keys: &Keys) -> Event {
        EventBuilder::new(claim.kind, "")
            .tags([
                Tag::parse(["relay", claim.relay]).unwrap(),
                Tag::parse(["challenge", claim.challenge]).unwrap(),
            ])
            .custom_created_at(Timestamp::from_secs(claim.at))
            .sign_with_keys(keys)
            .unwrap()
    }

    fn identify(called: &str, claim: &Claim) -> Result<(), Error> {
        let keys = Keys::generate();
        let mut identity = Identity::new("abc".to_owned(), called);
        let identified = identity.identify(&signed(claim, &keys), Timestamp::from_secs(NOW));
        let known = identified.is_ok().then(|| keys.public_key());
        assert_eq!(identity.keys(), known.as_slice());
        identified
    }

    #[test]
    fn everything_must_be_right() {
        assert_eq!(identify("relay.example", &right()), Ok(()));
        let kind = Kind::Metadata;
        let wrong = Claim { kind, ..right() };
        assert_eq!(identify("relay.example", &wrong), Err(Error::Kind(kind)));
        for at in [NOW - 601, NOW + 601, 0, u64::MAX] {
            let wrong = Claim { at, ..right() };
            assert_eq!(identify("relay.example", &wrong), Err(Error::Time));
        }
        for challenge in ["", "ab", "abcd", "ABC"] {
            let wrong = Claim {
                challenge,
                ..right()
            };
            assert_eq!(identify("relay.example", &wrong), Err(Error::Challenge));
        }
    }

    #[test]
    fn it_must_be_for_this_relay_whatever_its_scheme() {
        for (called, relay, right_one) in [
            ("relay.example", "wss://relay.example", true),
            ("relay.example", "ws://RELAY.example:80/", true),
            ("relay.example:443", "wss://relay.example/path", true),
            ("https://relay.example", "wss://relay.example/", true),
            ("127.0.0.1:7777", "ws://127.0.0.1:7777", true),
            ("[::1]:7777", "ws://[::1]:7777/", true),
            ("127.0.0.1:7777", "ws://127.0.0.1:7778", false),
            ("127.0.0.1:7777", "ws://127.0.0.1", false),
            ("relay.example", "wss://other.example/", false),
            ("relay.example", "wss://relay.example.evil/", false),
            ("relay.example", "wss://relay.example@evil.example/", false),
            ("relay.example", "", false),
            ("", "", false),
            ("", "wss://relay.example/", false),
        ] {
            let relay = Claim { relay, ..right() };
            let identified = identify(called, &relay);
            assert_eq!(identified.is_ok(), right_one, "{called} {}", relay.relay);
        }
    }

    #[test]
    fn without_its_tags_it_shows_nothing() {
        let keys = Keys::generate();
        let mut identity = Identity::new("abc".to_owned(), "relay.example");
        let bare = EventBuilder::new(Kind::Authentication, "")
            .custom_created_at(Timestamp::from_secs(NOW))
            .sign_with_keys(&keys)
            .unwrap();
        let refused = identity.identify(&bare, Timestamp::from_secs(NOW));
        assert_eq!(refused, Err(Error::Challenge));
    }

    #[test]
    fn a_forged_one_shows_nothing() {
        let mut forged = signed(&right(), &Keys::generate());
        forged.pubkey = Keys::generate().public_key();
        let mut identity = Identity::new("abc".to_owned(), "relay.example");
        let refused = identity.identify(&forged, Timestamp::from_secs(NOW));
        assert_eq!(refused, Err(Error::Signature));
        assert_eq!(identity.keys(), []);
    }

    #[test]
    fn nobody_has_signatures_checked_without_end() {
        let keys = Keys::generate();
        let mut identity = Identity::new("abc".to_owned(), "relay.example");
        let claim = signed(&right(), &keys);
        let now = Timestamp::from_secs(NOW);
        for _ in 0..MAX_TRIES {
            assert_eq!(identity.identify(&claim, now), Ok(()));
        }
        assert_eq!(identity.identify(&claim, now), Err(Error::TooOften));
        assert_eq!(identity.keys(), [keys.public_key()]);
    }

    #[test]
    fn several_keys_are_known_up_to_a_bound_and_each_may_come_again() {
        let mut identity = Identity::new("abc".to_owned(), "relay.example");
        let keys: Vec<Keys> = (0..=MAX_KEYS).map(|_| Keys::generate()).collect();
        for (number, keys) in keys.iter().enumerate() {
            let claim = signed(&right(), keys);
            let identified = identity.identify(&claim, Timestamp::from_secs(NOW));
            assert_eq!(identified.is_ok(), number < MAX_KEYS);
        }
        let again = signed(&right(), &keys[0]);
        let identified = identity.identify(&again, Timestamp::from_secs(NOW));
        assert_eq!(identified, Ok(()));
        assert_eq!(identity.keys().len(), MAX_KEYS);
    }
}
