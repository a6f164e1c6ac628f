//! Requests, responses and notifications as events: who may read them, and how they are encrypted.
//!
//! NIP-44 is what both sides should speak; the `encryption` tag says so. Without the tag a request is NIP-04, as old
//! clients send it, and is answered in NIP-04.

use nostr::nips::{nip04, nip44};
use nostr::{Event, EventBuilder, EventId, Keys, Kind, PublicKey, Tag, Timestamp};

use super::Refusal;
use super::refusal::Code;

/// What a wallet can do: a replaceable event.
pub const INFO: Kind = Kind::Custom(13_194);
/// A client's request.
pub const REQUEST: Kind = Kind::Custom(23_194);
/// The wallet's response.
pub const RESPONSE: Kind = Kind::Custom(23_195);
/// A notification in NIP-04.
pub const NOTIFICATION_LEGACY: Kind = Kind::Custom(23_196);
/// A notification in NIP-44.
pub const NOTIFICATION: Kind = Kind::Custom(23_197);

/// How a message is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// NIP-44, version 2.
    Nip44,
    /// NIP-04, for old peers.
    Nip04,
}

impl Cipher {
    /// Its name in the `encryption` tag.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nip44 => "nip44_v2",
            Self::Nip04 => "nip04",
        }
    }

    /// What an event says that it is encrypted with.
    ///
    /// # Errors
    /// Something that the wallet does not speak.
    pub fn of(event: &Event) -> Result<Self, Refusal> {
        match value(event, "encryption") {
            Some("nip44_v2") => Ok(Self::Nip44),
            Some("nip04") => Ok(Self::Nip04),
            Some(_) => Err(Refusal::new(
                Code::UnsupportedEncryption,
                format!("the wallet speaks {}", super::ENCRYPTIONS),
            )),
            // Only NIP-04 carries its initialisation vector so.
            None if event.content.contains("?iv=") => Ok(Self::Nip04),
            None => Ok(Self::Nip44),
        }
    }

    /// Decrypts what `peer` wrote.
    pub fn open(self, own: &Keys, peer: &PublicKey, content: &str) -> Option<String> {
        match self {
            Self::Nip44 => nip44::decrypt(own.secret_key(), peer, content).ok(),
            Self::Nip04 => nip04::decrypt(own.secret_key(), peer, content).ok(),
        }
    }

    fn seal(self, own: &Keys, peer: &PublicKey, text: &str) -> Option<String> {
        match self {
            Self::Nip44 => nip44::encrypt(own.secret_key(), peer, text, nip44::Version::V2).ok(),
            Self::Nip04 => nip04::encrypt(own.secret_key(), peer, text).ok(),
        }
    }
}

/// From whom to whom, and how.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    /// Who signs.
    pub from: &'a Keys,
    /// Who reads.
    pub to: PublicKey,
    /// How it is encrypted.
    pub cipher: Cipher,
}

impl Envelope<'_> {
    /// A request. `expires` is when it loses its meaning.
    pub fn request(&self, text: &str, expires: Option<Timestamp>) -> Option<Event> {
        let mut tags = vec![tag(["encryption", self.cipher.name()])?];
        tags.extend(expires.map(Tag::expiration));
        self.event(REQUEST, text, tags)
    }

    /// The response to a request.
    pub fn response(&self, text: &str, request: EventId) -> Option<Event> {
        self.event(RESPONSE, text, vec![Tag::event(request)])
    }

    /// A notification.
    pub fn notification(&self, text: &str) -> Option<Event> {
        let kind = match self.cipher {
            Cipher::Nip44 => NOTIFICATION,
            Cipher::Nip04 => NOTIFICATION_LEGACY,
        };
        self.event(kind, text, vec![])
    }

    fn event(&self, kind: Kind, text: &str, tags: Vec<Tag>) -> Option<Event> {
        let content = self.cipher.seal(self.from, &self.to, text)?;
        EventBuilder::new(kind, content)
            .tag(Tag::public_key(self.to))
            .tags(tags)
            .sign_with_keys(self.from)
            .ok()
    }
}

/// A tag of our own making.
pub(crate) fn tag<const N: usize>(words: [&str; N]) -> Option<Tag> {
    Tag::parse(words).ok()
}

/// The first value of the first tag of that name.
pub(crate) fn value<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    let words = event.tags.iter().map(Tag::as_slice);
    let mut named = words.filter(|words| words.first().is_some_and(|first| first == name));
    named.next()?.get(1).map(String::as_str)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_cipher_is_named_and_opened_by_the_other_side_alone() {
        let (client, service, other) = (Keys::generate(), Keys::generate(), Keys::generate());
        for cipher in [Cipher::Nip44, Cipher::Nip04] {
            let envelope = Envelope {
                from: &client,
                to: service.public_key(),
                cipher,
            };
            let event = envelope
                .request("{}", Some(Timestamp::from_secs(7)))
                .unwrap();
            event.verify().unwrap();
            assert_eq!(Cipher::of(&event).unwrap(), cipher);
            assert_eq!(value(&event, "expiration"), Some("7"));
            let open = |keys: &Keys| cipher.open(keys, &client.public_key(), &event.content);
            assert_eq!(open(&service).as_deref(), Some("{}"));
            assert_ne!(open(&other).as_deref(), Some("{}"));
        }
    }

    #[test]
    fn an_old_request_is_known_without_a_tag_and_a_strange_one_is_refused() {
        let (client, service) = (Keys::generate(), Keys::generate());
        let content = nip04::encrypt(client.secret_key(), &service.public_key(), "{}").unwrap();
        let event = |content: &str, tags: Vec<Tag>| {
            let builder = EventBuilder::new(REQUEST, content).tags(tags);
            builder.sign_with_keys(&client).unwrap()
        };
        assert_eq!(Cipher::of(&event(&content, vec![])).unwrap(), Cipher::Nip04);
        let strange = event("", vec![tag(["encryption", "rot13"]).unwrap()]);
        assert_eq!(
            Cipher::of(&strange).unwrap_err().code,
            Code::UnsupportedEncryption
        );
    }
}
