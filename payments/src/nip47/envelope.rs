//! Sealing what client and wallet tell each other.

use nostr::nips::{nip04, nip44};
use nostr::{Event, Keys, PublicKey};

/// How a wallet encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// NIP-44 version 2.
    Nip44,
    /// NIP-04, which tells more than it should and is not authenticated; for wallets that know nothing else.
    Nip04,
}

/// What cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be sealed or opened")]
pub struct Unsealable;

impl Encryption {
    /// Its name in the `encryption` tag.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nip44 => "nip44_v2",
            Self::Nip04 => "nip04",
        }
    }

    /// The best that an event's `encryption` tag offers. Without one it is NIP-04.
    pub(crate) fn offered(event: &Event) -> Self {
        let tags = event.tags.iter().map(nostr::Tag::as_slice);
        let offers = tags.filter(|tag| tag.first().is_some_and(|name| name == "encryption"));
        let mut names = offers
            .flat_map(|tag| &tag[1..])
            .flat_map(|list| list.split_whitespace());
        match names.any(|name| name == Self::Nip44.name()) {
            true => Self::Nip44,
            false => Self::Nip04,
        }
    }

    /// The better of what is offered now and what was before. A wallet that has learned NIP-44 does not forget it:
    /// who says so has kept an old event, and would like to read along.
    pub(crate) fn or_better(self, known: Option<Self>) -> Self {
        match known {
            Some(Self::Nip44) => Self::Nip44,
            Some(Self::Nip04) | None => self,
        }
    }

    /// How this content was sealed.
    fn of(content: &str) -> Self {
        match content.contains("?iv=") {
            true => Self::Nip04,
            false => Self::Nip44,
        }
    }

    pub(crate) fn seal(
        self,
        keys: &Keys,
        reader: &PublicKey,
        text: &str,
    ) -> Result<String, Unsealable> {
        let secret = keys.secret_key();
        let version = nip44::Version::V2;
        match self {
            Self::Nip44 => nip44::encrypt(secret, reader, text, version).map_err(|_| Unsealable),
            Self::Nip04 => nip04::encrypt(secret, reader, text).map_err(|_| Unsealable),
        }
    }
}

/// Opens what `author` has sealed for us.
pub(crate) fn open(keys: &Keys, author: &PublicKey, content: &str) -> Result<String, Unsealable> {
    let secret = keys.secret_key();
    match Encryption::of(content) {
        Encryption::Nip44 => nip44::decrypt(secret, author, content).map_err(|_| Unsealable),
        Encryption::Nip04 => nip04::decrypt(secret, author, content).map_err(|_| Unsealable),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, Kind, Tag};

    use super::*;

    fn info(tags: Vec<Tag>) -> Event {
        let builder = EventBuilder::new(Kind::Custom(super::super::INFO), "pay_invoice");
        let signed = builder.tags(tags).sign_with_keys(&Keys::generate());
        signed.unwrap()
    }

    #[test]
    fn the_best_encryption_is_taken_and_the_old_one_assumed() {
        let tag = |words: &[&str]| Tag::parse(words.iter().copied()).unwrap();
        let both = info(vec![tag(&["encryption", "nip04 nip44_v2"])]);
        assert_eq!(Encryption::offered(&both), Encryption::Nip44);
        let future = info(vec![tag(&["encryption", "nip99 nip04"])]);
        assert_eq!(Encryption::offered(&future), Encryption::Nip04);
        assert_eq!(Encryption::offered(&info(vec![])), Encryption::Nip04);
    }

    #[test]
    fn an_old_event_takes_nothing_back() {
        let now = Encryption::Nip44.or_better(Some(Encryption::Nip04));
        assert_eq!(now, Encryption::Nip44);
        assert_eq!(Encryption::Nip04.or_better(Some(now)), Encryption::Nip44);
        assert_eq!(Encryption::Nip04.or_better(None), Encryption::Nip04);
    }

    #[test]
    fn both_ways_open_for_the_reader_alone() {
        let (ours, theirs, other) = (Keys::generate(), Keys::generate(), Keys::generate());
        for encryption in [Encryption::Nip44, Encryption::Nip04] {
            let sealed = encryption.seal(&ours, &theirs.public_key(), "21 sat");
            let sealed = sealed.unwrap();
            let opened = open(&theirs, &ours.public_key(), &sealed);
            assert_eq!(opened.unwrap(), "21 sat");
            assert_ne!(
                open(&other, &ours.public_key(), &sealed),
                Ok("21 sat".to_owned())
            );
        }
    }
}
