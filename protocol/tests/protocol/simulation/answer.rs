//! The one true answer to the one prompt of the simulation, and what text its
//! tokens show: pure functions of the position, so that any provider who is
//! honest goes on where another one stopped.

use infernet_protocol::inference::{EndReason, TokenId};

/// The model's end token.
const END: TokenId = 2;

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub tokens: Vec<TokenId>,
    pub reason: EndReason,
}

impl Answer {
    /// What the model says if it has so many tokens to say and may say so many.
    pub fn new(seed: u64, length: u32, max_tokens: u32) -> Self {
        let mut tokens: Vec<_> = (0..length).map(|i| token(seed, i)).collect();
        tokens.push(END);
        let reason = match tokens.len() <= max_tokens as usize {
            true => EndReason::Stop,
            false => EndReason::Length,
        };
        tokens.truncate(max_tokens as usize);
        Self { tokens, reason }
    }

    /// All its text.
    pub fn text(&self) -> String {
        let mut screen = Screen::default();
        let mut text: String = self.tokens.iter().map(|t| screen.show(*t)).collect();
        text.push_str(&screen.flush());
        text
    }
}

/// A token that is never the end token; any function of both will do.
pub fn token(seed: u64, position: u32) -> TokenId {
    let mixed = seed
        .wrapping_add(u64::from(position))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    3 + (mixed >> 40) as u32 % 50_000
}

/// Turns tokens into text as an engine does: some tokens' text is held back
/// until the next one, as with half a character or the beginning of a stop
/// string.
#[derive(Debug, Default)]
pub struct Screen {
    held: String,
}

impl Screen {
    /// A screen that has shown these tokens.
    pub fn after(tokens: &[TokenId]) -> Self {
        let mut screen = Self::default();
        for token in tokens {
            screen.show(*token);
        }
        screen
    }

    /// The text that becomes showable with a token.
    pub fn show(&mut self, token: TokenId) -> String {
        if token == END {
            return String::new();
        }
        let text = format!("{}{token} ", self.held);
        self.held.clear();
        if token.is_multiple_of(4) {
            self.held = text;
            return String::new();
        }
        text
    }

    /// The text that was held back to the end.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}
