//! One operation in the log: how it is written, and how it is found again in what a crash left.
//!
//! A frame is a mark (4 bytes), the length of its payload (4, big-endian), a checksum of all that follows (4,
//! CRC-32), its number (8), what it is (1), and the payload: an event's JSON, or the ids of events to remove.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use nostr::{Event, EventId, JsonUtil, Tag};

use super::key::Number;

/// What a frame begins with, so that the next one is found behind a damaged one.
const MARK: [u8; 4] = *b"IFN\xf1";

/// Bytes before the payload.
const HEAD: usize = 4 + 4 + 4 + 8 + 1;

/// About as many bytes as a text of a tag takes beyond its own.
const TEXT: usize = size_of::<String>() + 16;

const EVENT: u8 = 1;
const REMOVAL: u8 = 2;

/// What is done to the store.
#[derive(Debug, Clone)]
pub enum Operation {
    /// An event comes in, which has this JSON.
    Take(Arc<Event>, Bytes),
    /// Events go, by the operator's will.
    Remove(Arc<[EventId]>),
}

impl Operation {
    /// About as many bytes as it takes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Take(event, json) => weight(event, json),
            Self::Remove(ids) => size_of_val(&**ids),
        }
    }
}

/// About as many bytes as an event takes in memory, read and as JSON. One of many short tags takes a multiple of its
/// JSON, and as many keys in the index.
pub fn weight(event: &Event, json: &[u8]) -> usize {
    let tags = event.tags.iter();
    let tags = tags.map(|tag| size_of::<Tag>() + TEXT * tag.len());
    2 * json.len() + tags.sum::<usize>()
}

/// An operation in its place in the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number, greater than that of everything before.
    pub number: Number,
    /// What is done.
    pub operation: Operation,
}

/// Appends a frame to `out`.
pub fn write(entry: &Entry, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&entry.number.to_be_bytes());
    match &entry.operation {
        Operation::Take(_, json) => {
            out.push(EVENT);
            out.extend_from_slice(json);
        }
        Operation::Remove(ids) => {
            out.push(REMOVAL);
            ids.iter()
                .for_each(|id| out.extend_from_slice(id.as_bytes()));
        }
    }
    let len = (out.len() - start - HEAD) as u32;
    let sum = crc32fast::hash(&out[start + 12..]);
    out[start + 4..start + 8].copy_from_slice(&len.to_be_bytes());
    out[start + 8..start + 12].copy_from_slice(&sum.to_be_bytes());
}

/// What a segment of the log holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// The whole frames, in order.
    pub entries: Vec<Entry>,
    /// Bytes that are no frames: damage.
    pub damaged: Vec<Range<usize>>,
    /// Bytes of a frame at the end that was cut short: it was being written when the machine stopped.
    pub torn: usize,
}

/// Reads a segment. Damage does not hide what follows it.
pub fn read(bytes: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let (mut at, mut whole) = (0, 0);
    while at < bytes.len() {
        let Some((entry, len)) = parse(&bytes[at..]) else {
            at += 1;
            at += mark_in(&bytes[at..]);
            continue;
        };
        if at > whole {
            contents.damaged.push(whole..at);
        }
        contents.entries.push(entry);
        at += len;
        whole = at;
    }
    match is_cut_short(&bytes[whole..]) {
        true => contents.torn = bytes.len() - whole,
        false => contents.damaged.push(whole..bytes.len()),
    }
    contents
}

/// Whether these bytes are nothing, or the beginning of a frame and no more: it was never whole. Of a whole one whose
/// length alone is wrong, the checksum is still right.
fn is_cut_short(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return bytes.iter().zip(MARK).all(|(byte, mark)| *byte == mark);
    };
    let (len, sum) = lengths(head);
    head.starts_with(&MARK) && len > rest.len() && crc32fast::hash(&bytes[12..]) != sum
}

/// The length of a frame's payload and the checksum, as its head has them.
fn lengths(head: &[u8; HEAD]) -> (usize, u32) {
    let number =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    (number(4) as usize, number(8))
}

/// How far it is to the next mark, or to the end.
fn mark_in(bytes: &[u8]) -> usize {
    let mut windows = bytes.windows(MARK.len());
    windows
        .position(|window| window == MARK)
        .unwrap_or(bytes.len())
}

/// The frame that `bytes` begin with, and its length.
fn parse(bytes: &[u8]) -> Option<(Entry, usize)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    if head[..4] != MARK {
        return None;
    }
    let (len, sum) = lengths(head);
    let number = Number::from_be_bytes(*head[12..].first_chunk()?);
    let payload = rest.get(..len)?;
    if crc32fast::hash(&bytes[12..HEAD + len]) != sum {
        return None;
    }
    let operation = operation(head[HEAD - 1], payload)?;
    Some((Entry { number, operation }, HEAD + len))
}

fn operation(what: u8, payload: &[u8]) -> Option<Operation> {
    match what {
        EVENT => {
            let event = Event::from_json(payload).ok()?;
            Some(Operation::Take(
                Arc::new(event),
                Bytes::copy_from_slice(payload),
            ))
        }
        REMOVAL => {
            let (ids, rest) = payload.as_chunks::<32>();
            let ids = ids.iter().map(|id| EventId::from_byte_array(*id));
            rest.is_empty().then(|| Operation::Remove(ids.collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, Keys};

    use super::*;

    fn three() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for number in 1..=3 {
            let event = EventBuilder::text_note(format!("{number}"));
            let event = event.sign_with_keys(&Keys::generate()).unwrap();
            let json = event.as_json().into();
            let operation = match number {
                2 => Operation::Remove([event.id, event.id].into()),
                _ => Operation::Take(Arc::new(event), json),
            };
            write(&Entry { number, operation }, &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn numbers(contents: &Contents) -> Vec<Number> {
        contents.entries.iter().map(|entry| entry.number).collect()
    }

    #[test]
    fn cut_at_any_byte_the_whole_frames_remain() {
        let (bytes, ends) = three();
        for cut in 0..=bytes.len() {
            let contents = read(&bytes[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(contents.entries.len(), whole, "{cut}");
            let end = ends[..whole].last().copied().unwrap_or(0);
            assert_eq!((contents.torn, contents.damaged.len()), (cut - end, 0));
        }
    }

    #[test]
    fn a_damaged_frame_hides_none_that_follows() {
        let (bytes, ends) = three();
        for at in ends[0]..ends[1] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x40;
            let contents = read(&bytes);
            assert_eq!(numbers(&contents), [1, 3], "{at}");
            assert_eq!(contents.damaged, vec![ends[0]..ends[1]]);
            assert_eq!(contents.torn, 0);
        }
    }

    #[test]
    fn no_length_reaches_beyond_the_end() {
        let (mut bytes, ends) = three();
        bytes[ends[1] + 4..ends[1] + 8].fill(0xff);
        let contents = read(&bytes);
        assert_eq!(numbers(&contents), [1, 2]);
        assert_eq!(contents.damaged, vec![ends[1]..ends[2]]);
    }

    #[test]
    fn a_damaged_frame_at_the_end_is_not_taken_for_one_that_was_never_whole() {
        let (bytes, ends) = three();
        for at in ends[1]..ends[2] {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let contents = read(&bytes);
                assert_eq!(numbers(&contents), [1, 2], "{at}");
                assert_eq!(contents.damaged, vec![ends[1]..ends[2]], "{at}");
                assert_eq!(contents.torn, 0);
            }
        }
    }

    #[test]
    fn what_many_short_tags_take_in_memory_counts() {
        let tags = (0..1_000).map(|_| Tag::parse(["t", ""]).unwrap());
        let event = EventBuilder::text_note("").tags(tags);
        let event = event.sign_with_keys(&Keys::generate()).unwrap();
        let json = event.as_json();
        assert!(weight(&event, json.as_bytes()) > 10 * json.len());
    }
}
