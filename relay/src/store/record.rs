//! An event as the index keeps it: what filters ask for in a fixed place, then its JSON as clients get it.
//!
//! All numbers are big-endian: id (32 bytes), author (32), `created_at` (8), expiration (8, all ones for none),
//! kind (2), count of tags (4), for each tag of one letter the letter (1) and its value's hash (16), JSON.

use bytes::Bytes;
use nostr::{Event, EventId, Kind, PublicKey, Timestamp};

use super::Stored;
use super::key::{self, Condition, Digest16, Key, Number, Tail};

/// Bytes before the tags.
const HEAD: usize = 32 + 32 + 8 + 8 + 2 + 4;

/// Bytes of a tag.
const TAG: usize = 1 + 16;

/// Writes an event as a record.
pub fn encode(event: &Event, json: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD + TAG * event.tags.len() + json.len());
    record.extend_from_slice(event.id.as_bytes());
    record.extend_from_slice(event.pubkey.as_bytes());
    record.extend_from_slice(&event.created_at.as_secs().to_be_bytes());
    record.extend_from_slice(&expiration(event).to_be_bytes());
    record.extend_from_slice(&event.kind.as_u16().to_be_bytes());
    record.extend_from_slice(&[0; 4]);
    let mut count: u32 = 0;
    for (letter, value) in letters(event) {
        record.push(letter);
        record.extend_from_slice(&key::value(value));
        count += 1;
    }
    record[HEAD - 4..HEAD].copy_from_slice(&count.to_be_bytes());
    record.extend_from_slice(json);
    record
}

/// The tags of one letter that have a value, which are those that filters can ask for.
fn letters(event: &Event) -> impl Iterator<Item = (u8, &str)> {
    event.tags.iter().filter_map(|tag| match tag.as_slice() {
        [name, value, ..] => match name.as_bytes() {
            [letter] if letter.is_ascii_alphabetic() => Some((*letter, value.as_str())),
            _ => None,
        },
        _ => None,
    })
}

fn expiration(event: &Event) -> u64 {
    event.tags.expiration().map_or(u64::MAX, Timestamp::as_secs)
}

/// A record, read where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    head: &'a [u8; HEAD],
    tags: &'a [u8],
    json: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a record, unless it is none.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let count = u32::from_be_bytes(*head.last_chunk()?);
        let (tags, json) = rest.split_at_checked(usize::try_from(count).ok()? * TAG)?;
        Some(Self { head, tags, json })
    }

    fn part<const N: usize>(&self, at: usize) -> &'a [u8; N] {
        let part = self.head[at..].first_chunk();
        // Every caller asks for a place before the end of the head.
        part.unwrap_or(&[0; N])
    }

    /// The event's id.
    pub fn id(&self) -> &'a [u8; 32] {
        self.part(0)
    }

    /// Its author's public key.
    pub fn author(&self) -> &'a [u8; 32] {
        self.part(32)
    }

    /// When it was made, by its author's clock.
    pub fn created_at(&self) -> Timestamp {
        Timestamp::from_secs(u64::from_be_bytes(*self.part(64)))
    }

    /// When it expires.
    pub fn expiration(&self) -> Option<Timestamp> {
        let at = u64::from_be_bytes(*self.part(72));
        (at != u64::MAX).then(|| Timestamp::from_secs(at))
    }

    /// Its kind.
    pub fn kind(&self) -> u16 {
        u16::from_be_bytes(*self.part(80))
    }

    /// Its tags of one letter, with the hash of their values.
    pub fn tags(&self) -> impl Iterator<Item = (u8, &'a Digest16)> + use<'a> {
        self.tags.chunks_exact(TAG).filter_map(|tag| {
            let (letter, value) = tag.split_first()?;
            Some((*letter, value.first_chunk()?))
        })
    }

    /// The hash of its address, if it is of a kind that has one.
    pub fn address(&self) -> Option<Digest16> {
        let kind = Kind::from(self.kind());
        let identifier = match kind {
            kind if kind.is_addressable() => self.tags().find(|(letter, _)| *letter == b'd'),
            kind if kind.is_replaceable() => None,
            _ => return None,
        };
        let identifier = identifier.map_or_else(|| key::value(""), |(_, value)| *value);
        Some(key::address(self.kind(), self.author(), &identifier))
    }

    /// Whether it has expired at `now` (NIP-40).
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expiration().is_some_and(|at| at < now)
    }

    /// Every key by which the index finds it.
    pub fn keys(&self, number: Number) -> impl Iterator<Item = Key> + use<'a> {
        let kind = self.kind();
        let tail = Tail::new(self.created_at(), self.id(), kind, number);
        let always = [
            Condition::all(),
            Condition::kind(kind),
            Condition::author(self.author()),
            Condition::author_and_kind(self.author(), kind),
        ];
        let tags = self
            .tags()
            .map(|(letter, value)| Condition::tag(letter, value));
        let conditions = always.into_iter().chain(tags);
        conditions.map(move |condition| condition.key(&tail))
    }

    /// As clients get it, unless the key in it is none.
    pub fn stored(&self) -> Stored {
        Stored {
            id: EventId::from_byte_array(*self.id()),
            pubkey: PublicKey::from_byte_array(*self.author()),
            kind: Kind::from(self.kind()),
            created_at: self.created_at(),
            json: Bytes::copy_from_slice(self.json),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, JsonUtil, Keys, Tag};

    use super::*;

    #[test]
    fn a_record_gives_back_what_it_was_made_of() {
        let tags = [
            Tag::parse(["t", "one"]).unwrap(),
            Tag::parse(["t"]).unwrap(),
            Tag::parse(["title", "no letter"]).unwrap(),
            Tag::parse(["expiration", "77"]).unwrap(),
        ];
        let event = EventBuilder::new(Kind::from(8_600), "said").tags(tags);
        let event = event.sign_with_keys(&Keys::generate()).unwrap();
        let bytes = encode(&event, event.as_json().as_bytes());
        let record = Record::read(&bytes).unwrap();
        assert_eq!(record.id(), event.id.as_bytes());
        assert_eq!(record.expiration(), Some(Timestamp::from_secs(77)));
        assert_eq!(
            record.tags().collect::<Vec<_>>(),
            [(b't', &key::value("one"))]
        );
        assert_eq!(record.keys(1).count(), 4 + 1);
        assert_eq!(record.address(), None);
        let stored = record.stored();
        assert_eq!(Event::from_json(&stored.json).unwrap(), event);
        assert_eq!((stored.pubkey, stored.kind), (event.pubkey, event.kind));
    }

    #[test]
    fn a_record_has_the_address_of_its_event() {
        let keys = Keys::generate();
        let d = |values: &[&str]| Tag::parse([&["d"], values].concat()).unwrap();
        for kind in [0, 1, 3, 10_002, 30_000, 38_500] {
            for tags in [vec![], vec![d(&[])], vec![d(&["x"]), d(&["y"])]] {
                let event = EventBuilder::new(Kind::from(kind), "").tags(tags);
                let event = event.sign_with_keys(&keys).unwrap();
                let bytes = encode(&event, b"");
                let record = Record::read(&bytes).unwrap();
                assert_eq!(record.address(), key::address_of(&event), "{event:?}");
            }
        }
    }

    #[test]
    fn what_is_cut_short_is_no_record() {
        let event = EventBuilder::text_note("").tag(Tag::hashtag("a"));
        let event = event.sign_with_keys(&Keys::generate()).unwrap();
        let bytes = encode(&event, b"");
        for len in 0..bytes.len() {
            assert!(Record::read(&bytes[..len]).is_none(), "{len}");
        }
    }
}
