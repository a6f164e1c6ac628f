//! One request: its tokens, what of them is computed, and where its answer goes.

mod reading;

use std::sync::Arc;

use half::bf16;
use infernet_protocol::inference::{EndReason, Sampling, TokenId};

use crate::cache::{Block, Blocks, Realm};
use crate::error::Error;
use crate::models::decoder::{BLOCK_TOKENS, Row};
use crate::port::{Generate, Standing, Step, Steps};
use crate::proof::Prover;
use crate::sampling::{self, Margin};
use crate::telling::Telling;
use crate::tokenizer::Tokenizer;

use super::server::Place;
use reading::Reading;

pub(crate) use reading::{Asked, Read};

/// Tokens of its answer that a request gets once it has a place and is read: what it
/// takes to read it again is then not for nothing.
const TURN: usize = 25;

/// What a model says of text.
#[derive(Clone)]
pub(crate) struct Text {
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// How much it holds, prompt and answer together, in tokens.
    pub(crate) context: usize,
}

/// How a token is drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawing {
    pub(super) sampling: Sampling,
    /// Where it stands in the answer.
    pub(super) position: u32,
}

impl Drawing {
    /// Whether chance has a part in it.
    pub(super) fn is_noisy(&self) -> bool {
        self.sampling.temperature > 0.0
    }

    /// The token.
    ///
    /// # Errors
    /// Logits that are none.
    pub(super) fn draw(&self, logits: &[f32]) -> Result<TokenId, Error> {
        sampling::draw(logits, &self.sampling, self.position)
    }

    /// How the token is drawn that comes so many places later.
    pub(super) fn after(self, places: usize) -> Self {
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        Self {
            position: self.position.saturating_add(places),
            ..self
        }
    }

    /// How far a token is from the one that is drawn.
    ///
    /// # Errors
    /// Logits that are none.
    pub(super) fn margin(&self, logits: &[f32], token: TokenId) -> Result<Margin, Error> {
        sampling::margin(logits, &self.sampling, self.position, token)
    }
}

/// A prompt and as much of its answer as there is.
pub(crate) struct Sequence {
    /// Counts requests as they come.
    pub(super) number: u64,
    pub(super) standing: Standing,
    /// Whose blocks it may use.
    pub(super) realm: Realm,
    tokens: Vec<TokenId>,
    prompt_length: usize,
    /// Tokens that are in the cache.
    computed: usize,
    /// Where they are, and where the next ones go.
    blocks: Vec<Block>,
    /// The first so many blocks are full and can be found by others.
    known: usize,
    /// Tokens that run in this round.
    pub(super) piece: usize,
    /// Tokens that were computed, and those that were drawn, since it has its place.
    turn: (usize, usize),
    telling: Telling,
    sampling: Sampling,
    /// Proves how the answer was computed, where that is asked for.
    prover: Option<Prover>,
    /// Why a prefix left nothing to do.
    ended: Option<EndReason>,
    has_started: bool,
    /// Its tokens are read, and none is drawn.
    reading: Option<Reading>,
    /// Its place among those who wait for their first turn.
    place: Option<Place>,
    pub(super) steps: Steps,
}

impl Sequence {
    /// A request whose prompt has these tokens.
    ///
    /// # Errors
    /// A prompt without room for an answer, or a prefix that is none.
    pub(crate) fn new(
        text: &Text,
        has: impl Fn(TokenId) -> bool,
        request: Generate,
        prompt: Vec<TokenId>,
        steps: Steps,
    ) -> Result<Self, (Steps, Error)> {
        let room = text.context.saturating_sub(prompt.len());
        let room = room.min(request.max_tokens as usize);
        let mut sequence = Self {
            number: 0,
            standing: request.standing,
            realm: request.standing.customer,
            prompt_length: prompt.len(),
            tokens: prompt,
            computed: 0,
            blocks: Vec::new(),
            known: 0,
            piece: 0,
            turn: (0, 0),
            telling: Telling::new(request.stop, text.tokenizer.adds_first_space(), room),
            sampling: request.sampling,
            prover: request.prove.then(Prover::default),
            ended: None,
            has_started: false,
            reading: None,
            place: None,
            steps,
        };
        match sequence.replay(text, has, &request.prefix) {
            Ok(()) => Ok(sequence),
            Err(error) => Err((sequence.steps, error)),
        }
    }

    /// Takes over an answer's beginning from elsewhere.
    fn replay(
        &mut self,
        text: &Text,
        has: impl Fn(TokenId) -> bool,
        prefix: &[TokenId],
    ) -> Result<(), Error> {
        if self.tokens.len() >= text.context {
            return Err(Error::PromptTooLong {
                tokens: u32::try_from(self.tokens.len()).unwrap_or(u32::MAX),
                context: u32::try_from(text.context).unwrap_or(u32::MAX),
            });
        }
        for &id in prefix {
            if self.ended.is_some() {
                return Err(Error::InvalidPrefix(
                    "the answer ends before its last token",
                ));
            }
            if !has(id) {
                return Err(Error::InvalidPrefix("a token is not in the vocabulary"));
            }
            (_, self.ended) = self.append(text, id);
        }
        Ok(())
    }

    /// Keeps a place until its turn comes.
    pub(super) fn holding(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Tells the reader that its turn has come.
    pub(super) fn start(&mut self) {
        if !self.has_started {
            self.has_started = true;
            // The reader may ask for the place at once.
            self.place = None;
            let input_tokens = u32::try_from(self.prompt_length).unwrap_or(u32::MAX);
            self.steps.send(Step::Started { input_tokens });
        }
    }

    /// Why there is nothing to compute: it was stopped, or its prefix is all.
    pub(super) fn over(&self) -> Option<EndReason> {
        match self.steps.is_cancelled() {
            true => Some(EndReason::Cancelled),
            false => self.ended,
        }
    }

    /// Tokens that are not computed yet; at least one.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Blocks that it lacks for so many further tokens.
    pub(super) fn lacks(&self, tokens: usize) -> usize {
        let needed = (self.computed + tokens).div_ceil(BLOCK_TOKENS);
        needed.saturating_sub(self.blocks.len())
    }

    /// Adds an empty block.
    pub(super) fn push(&mut self, block: Block) {
        self.blocks.push(block);
    }

    /// Makes as long a piece of at most so many tokens as may be computed at a time:
    /// all that is left, or whole blocks, so that what follows may be found in the
    /// cache meanwhile.
    pub(super) fn plan(&mut self, most: usize) {
        self.piece = match self.pending() {
            pending if pending <= most => pending,
            _ => {
                let end = (self.computed + most) / BLOCK_TOKENS * BLOCK_TOKENS;
                end.saturating_sub(self.computed)
            }
        };
    }

    /// Takes over what others have computed of its tokens. What is to be known of the
    /// token after the last one, or is read, is left to compute: it is in no cache.
    pub(super) fn reuse(&mut self, blocks: &mut Blocks) {
        if self.computed != self.blocks.len() * BLOCK_TOKENS {
            return;
        }
        let first = match &self.reading {
            Some(reading) => reading.first(),
            None => self.tokens.len() - 1,
        };
        while self.computed + BLOCK_TOKENS <= first {
            let next = &self.tokens[self.computed..self.computed + BLOCK_TOKENS];
            let before = self.blocks.last().copied();
            let Some(block) = blocks.find(self.realm, before, next) else {
                return;
            };
            self.blocks.push(block);
            self.computed += BLOCK_TOKENS;
            self.known += 1;
        }
    }

    /// Gives all blocks back; everything is to be found or computed again.
    pub(super) fn release(&mut self, blocks: &mut Blocks) {
        blocks.release(&self.blocks);
        self.blocks.clear();
        (self.computed, self.known, self.piece) = (0, 0, 0);
        self.turn = (0, 0);
        if let Some(reading) = &mut self.reading {
            reading.begin_anew();
        }
    }

    /// What is to be computed of it in this round.
    pub(super) fn row(&self) -> Row<'_> {
        Row {
            tokens: &self.tokens[self.computed..self.computed + self.piece],
            start: self.computed,
            blocks: &self.blocks,
            draws: self.reading.is_none() && self.piece == self.pending(),
            proves: match &self.reading {
                Some(reading) => reading.compares(),
                None => self.prover.is_some(),
            },
        }
    }

    /// Its piece was computed: the blocks that are full now can be found by others.
    pub(super) fn computed(&mut self, blocks: &mut Blocks) {
        self.computed += self.piece;
        self.turn.0 += self.piece;
        self.piece = 0;
        self.steps.advance();
        while (self.known + 1) * BLOCK_TOKENS <= self.computed {
            let start = self.known * BLOCK_TOKENS;
            let before = self.known.checked_sub(1).map(|at| self.blocks[at]);
            let held = &self.tokens[start..start + BLOCK_TOKENS];
            let block = blocks.know(self.blocks[self.known], self.realm, before, held);
            self.blocks[self.known] = block;
            self.known += 1;
        }
    }

    /// Whether it has got something of its place, or nothing was done for it there.
    pub(super) fn had_its_turn(&self) -> bool {
        let (computed, drawn) = self.turn;
        computed == 0 || drawn >= TURN
    }

    /// What it takes to draw its next token.
    pub(super) fn drawing(&self) -> Drawing {
        Drawing {
            sampling: self.sampling,
            position: u32::try_from(self.telling.tokens()).unwrap_or(u32::MAX),
        }
    }

    /// Takes the state that its next token is drawn from.
    pub(super) fn prove(&mut self, state: Option<&[bf16]>) {
        if let (Some(prover), Some(state)) = (&mut self.prover, state) {
            prover.push(state);
        }
    }

    /// Adds a token and sends it; why the answer has ended, if it has.
    pub(super) fn say(&mut self, text: &Text, id: TokenId) -> Option<EndReason> {
        let (shown, ended) = self.append(text, id);
        self.turn.1 += 1;
        self.steps.send(Step::Token { id, text: shown });
        ended
    }

    /// Adds a token to the answer: the text that can be shown now, and why the
    /// answer has ended, if it has.
    fn append(&mut self, text: &Text, id: TokenId) -> (String, Option<EndReason>) {
        self.tokens.push(id);
        self.telling.push(&*text.tokenizer, id)
    }

    /// Ends the answer.
    pub(super) fn end(mut self, reason: EndReason) {
        let text = self.telling.finish();
        let proof = self.prover.take().map(Prover::finish);
        self.steps.send(Step::Ended {
            reason,
            text,
            proof,
        });
    }

    /// Ends it without an answer.
    pub(super) fn fail(self, error: Error) {
        self.steps.send(Step::Failed(error));
    }
}
