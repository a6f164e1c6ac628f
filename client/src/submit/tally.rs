//! What a job has brought so far, and how fast.

use infernet_protocol::event::{JobResult, Signed, Usage};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::Product;

/// What a job has brought so far.
#[derive(Debug)]
pub(super) struct Tally {
    began: u64,
    first: Option<u64>,
    last: u64,
    pub text: String,
    pub tokens: u64,
}

/// What the result of an attempt said.
#[derive(Debug, Clone)]
pub(super) struct Delivered {
    pub usage: Usage,
    pub due_msat: Msat,
    pub result: Signed<JobResult>,
    pub product: Product,
}

impl Delivered {
    pub fn new(result: &Signed<JobResult>, product: &Product) -> Self {
        Self {
            usage: result.usage,
            due_msat: result.due_msat,
            result: result.clone(),
            product: product.clone(),
        }
    }
}

impl Tally {
    pub const fn new(now: u64) -> Self {
        Self {
            began: now,
            first: None,
            last: now,
            text: String::new(),
            tokens: 0,
        }
    }

    /// Counts what became showable.
    pub fn add(&mut self, now: u64, text: &str, tokens: usize) {
        self.first.get_or_insert(now);
        self.last = now;
        self.tokens += tokens as u64;
        self.text.push_str(text);
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
        let mut tally = Tally::new(1_000);
        tally.add(1_200, "a", 1);
        tally.add(1_700, "b", 5);
        assert_eq!(tally.first_token_ms(9_999), 200);
        assert_eq!(tally.tokens_per_s(), 10.0);
        assert_eq!(tally.text, "ab");
    }
}
