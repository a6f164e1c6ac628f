//! The answer of one attempt, as it arrives: pieces in order, checked against
//! their running hash and, in the end, against the result.

use std::collections::BTreeMap;

use nostr::EventId;

use crate::bounds::MAX_BLOB_PAYLOAD_BYTES;
use crate::event::{Measured, Usage};
use crate::inference::EndReason;
use crate::inference::TokenId;
use crate::job::Millis;
use crate::payload::{Chain, Piece, Product};

/// Pieces kept that came before their turn; what is over this is asked for again.
const MAX_EARLY_PIECES: usize = 1_024;

/// What came contradicts itself: the provider's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flaw;

/// What became showable.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub tokens: Vec<TokenId>,
    pub text: String,
}

/// What a result claims, and what it is judged by.
pub(super) struct Claim {
    pub ended: EndReason,
    pub usage: Usage,
    pub product: Product,
    /// Tokens of the model's context.
    pub context: u32,
    /// Tokens the whole answer may have; 0 for work that is not streamed.
    pub max_tokens: u32,
    /// Tokens that earlier attempts brought.
    pub shown_before: usize,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    chain: Option<Chain>,
    next_seq: u32,
    early: BTreeMap<u32, Piece>,
    gap_since: Option<Millis>,
    tokens: Vec<TokenId>,
    text: String,
    first_at: Option<Millis>,
    last_at: Option<Millis>,
}

impl Stream {
    pub fn of(award: &EventId) -> Self {
        Self {
            chain: Some(Chain::start(award)),
            ..Self::default()
        }
    }

    /// The number of the piece that comes next.
    pub const fn next_seq(&self) -> u32 {
        self.next_seq
    }

    /// How many tokens of this attempt were shown.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing has come.
    pub const fn is_empty(&self) -> bool {
        self.next_seq == 0
    }

    /// Since when a piece is missing that later ones have overtaken.
    pub const fn gap_since(&self) -> Option<Millis> {
        self.gap_since
    }

    pub const fn asked_for_gap(&mut self, now: Millis) {
        self.gap_since = Some(now);
    }

    /// Takes a piece; answers what can be shown now, in order, each token once.
    pub fn piece(&mut self, now: Millis, piece: Piece, room: usize) -> Result<Part, Flaw> {
        let is_next = piece.seq == self.next_seq;
        let has_room = self.early.len() < MAX_EARLY_PIECES;
        if piece.seq < self.next_seq || (!is_next && !has_room) {
            return Ok(Part::default());
        }
        self.early.entry(piece.seq).or_insert(piece);
        let mut part = Part::default();
        while let Some(piece) = self.early.remove(&self.next_seq) {
            self.append(now, piece, &mut part)?;
        }
        // More text than any result can carry will never be a result.
        if part.tokens.len() > room || self.text.len() > MAX_BLOB_PAYLOAD_BYTES {
            return Err(Flaw);
        }
        self.gap_since = match self.early.is_empty() {
            true => None,
            false => Some(self.gap_since.unwrap_or(now)),
        };
        Ok(part)
    }

    fn append(&mut self, now: Millis, piece: Piece, part: &mut Part) -> Result<(), Flaw> {
        let chain = self.chain.ok_or(Flaw)?;
        let chain = chain.after(piece.seq, &piece.tokens, &piece.text);
        if chain.digest() != piece.digest {
            return Err(Flaw);
        }
        self.chain = Some(chain);
        self.next_seq += 1;
        self.extend(now, piece.tokens, &piece.text, part);
        Ok(())
    }

    fn extend(&mut self, now: Millis, tokens: Vec<TokenId>, text: &str, part: &mut Part) {
        if !tokens.is_empty() {
            self.first_at.get_or_insert(now);
            self.last_at = Some(now);
        }
        self.tokens.extend(&tokens);
        self.text.push_str(text);
        part.tokens.extend(tokens);
        part.text.push_str(text);
    }

    /// Takes the result: it must go on exactly where the pieces ended, and be as
    /// long as it says it has to be.
    pub fn complete(&mut self, now: Millis, claim: Claim) -> Result<Part, Flaw> {
        let (text, tokens) = match &claim.product {
            Product::Embedding { .. }
            | Product::Tensors { .. }
            | Product::Shard { .. }
            | Product::Verify { .. }
                if claim.max_tokens == 0 =>
            {
                return Ok(Part::default());
            }
            Product::TextGeneration { text, tokens } if claim.max_tokens > 0 => (text, tokens),
            Product::Embedding { .. }
            | Product::Tensors { .. }
            | Product::Shard { .. }
            | Product::Verify { .. }
            | Product::TextGeneration { .. } => return Err(Flaw),
        };
        let more_tokens = tokens.strip_prefix(&self.tokens[..]).ok_or(Flaw)?;
        let more_text = text.strip_prefix(&self.text[..]).ok_or(Flaw)?;
        claim.check_length(tokens.len())?;
        let mut part = Part::default();
        self.extend(now, more_tokens.to_vec(), more_text, &mut part);
        Ok(part)
    }

    /// First token since the award, and the speed behind it.
    pub fn measured(&self, awarded_at: Millis) -> Option<Measured> {
        let (first, last) = (self.first_at?, self.last_at?);
        let seconds = last.since(first) as f32 / 1_000.0;
        let after_first = self.tokens.len().saturating_sub(1) as f32;
        Some(Measured {
            first_token_ms: first.since(awarded_at),
            tokens_per_s: match seconds > 0.0 {
                true => after_first / seconds,
                false => 0.0,
            },
            output_tokens: self.tokens.len() as u64,
        })
    }
}

impl Claim {
    /// Ending by length takes a full answer or a full context; the usage counts
    /// what is there.
    fn check_length(&self, tokens: usize) -> Result<(), Flaw> {
        let total = self.shown_before + tokens;
        let counted = self.usage.output_tokens == tokens as u64
            && self.usage.prefix_tokens == self.shown_before as u64;
        let fits = total <= self.max_tokens as usize;
        let context_full =
            self.usage.input_tokens.saturating_add(total as u64) >= u64::from(self.context);
        let full = total == self.max_tokens as usize || context_full;
        match counted && fits && (self.ended != EndReason::Length || full) {
            true => Ok(()),
            false => Err(Flaw),
        }
    }
}
