//! Whether an answer fits in the result that has to carry it, and what may be
//! said in public of one that failed.

use infernet_engine::Error as EngineError;

/// Bytes of an output's JSON besides its tokens and text: salt and names.
const FRAME_BYTES: usize = 256;

/// Bytes of one token's number and its comma, at least.
const MIN_TOKEN_BYTES: usize = 2;

/// Whether so many tokens cannot fit into `most` bytes, whatever they are. Most answers end long
/// before their limit, so this declines only what has to fail.
pub const fn surely_too_long(tokens: u32, most: usize) -> bool {
    tokens as usize * MIN_TOKEN_BYTES > most
}

/// Whether so many vectors of this width fit into `most` bytes.
pub const fn vectors_fit(vectors: usize, width: u32, most: usize) -> bool {
    // Base64 of four bytes for each number, quotes and a comma.
    let each = (width as usize * 4).div_ceil(3) * 4 + 3;
    vectors.saturating_mul(each).saturating_add(FRAME_BYTES) <= most
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

    use infernet_protocol::bounds::MAX_PAYLOAD_BYTES;
    use infernet_protocol::payload::{Output, Payload, Product, Vector};
    use infernet_protocol::seal::Salt;

    use super::*;

    const SALT: Salt = Salt::from_bytes([0xff; 32]);

    fn bytes(product: Product) -> usize {
        Output {
            salt: SALT,
            product,
            proofs: vec![],
        }
        .to_bytes()
        .len()
    }

    #[test]
    fn vectors_that_fit_fit() {
        let fit = |n: &usize| vectors_fit(*n, 384, MAX_PAYLOAD_BYTES);
        let most = (1..100).filter(fit).max().unwrap();
        let product = |n| Product::Embedding {
            vectors: vec![Vector(vec![0.5; 384]); n],
        };
        assert!(bytes(product(most)) <= MAX_PAYLOAD_BYTES);
        assert!(bytes(product(most + 1)) > MAX_PAYLOAD_BYTES - FRAME_BYTES);
    }
}
