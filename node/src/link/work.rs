//! Our answer to a relay that asks who we are (NIP-42), with as much work in it (NIP-13) as the relay wants.

use nostr::hashes::{Hash, HashEngine, sha256};
use nostr::nips::nip13::get_leading_zero_bits;
use nostr::{Event, EventBuilder, Keys, RelayUrl, Tag, Timestamp};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Digits of a nonce; always as many, so that only they change.
const DIGITS: usize = 16;

/// How many nonces are tried between two looks at whether the answer is still wanted.
const TRIES: u64 = 4_096;

/// A relay that asks who we are.
#[derive(Clone, Debug)]
pub struct Question {
    /// The relay's words (NIP-42).
    pub challenge: String,
    /// What the relay is called.
    pub relay: RelayUrl,
    /// How much work the answer is to show (NIP-13); none at 0.
    pub bits: u8,
}

impl Question {
    /// The signed answer as of `now`. With bits asked it takes a core for a while, 2^bits hashes on average: keep it
    /// off the threads of others. None once `stop` is cancelled.
    pub fn answer(&self, keys: &Keys, now: Timestamp, stop: &CancellationToken) -> Option<Event> {
        let mut answer =
            EventBuilder::auth(&self.challenge, self.relay.clone()).custom_created_at(now);
        if self.bits > 0 {
            let nonce = self.nonce(&answer, keys, stop)?;
            answer = answer.tag(nonce_tag(&nonce, self.bits));
        }
        let answer = answer.sign_with_keys(keys).ok()?;
        answer.check_pow(self.bits).then_some(answer)
    }

    /// A nonce that gives the answer its work. It stands in the last tag: what is before it is hashed once.
    fn nonce(
        &self,
        answer: &EventBuilder,
        keys: &Keys,
        stop: &CancellationToken,
    ) -> Option<String> {
        let blank = "0".repeat(DIGITS);
        let blank = answer.clone().tag(nonce_tag(&blank, self.bits));
        let blank = blank.build(keys.public_key());
        let parts = json!([
            0,
            blank.pubkey,
            blank.created_at,
            blank.kind,
            blank.tags,
            blank.content
        ]);
        let whole = parts.to_string();
        let behind = format!(r#"","{}"]],""]"#, self.bits);
        let before = whole.len().checked_sub(behind.len() + DIGITS)?;
        let mut begun = sha256::Hash::engine();
        begun.input(&whole.as_bytes()[..before]);
        // Two answers of the same second differ.
        let mut number = rand::random::<u64>();
        while !stop.is_cancelled() {
            for _ in 0..TRIES {
                number = number.wrapping_add(1);
                let nonce = hexadecimal(number);
                let mut engine = begun.clone();
                engine.input(&nonce);
                engine.input(behind.as_bytes());
                let id = sha256::Hash::from_engine(engine);
                if get_leading_zero_bits(id) >= self.bits {
                    return String::from_utf8(nonce.to_vec()).ok();
                }
            }
        }
        None
    }
}

fn nonce_tag(nonce: &str, bits: u8) -> Tag {
    Tag::custom(nostr::TagKind::Nonce, [nonce, &bits.to_string()])
}

fn hexadecimal(number: u64) -> [u8; DIGITS] {
    let digit = |place: usize| b"0123456789abcdef"[(number >> (4 * place) & 15) as usize];
    std::array::from_fn(digit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn question(bits: u8) -> Question {
        Question {
            challenge: r#"a "riddle" é"#.to_owned(),
            relay: RelayUrl::parse("wss://relay.example.com").unwrap(),
            bits,
        }
    }

    #[test]
    fn an_answer_shows_the_work_that_is_asked_for() {
        let keys = Keys::generate();
        let now = Timestamp::from_secs(1_700_000_000);
        for bits in [0, 1, 7, 12] {
            let stop = CancellationToken::new();
            let answer = question(bits).answer(&keys, now, &stop).unwrap();
            answer.verify().unwrap();
            assert!(answer.check_pow(bits));
            assert_eq!(answer.created_at, now);
            assert_eq!(answer.tags.challenge(), Some(r#"a "riddle" é"#));
            let committed = answer.tags.find(nostr::TagKind::Nonce);
            let committed = committed.map(|tag| tag.as_slice()[2].clone());
            assert_eq!(committed, (bits > 0).then(|| bits.to_string()));
        }
    }

    #[test]
    fn two_answers_of_one_second_differ() {
        let keys = Keys::generate();
        let stop = CancellationToken::new();
        let answer = || question(4).answer(&keys, Timestamp::from_secs(1), &stop);
        assert_ne!(answer().unwrap().id, answer().unwrap().id);
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_given_up() {
        let stop = CancellationToken::new();
        stop.cancel();
        let answer = question(200).answer(&Keys::generate(), Timestamp::now(), &stop);
        assert_eq!(answer, None);
    }
}
