//! The vectors of some texts, one text a step.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::Error;
use crate::models::bert::Bert;
use crate::port::Embeddings;
use crate::tokenizer::Tokenizer;
use crate::worker::Job;

/// A model that makes vectors.
pub(super) struct EmbeddingModel {
    pub(super) bert: Box<Bert>,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) context: usize,
}

/// A request, and where its vectors go.
pub(super) struct EmbeddingRequest {
    pub(super) texts: Vec<String>,
    pub(super) result: oneshot::Sender<Result<Embeddings, Error>>,
}

/// Texts, and the vectors of the first of them.
pub(super) struct EmbeddingJob {
    texts: Vec<String>,
    done: Embeddings,
    /// Taken when the answer is sent.
    result: Option<oneshot::Sender<Result<Embeddings, Error>>>,
}

impl EmbeddingJob {
    /// Sends the answer, to whoever may still wait for it.
    fn answer(&mut self, answer: Result<Embeddings, Error>) {
        if let Some(result) = self.result.take() {
            let _ = result.send(answer);
        }
    }

    fn is_abandoned(&self) -> bool {
        self.result.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

impl Job for EmbeddingJob {
    type Model = EmbeddingModel;
    type Request = EmbeddingRequest;

    fn begin(_: &EmbeddingModel, request: EmbeddingRequest) -> Option<Self> {
        Some(Self {
            texts: request.texts,
            done: Embeddings::default(),
            result: Some(request.result),
        })
    }

    fn step(&mut self, model: &EmbeddingModel) -> Result<bool, Error> {
        if self.is_abandoned() {
            return Ok(false);
        }
        let Some(text) = self.texts.get(self.done.vectors.len()) else {
            let done = std::mem::take(&mut self.done);
            self.answer(Ok(done));
            return Ok(false);
        };
        let tokens = model.tokenizer.encode_text(text)?;
        let length = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        if tokens.len() > model.context {
            return Err(Error::PromptTooLong {
                tokens: length,
                context: u32::try_from(model.context).unwrap_or(u32::MAX),
            });
        }
        self.done.vectors.push(model.bert.embed(&tokens)?);
        self.done.input_tokens = self.done.input_tokens.saturating_add(length);
        Ok(true)
    }

    fn fail(mut self, error: Error) {
        self.answer(Err(error));
    }
}
