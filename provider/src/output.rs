//! Whether an answer fits in the event that has to carry it, and what may be
//! said in public of one that failed.

use infernet_engine::Error as EngineError;
use infernet_protocol::bounds::MAX_PAYLOAD_BYTES;
use infernet_protocol::inference::TokenId;

/// Bytes of an output's JSON besides its tokens and text: salt and names.
const FRAME_BYTES: usize = 256;

/// Bytes kept free for text that the engine holds back until the end: a stop
/// string's beginning (at most 256 bytes), each escaped as `\u0000`.
const HELD_BACK_BYTES: usize = 6 * 256;

/// Bytes of one token's number and its comma, at least.
const MIN_TOKEN_BYTES: usize = 2;

/// Whether so many tokens cannot fit, whatever they are. Most answers end long
/// before their limit, so this declines only what has to fail.
pub const fn surely_too_long(tokens: u32) -> bool {
    tokens as usize * MIN_TOKEN_BYTES > MAX_PAYLOAD_BYTES
}

/// Whether so many vectors of this width fit.
pub const fn vectors_fit(vectors: usize, width: u32) -> bool {
    // Base64 of four bytes for each number, quotes and a comma.
    let each = (width as usize * 4).div_ceil(3) * 4 + 3;
    vectors.saturating_mul(each).saturating_add(FRAME_BYTES) <= MAX_PAYLOAD_BYTES
}

/// How much of an event's room an answer has taken.
#[derive(Debug)]
pub struct Room {
    left: usize,
}

impl Room {
    /// All of it.
    pub const fn new() -> Self {
        Self {
            left: MAX_PAYLOAD_BYTES - FRAME_BYTES - HELD_BACK_BYTES,
        }
    }

    /// Takes room for one more token and its text; false if there is none.
    pub fn take(&mut self, token: TokenId, text: &str) -> bool {
        let digits = token.checked_ilog10().unwrap_or(0) as usize + 1;
        let bytes = digits + 1 + escaped_len(text);
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Bytes of a text inside a JSON string, as serde_json writes it.
fn escaped_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0x00..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

/// What a result says of an engine's error. Words of a chat template or of
/// libtorch may quote the prompt, and a result is public.
pub fn public_words(error: &EngineError) -> String {
    match error {
        EngineError::ChatTemplate(_) => "the model's chat template refuses the messages".into(),
        EngineError::Computation(_) => "the computation failed".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_protocol::payload::{Output, Payload, Product, Vector};
    use infernet_protocol::seal::Salt;
    use proptest::prelude::*;

    use super::*;

    const SALT: Salt = Salt::from_bytes([0xff; 32]);

    fn bytes(product: Product) -> usize {
        Output {
            salt: SALT,
            product,
        }
        .to_bytes()
        .len()
    }

    #[test]
    fn what_has_room_fits() {
        let mut room = Room::new();
        let (mut tokens, mut text) = (vec![], String::new());
        while room.take(49_151, "\u{1}\"é") {
            tokens.push(49_151);
            text.push_str("\u{1}\"é");
        }
        text.push_str(&"\u{1}".repeat(256));
        let bytes = bytes(Product::TextGeneration { text, tokens });
        assert!(bytes <= MAX_PAYLOAD_BYTES, "{bytes}");
        assert!(bytes > MAX_PAYLOAD_BYTES - 400, "{bytes}: room is wasted");
    }

    #[test]
    fn vectors_that_fit_fit() {
        let most = (1..100).filter(|n| vectors_fit(*n, 384)).max().unwrap();
        let product = |n| Product::Embedding {
            vectors: vec![Vector(vec![0.5; 384]); n],
        };
        assert!(bytes(product(most)) <= MAX_PAYLOAD_BYTES);
        assert!(bytes(product(most + 1)) > MAX_PAYLOAD_BYTES - FRAME_BYTES);
    }

    proptest! {
        #[test]
        fn escapes_are_counted_as_serde_writes_them(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(escaped_len(&text), json.len() - 2);
        }
    }
}
