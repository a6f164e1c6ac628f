//! What an answer's tokens say, and where it ends: a function of the tokens alone
//! (`nips/sampling.md`), for those who draw them and those who check them.

use infernet_protocol::inference::{EndReason, TokenId};

use crate::detokenizer::Detokenizer;

/// What a model's tokens mean.
pub(crate) trait Vocabulary {
    /// Whether the model has this token.
    fn has(&self, token: TokenId) -> bool;

    /// Whether it ends an answer.
    fn is_end(&self, token: TokenId) -> bool;

    /// The bytes that it adds to an answer. Some models have more weights than tokens:
    /// such a token adds none.
    fn bytes(&self, token: TokenId) -> Vec<u8>;
}

/// An answer, as far as it is told.
#[derive(Debug)]
pub(crate) struct Telling {
    detokenizer: Detokenizer,
    tokens: usize,
    /// Tokens that it may have.
    room: usize,
}

impl Telling {
    /// An answer of at most so many tokens that ends before any of `stop`. With
    /// `skip_space`, one space at its very beginning is left out.
    pub(crate) fn new(stop: Vec<String>, skip_space: bool, room: usize) -> Self {
        Self {
            detokenizer: Detokenizer::new(stop, skip_space),
            tokens: 0,
            room,
        }
    }

    /// Adds a token: the text that can be shown now, and why the answer has ended, if
    /// it has.
    pub(crate) fn push(
        &mut self,
        vocabulary: &impl Vocabulary,
        token: TokenId,
    ) -> (String, Option<EndReason>) {
        self.tokens += 1;
        if vocabulary.is_end(token) {
            return (String::new(), Some(EndReason::Stop));
        }
        let shown = self.detokenizer.push(&vocabulary.bytes(token));
        let ended = match (self.detokenizer.is_stopped(), self.tokens >= self.room) {
            (true, _) => Some(EndReason::Stop),
            (false, true) => Some(EndReason::Length),
            (false, false) => None,
        };
        (shown, ended)
    }

    /// Tokens so far.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Ends the answer: what had been held back and belongs to it.
    pub(crate) fn finish(&mut self) -> String {
        self.detokenizer.finish()
    }
}
