//! The keys of the index: which condition of a filter finds which events, newest first.
//!
//! Keys are gathered by epoch, which is a stretch of the log: what comes in touches only the pages of the latest one,
//! however large the index has grown, and a walk from the newest event backwards looks at one after the other.
//!
//! Within an epoch a key is the condition (what all of its events have in common) and then the event's place in time:
//! `created_at` turned round, so that the newest comes first, and the id, so that of the same second the lower id comes
//! first (NIP-01). The kind follows, because most filters name kinds: it is checked without a look at the event. The
//! event's number comes last and makes the key unique. Values of tags and public keys are cut to eight bytes of a
//! hash or of themselves: what is found is compared with the whole.

use nostr::{Event, EventId, PublicKey, Timestamp};
use sha2::{Digest, Sha256};

/// Counts what was ever logged; an event is known by it in the index.
pub type Number = u64;

/// The first bytes of an id, by which an event is found. Two events with the same would take 2^64 trials to make.
pub type ShortId = [u8; 16];

/// An address (NIP-01) or a deletion, hashed.
pub type Digest16 = [u8; 16];

/// Bytes of what follows the condition in a key: moment, id, kind, number.
const TAIL: usize = MOMENT + 8 + 2 + 5;

/// Bytes of `created_at`. Whatever lies after the year 36,000 counts as the same second.
const MOMENT: usize = 5;

/// Bytes of the longest condition.
const CONDITION: usize = 11;

/// Bytes of an epoch.
const EPOCH: usize = 2;

/// Numbers of one epoch, as a power of two.
const EPOCH_BITS: u32 = 17;

/// The longest key of the index.
const LONGEST: usize = EPOCH + CONDITION + TAIL;

/// A stretch of the log.
pub type Epoch = u16;

/// The epoch of a number. The last one has no end.
pub fn epoch(number: Number) -> Epoch {
    Epoch::try_from(number >> EPOCH_BITS).unwrap_or(Epoch::MAX)
}

/// What a condition is about. A tag's class is its letter.
mod class {
    pub const ALL: u8 = 0;
    pub const KIND: u8 = 1;
    pub const AUTHOR: u8 = 2;
    pub const AUTHOR_AND_KIND: u8 = 3;
}

/// The first bytes of an id.
pub fn short(id: &[u8; 32]) -> ShortId {
    first(id)
}

/// The hash by which a tag's value is known.
pub fn value(value: &str) -> Digest16 {
    first(&Sha256::digest(value))
}

/// The hash of an address; the identifier is given by its own hash ([`value`]).
pub fn address(kind: u16, author: &[u8; 32], identifier: &Digest16) -> Digest16 {
    let hash = Sha256::new()
        .chain_update(kind.to_be_bytes())
        .chain_update(author)
        .chain_update(identifier);
    first(&hash.finalize())
}

/// The hash of an event's address, if it is of a kind that has one.
pub fn address_of(event: &Event) -> Option<Digest16> {
    let identifier = match event.kind {
        kind if kind.is_addressable() => identifier(event),
        kind if kind.is_replaceable() => "",
        _ => return None,
    };
    let (kind, author) = (event.kind.as_u16(), event.pubkey.as_bytes());
    Some(address(kind, author, &value(identifier)))
}

/// The value of the first `d` tag that has one.
fn identifier(event: &Event) -> &str {
    let mut values = event.tags.iter().filter_map(|tag| match tag.as_slice() {
        [name, value, ..] if name == "d" => Some(value.as_str()),
        _ => None,
    });
    values.next().unwrap_or_default()
}

/// Under what an author's deletion of an id is written down. Nobody else's has a meaning.
pub fn deletion(id: &EventId, author: &PublicKey) -> Digest16 {
    let hash = Sha256::new()
        .chain_update(id.as_bytes())
        .chain_update(author.as_bytes());
    first(&hash.finalize())
}

fn first(bytes: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&bytes[..16]);
    short
}

/// What all keys of a range begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    bytes: [u8; CONDITION],
    len: u8,
}

impl Condition {
    fn of(class: u8, parts: [&[u8]; 2]) -> Self {
        let mut bytes = [0; CONDITION];
        bytes[0] = class;
        let mut len = 1;
        for part in parts {
            bytes[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        let len = len as u8;
        Self { bytes, len }
    }

    /// Every event.
    pub fn all() -> Self {
        Self::of(class::ALL, [&[], &[]])
    }

    /// Events of a kind.
    pub fn kind(kind: u16) -> Self {
        Self::of(class::KIND, [&kind.to_be_bytes(), &[]])
    }

    /// Events of an author.
    pub fn author(author: &[u8; 32]) -> Self {
        Self::of(class::AUTHOR, [&author[..8], &[]])
    }

    /// An author's events of a kind.
    pub fn author_and_kind(author: &[u8; 32], kind: u16) -> Self {
        Self::of(class::AUTHOR_AND_KIND, [&author[..8], &kind.to_be_bytes()])
    }

    /// Events with a tag of this letter and value.
    pub fn tag(letter: u8, value: &Digest16) -> Self {
        Self::of(letter, [&value[..8], &[]])
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The key of the event whose place is `tail`.
    pub fn key(&self, tail: &Tail) -> Key {
        Key::of(epoch(tail.number()), self.bytes(), tail)
    }

    /// The first and the last possible key in an epoch from `until` back to `since`.
    pub fn range(&self, epoch: Epoch, since: Timestamp, until: Timestamp) -> (Key, Key) {
        let mut oldest = Tail([0xff; TAIL]);
        oldest.0[..MOMENT].copy_from_slice(&moment(since));
        (
            Key::of(epoch, self.bytes(), &Tail::newest(until)),
            Key::of(epoch, self.bytes(), &oldest),
        )
    }
}

/// An event's place among those that fulfil a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tail([u8; TAIL]);

impl Tail {
    /// The place of an event.
    pub fn new(created_at: Timestamp, id: &[u8; 32], kind: u16, number: Number) -> Self {
        let mut tail = [0; TAIL];
        tail[..5].copy_from_slice(&moment(created_at));
        tail[5..13].copy_from_slice(&id[..8]);
        tail[13..15].copy_from_slice(&kind.to_be_bytes());
        tail[15..].copy_from_slice(&number.to_be_bytes()[3..]);
        Self(tail)
    }

    /// The first possible place of a second.
    pub fn newest(at: Timestamp) -> Self {
        let mut tail = [0; TAIL];
        tail[..MOMENT].copy_from_slice(&moment(at));
        Self(tail)
    }

    /// The place that a key ends with, unless it is too short for one.
    pub fn of(key: &[u8]) -> Option<Self> {
        let tail = key.last_chunk()?;
        Some(Self(*tail))
    }

    /// The event's kind.
    pub fn kind(&self) -> u16 {
        u16::from_be_bytes([self.0[13], self.0[14]])
    }

    /// The event's number.
    pub fn number(&self) -> Number {
        let mut number = [0; 8];
        number[3..].copy_from_slice(&self.0[15..]);
        u64::from_be_bytes(number)
    }
}

/// A moment, later ones first.
fn moment(at: Timestamp) -> [u8; MOMENT] {
    let latest = (1 << (8 * MOMENT)) - 1;
    let turned = latest - at.as_secs().min(latest);
    let mut bytes = [0; MOMENT];
    bytes.copy_from_slice(&turned.to_be_bytes()[8 - MOMENT..]);
    bytes
}

/// A key of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    bytes: [u8; LONGEST],
    len: u8,
}

impl Key {
    fn of(epoch: Epoch, condition: &[u8], tail: &Tail) -> Self {
        let mut bytes = [0; LONGEST];
        let end = EPOCH + condition.len();
        bytes[..EPOCH].copy_from_slice(&epoch.to_be_bytes());
        bytes[EPOCH..end].copy_from_slice(condition);
        bytes[end..end + TAIL].copy_from_slice(&tail.0);
        let len = (end + TAIL) as u8;
        Self { bytes, len }
    }

    /// As the index has it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The key of an event that expires; the earliest come first.
pub fn expiration(at: Timestamp, number: Number) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&at.as_secs().to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The number in a key of [`expiration`].
pub fn expiring(key: &[u8]) -> Option<Number> {
    Some(Number::from_be_bytes(*key.last_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_newest_first_and_of_one_second_by_id() {
        let tail = |at, id: u8| Tail::new(Timestamp::from_secs(at), &[id; 32], 1, 7);
        let mut tails = [tail(5, 1), tail(9, 2), tail(9, 1), tail(u64::MAX, 9)];
        tails.sort_unstable();
        assert_eq!(
            tails,
            [tail(u64::MAX, 9), tail(9, 1), tail(9, 2), tail(5, 1)]
        );
    }

    #[test]
    fn a_tail_gives_back_what_it_was_made_of() {
        let condition = Condition::author_and_kind(&[3; 32], 8_600);
        let key = condition.key(&Tail::new(Timestamp::from_secs(9), &[8; 32], 38_500, 77));
        let tail = Tail::of(key.bytes());
        assert_eq!(tail.map(|tail| tail.kind()), Some(38_500));
        assert_eq!(tail.map(|tail| tail.number()), Some(77));
    }

    #[test]
    fn a_range_holds_its_ends() {
        let condition = Condition::kind(1);
        let at = Timestamp::from_secs;
        let (first, last) = condition.range(0, at(10), at(20));
        for (created_at, inside) in [(9, false), (10, true), (20, true), (21, false)] {
            let key = condition.key(&Tail::new(at(created_at), &[0xff; 32], u16::MAX, 1));
            assert_eq!((first..=last).contains(&key), inside, "{created_at}");
        }
    }

    #[test]
    fn an_epoch_holds_the_keys_of_its_numbers_only() {
        let at = Timestamp::from_secs(10);
        let (first, last) = Condition::all().range(1, at, at);
        for (number, inside) in [
            (0, false),
            (1 << 17, true),
            ((2 << 17) - 1, true),
            (2 << 17, false),
        ] {
            let key = Condition::all().key(&Tail::new(at, &[1; 32], 1, number));
            assert_eq!((first..=last).contains(&key), inside, "{number}");
        }
        assert_eq!(epoch(Number::MAX), Epoch::MAX);
    }
}
