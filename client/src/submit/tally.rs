//! What a job has brought so far, and how fast.

use infernet_protocol::event::{JobResult, Signed, Usage};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Product, Vector};

/// Bytes of text that a token may bring. Real ones bring under a hundred; without a bound, a provider could send
/// text without end that counts as no tokens.
const MAX_BYTES_PER_TOKEN: usize = 1_024;

/// What a job has brought so far.
#[derive(Debug)]
pub(super) struct Tally {
    began: u64,
    first: Option<u64>,
    last: u64,
    max_bytes: usize,
    pub text: String,
    pub tokens: u64,
}

/// What the result of an attempt said.
#[derive(Debug, Clone)]
pub(super) struct Delivered {
    pub usage: Usage,
    pub due_msat: Msat,
    pub vectors: Vec<Vector>,
}

impl Delivered {
    pub fn new(result: &Signed<JobResult>, product: &Product) -> Self {
        Self {
            usage: result.usage,
            due_msat: result.due_msat,
            vectors: match product {
                Product::Embedding { vectors } => vectors.clone(),
                Product::TextGeneration { .. } => Vec::new(),
            },
        }
    }
}

impl Tally {
    pub fn new(now: u64, max_tokens: u32) -> Self {
        Self {
            began: now,
            first: None,
            last: now,
            max_bytes: (max_tokens as usize).saturating_mul(MAX_BYTES_PER_TOKEN),
            text: String::new(),
            tokens: 0,
        }
    }

    /// Counts what became showable; answers whether it may be shown.
    pub fn add(&mut self, now: u64, text: &str, tokens: usize) -> bool {
        self.first.get_or_insert(now);
        self.last = now;
        self.tokens += tokens as u64;
        let fits = self.text.len() + text.len() <= self.max_bytes;
        if fits {
            self.text.push_str(text);
        }
        fits
    }

    /// Milliseconds from the start to the first text, or to now.
    pub fn first_token_ms(&self, now: u64) -> u64 {
        self.first.unwrap_or(now).saturating_sub(self.began)
    }

    /// Milliseconds since the start.
    pub const fn total_ms(&self, now: u64) -> u64 {
        now.saturating_sub(self.began)
    }

    /// Tokens a second after the first.
    pub fn tokens_per_s(&self) -> f32 {
        let ms = self.last.saturating_sub(self.first.unwrap_or(self.last));
        match ms {
            0 => 0.0,
            _ => self.tokens.saturating_sub(1) as f32 * 1_000.0 / ms as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_counts_from_the_first_token() {
        let mut tally = Tally::new(1_000, 10);
        assert!(tally.add(1_200, "a", 1));
        assert!(tally.add(1_700, "b", 5));
        assert_eq!(tally.first_token_ms(9_999), 200);
        assert_eq!(tally.tokens_per_s(), 10.0);
        assert_eq!(tally.text, "ab");
    }

    #[test]
    fn text_without_tokens_has_an_end() {
        let mut tally = Tally::new(0, 1);
        assert!(tally.add(1, &"x".repeat(MAX_BYTES_PER_TOKEN), 0));
        assert!(!tally.add(2, "x", 0));
    }
}
