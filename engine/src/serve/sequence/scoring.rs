//! Requests that have a text scored instead of answered.

use infernet_protocol::inference::{EndReason, Prompt, Sampling, TokenId};
use tokio::sync::oneshot;

use super::{Sequence, Text};
use crate::cache::Blocks;
use crate::error::Error;
use crate::port::{Generate, Score, Steps};

/// A text that is scored, as far as it is.
pub(super) struct Scoring {
    /// The request computes all of it but the last token.
    text: Vec<TokenId>,
    /// How probable each token after the first is.
    scores: Vec<f32>,
    result: oneshot::Sender<Vec<f32>>,
}

impl Scoring {
    /// What there is gets lost with what the cache holds of it.
    pub(super) fn begin_anew(&mut self) {
        self.scores.clear();
    }
}

impl Sequence {
    /// A request to score a text.
    ///
    /// # Errors
    /// A text that the context does not hold, or with a token that the model has not.
    pub(crate) fn to_score(
        text: &Text,
        has: impl Fn(TokenId) -> bool,
        request: Score,
        result: oneshot::Sender<Vec<f32>>,
        steps: Steps,
    ) -> Result<Self, (Steps, Error)> {
        let Score {
            model,
            tokens,
            standing,
        } = request;
        if let Some(&unknown) = tokens.iter().find(|&&token| !has(token)) {
            return Err((steps, Error::UnknownToken(unknown)));
        }
        let before_last = tokens[..tokens.len().saturating_sub(1)].to_vec();
        let generate = Generate {
            model,
            prompt: Prompt::Text(String::new()),
            sampling: Sampling::default(),
            max_tokens: 1,
            stop: vec![],
            prefix: vec![],
            standing,
        };
        let mut sequence = Self::new(text, has, generate, before_last, steps)?;
        sequence.scoring = Some(Scoring {
            text: tokens,
            scores: Vec::new(),
            result,
        });
        Ok(sequence)
    }

    /// The tokens after those of its piece, if it is scored.
    pub(in crate::serve) fn scored_next(&self) -> Option<&[TokenId]> {
        let start = self.computed + 1;
        let scoring = self.scoring.as_ref()?;
        Some(&scoring.text[start..start + self.piece])
    }

    /// Its piece was scored; why it has ended, if it has.
    pub(in crate::serve) fn scored(
        &mut self,
        blocks: &mut Blocks,
        scores: Vec<f32>,
    ) -> Option<EndReason> {
        self.computed(blocks);
        let scoring = self.scoring.as_mut()?;
        scoring.scores.extend(scores);
        if self.computed < self.tokens.len() {
            return None;
        }
        let Scoring { scores, result, .. } = self.scoring.take()?;
        // Whoever asked may have gone.
        let _ = result.send(scores);
        Some(EndReason::Length)
    }
}
