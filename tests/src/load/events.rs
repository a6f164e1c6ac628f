//! Events like the market's: about a kilobyte, seven tags of which five are indexed, from many authors to many readers.
//! The same numbers make the same events, so that what a store holds need not be kept beside it.

use std::ops::Range;
use std::thread;

use nostr::util::JsonUtil;
use nostr::{Event, EventBuilder, Keys, Kind, PublicKey, SecretKey, Tag, Timestamp, UnsignedEvent};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::said::number;

/// Regular kinds that nobody uses, so that a relay takes them as they are.
const KINDS: [u16; 4] = [7101, 7102, 7103, 7104];
/// Events that belong together, as those of a job do.
const OF_A_JOB: u64 = 6;
/// Models that are asked for.
const MODELS: u64 = 50;
/// Bytes of content, which make about a kilobyte of the whole.
const CONTENT_BYTES: usize = 330;

/// An event as it is sent, whole.
#[derive(Clone, Debug)]
pub struct Ready {
    /// What [`super::event_number`] reads from its id.
    pub number: u64,
    /// `["EVENT",{…}]`.
    pub message: Utf8Bytes,
}

impl Ready {
    /// The message that publishes an event.
    pub fn new(event: &Event) -> Self {
        Self {
            number: number(event.id.to_hex().as_bytes()),
            message: format!(r#"["EVENT",{}]"#, event.as_json()).into(),
        }
    }

    /// Its id in hex.
    pub fn id(&self) -> &str {
        let at = self.message.find(r#""id":""#).map_or(0, |at| at + 6);
        self.message.get(at..at + 64).unwrap_or_default()
    }
}

/// Those who write and read, and when it began.
#[derive(Debug)]
pub struct Population {
    authors: Vec<Keys>,
    readers: Vec<PublicKey>,
    begin: Timestamp,
    millis_each: u64,
}

impl Population {
    /// So many authors and readers, and events from `begin` on, one every `millis_each`.
    pub fn new(authors: u64, readers: u64, begin: Timestamp, millis_each: u64) -> Self {
        Self {
            authors: (0..authors).map(|n| key(1, n)).collect(),
            readers: (0..readers).map(|n| key(2, n).public_key()).collect(),
            begin,
            millis_each,
        }
    }

    /// The kinds of its events.
    pub const fn kinds(&self) -> [u16; 4] {
        KINDS
    }

    /// Its authors.
    pub fn author(&self, n: u64) -> PublicKey {
        pick(&self.authors, n).public_key()
    }

    /// Whom its events name in a tag `p`, in turn.
    pub fn reader(&self, n: u64) -> PublicKey {
        *pick(&self.readers, n)
    }

    /// When event `n` was written.
    pub fn written(&self, n: u64) -> Timestamp {
        self.begin + n * self.millis_each / 1_000
    }

    /// The job that event `n` belongs to, as it stands in a tag `e`, in hex.
    pub fn job(&self, n: u64) -> String {
        hex(3, n / OF_A_JOB)
    }

    /// Event `n` without its signature.
    pub fn unsigned(&self, n: u64) -> UnsignedEvent {
        let tags = [
            ["e", &self.job(n)],
            ["e", &hex(4, n)],
            ["p", &self.reader(n).to_hex()],
            ["t", "text-generation"],
            ["m", &hex(5, mix(n) % MODELS)],
            ["relay", "wss://relay.example.com"],
            ["alt", "One of many events, to see how a relay bears them"],
        ];
        let tags = tags.into_iter().filter_map(|tag| Tag::parse(tag).ok());
        let content: String = (0..).map(|part| hex(n, part)).take(6).collect();
        EventBuilder::new(kind(n), &content[..CONTENT_BYTES])
            .tags(tags)
            .allow_self_tagging()
            .custom_created_at(self.written(n))
            .build(self.writer(n).public_key())
    }

    /// Who wrote event `n`.
    pub fn writer(&self, n: u64) -> &Keys {
        pick(&self.authors, mix(n))
    }

    /// Event `n`, signed.
    ///
    /// # Panics
    /// Never: a key signs what it wrote.
    #[allow(clippy::expect_used)]
    pub fn event(&self, n: u64) -> Event {
        let signed = self.unsigned(n).sign_with_keys(self.writer(n));
        signed.expect("a key signs what it wrote")
    }

    /// These events, signed.
    pub fn ready(&self, numbers: Range<u64>) -> Vec<Ready> {
        on_all_cores(numbers, |part| {
            part.map(|n| Ready::new(&self.event(n))).collect()
        })
    }
}

/// What `make` makes of these numbers, in parts, on all cores.
pub(super) fn on_all_cores(
    numbers: Range<u64>,
    make: impl Fn(Range<u64>) -> Vec<Ready> + Sync,
) -> Vec<Ready> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let each = (numbers.end - numbers.start)
        .div_ceil(threads as u64)
        .max(1);
    let parts = numbers.clone().step_by(each as usize);
    let parts = parts.map(|start| start..(start + each).min(numbers.end));
    thread::scope(|scope| {
        let make = &make;
        let made: Vec<_> = parts.map(|part| scope.spawn(move || make(part))).collect();
        let made = made.into_iter().map(thread::ScopedJoinHandle::join);
        made.flat_map(Result::unwrap_or_default).collect()
    })
}

/// Independent of the reader, who comes in turn.
fn kind(n: u64) -> Kind {
    Kind::from(*pick(&KINDS, mix(!n)))
}

fn pick<T>(of: &[T], n: u64) -> &T {
    &of[(n % of.len() as u64) as usize]
}

/// Bits that look random and are not (splitmix64).
pub(super) const fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn hex(what: u64, n: u64) -> String {
    let first = mix(what.wrapping_mul(1 << 40) ^ n);
    let rest = std::iter::successors(Some(first), |last| Some(mix(*last)));
    rest.take(4).map(|word| format!("{word:016x}")).collect()
}

#[allow(clippy::expect_used)]
fn key(what: u64, n: u64) -> Keys {
    let secret = SecretKey::from_hex(&hex(what, n));
    Keys::new(secret.expect("none of these is zero or beyond the curve's order"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_each_time_and_as_large_as_said() {
        let people = Population::new(3, 5, Timestamp::from(1_790_000_000), 2_000);
        let made = people.ready(0..5);
        assert_eq!(made.len(), 5);
        for (n, ready) in made.iter().enumerate() {
            let id = people.unsigned(n as u64).id();
            assert_eq!(ready.id(), id.to_hex());
            assert_eq!(ready.number, number(id.to_hex().as_bytes()));
            assert!((900..1_400).contains(&ready.message.len()));
            let event = Event::from_json(&ready.message[9..ready.message.len() - 1]);
            assert!(event.is_ok_and(|event| event.verify().is_ok() && event.tags.len() == 7));
        }
    }
}
