//! One text generation, step by step.

use std::sync::Arc;

use infernet_protocol::inference::{EndReason, Sampling, TokenId};

use crate::detokenizer::Detokenizer;
use crate::error::Error;
use crate::models::decoder::{BLOCK_TOKENS, Decoder, Row, Store};
use crate::port::{Generate, Step, Steps};
use crate::sampling;
use crate::tokenizer::Tokenizer;
use crate::worker::Job;

/// Prompt tokens that are computed in one step, so that a long prompt neither
/// holds up the other sequences nor delays its own cancelling for long.
const PREFILL_TOKENS: usize = 256;

/// A model that answers.
pub(super) struct TextModel {
    pub(super) decoder: Box<Decoder>,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) context: usize,
}

/// A request, and where its answer goes.
pub(super) struct SequenceRequest {
    pub(super) request: Generate,
    pub(super) steps: Steps,
}

/// A prompt and as much of its answer as there is.
pub(super) struct Sequence {
    tokens: Vec<TokenId>,
    prompt_length: usize,
    store: Store,
    blocks: Vec<u32>,
    /// Tokens that are in the cache.
    computed: usize,
    detokenizer: Detokenizer,
    sampling: Sampling,
    max_tokens: usize,
    /// Why a prefix left nothing to do.
    ended: Option<EndReason>,
    steps: Steps,
}

impl Job for Sequence {
    type Model = TextModel;
    type Request = SequenceRequest;

    fn begin(model: &TextModel, request: SequenceRequest) -> Option<Self> {
        let SequenceRequest { request, steps } = request;
        if steps.is_abandoned() {
            return None;
        }
        match encode(model, &request) {
            Ok(prompt) => Self::new(model, request, prompt, steps),
            Err(error) => {
                steps.send(Step::Failed(error));
                None
            }
        }
    }

    fn step(&mut self, model: &TextModel) -> Result<bool, Error> {
        if self.steps.is_abandoned() {
            return Ok(false);
        }
        if self.steps.is_cancelled() {
            return Ok(self.end(EndReason::Cancelled));
        }
        if let Some(reason) = self.ended {
            return Ok(self.end(reason));
        }
        if self.tokens.len() - self.computed > PREFILL_TOKENS {
            self.compute(model, PREFILL_TOKENS, false)?;
            return Ok(true);
        }
        let id = self.draw(model)?;
        let (text, ended) = self.append(model, id);
        self.steps.send(Step::Token { id, text });
        Ok(match ended {
            Some(reason) => self.end(reason),
            None => true,
        })
    }

    fn waits(&self) -> bool {
        self.steps.is_ahead()
    }

    fn fail(self, error: Error) {
        self.steps.send(Step::Failed(error));
    }
}

/// The prompt's tokens, if they leave room for an answer.
fn encode(model: &TextModel, request: &Generate) -> Result<Vec<TokenId>, Error> {
    let tokens = model.tokenizer.encode_prompt(&request.prompt)?;
    if tokens.len() >= model.context {
        return Err(Error::PromptTooLong {
            tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            context: u32::try_from(model.context).unwrap_or(u32::MAX),
        });
    }
    Ok(tokens)
}

impl Sequence {
    fn new(
        model: &TextModel,
        request: Generate,
        prompt: Vec<TokenId>,
        steps: Steps,
    ) -> Option<Self> {
        let room = (prompt.len() + request.max_tokens as usize).min(model.context);
        let blocks = room.div_ceil(BLOCK_TOKENS);
        let store = match model.decoder.store(blocks) {
            Ok(store) => store,
            Err(error) => {
                steps.send(Step::Failed(error.into()));
                return None;
            }
        };
        let first_space = model.tokenizer.adds_first_space();
        let mut sequence = Self {
            prompt_length: prompt.len(),
            tokens: prompt,
            store,
            blocks: (0..blocks as u32).collect(),
            computed: 0,
            detokenizer: Detokenizer::new(request.stop, first_space),
            sampling: request.sampling,
            max_tokens: request.max_tokens as usize,
            ended: None,
            steps,
        };
        let input_tokens = u32::try_from(sequence.prompt_length).unwrap_or(u32::MAX);
        if let Err(error) = sequence.replay(model, &request.prefix) {
            sequence.fail(error);
            return None;
        }
        sequence.steps.send(Step::Started { input_tokens });
        Some(sequence)
    }

    /// Takes over an answer's beginning from elsewhere.
    fn replay(&mut self, model: &TextModel, prefix: &[TokenId]) -> Result<(), Error> {
        for &id in prefix {
            if self.ended.is_some() {
                return Err(Error::InvalidPrefix(
                    "the answer ends before its last token",
                ));
            }
            if !model.decoder.has(id) {
                return Err(Error::InvalidPrefix("a token is not in the vocabulary"));
            }
            (_, self.ended) = self.append(model, id);
        }
        Ok(())
    }

    /// Computes what is left to compute and draws the next token.
    fn draw(&mut self, model: &TextModel) -> Result<TokenId, Error> {
        let logits = self.compute(model, self.tokens.len() - self.computed, true)?;
        let logits = logits.first().map_or(&[][..], Vec::as_slice);
        let position = u32::try_from(self.answered()).unwrap_or(u32::MAX);
        sampling::draw(logits, &self.sampling, position)
    }

    /// Computes the next `count` tokens.
    fn compute(
        &mut self,
        model: &TextModel,
        count: usize,
        draws: bool,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let row = Row {
            tokens: &self.tokens[self.computed..self.computed + count],
            start: self.computed,
            blocks: &self.blocks,
            draws,
        };
        let logits = model.decoder.forward(&[row], &mut self.store)?;
        self.computed += count;
        Ok(logits)
    }

    /// Adds a token to the answer: the text that can be shown now, and why the
    /// answer has ended, if it has.
    fn append(&mut self, model: &TextModel, id: TokenId) -> (String, Option<EndReason>) {
        self.tokens.push(id);
        if model.tokenizer.is_end(id) {
            return (String::new(), Some(EndReason::Stop));
        }
        // Some models have more weights than tokens: such a token has no text.
        let bytes = model.tokenizer.bytes(id).unwrap_or_default();
        let text = self.detokenizer.push(&bytes);
        let full = self.answered() >= self.max_tokens || self.tokens.len() >= model.context;
        let ended = match (self.detokenizer.is_stopped(), full) {
            (true, _) => Some(EndReason::Stop),
            (false, true) => Some(EndReason::Length),
            (false, false) => None,
        };
        (text, ended)
    }

    /// Tokens of the answer so far.
    fn answered(&self) -> usize {
        self.tokens.len() - self.prompt_length
    }

    /// Ends the answer; there is no further step.
    fn end(&mut self, reason: EndReason) -> bool {
        let text = self.detokenizer.finish();
        self.steps.send(Step::Ended { reason, text });
        false
    }
}
