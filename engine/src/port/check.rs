//! Checking an answer that somebody gave.

use std::fmt;

use infernet_protocol::inference::{ModelId, Prompt, Sampling, TokenId};
use infernet_protocol::payload::{Generated, Proof};
use infernet_protocol::verification::TextFigures;
use tokio::sync::oneshot;

use super::score::Outcome;
use super::{Standing, Steps, validate_asked};
use crate::error::Error;

/// What somebody was asked for and answered.
#[derive(Clone)]
pub struct CheckText {
    /// Which model.
    pub model: ModelId,
    /// What was to be answered.
    pub prompt: Prompt,
    /// How tokens were to be drawn.
    pub sampling: Sampling,
    /// The answer's length at most, in tokens, `prefix` and end token included.
    pub max_tokens: u32,
    /// The answer was to end before the first of these.
    pub stop: Vec<String>,
    /// The answer's tokens that were there before. They are not judged.
    pub prefix: Vec<TokenId>,
    /// The answer behind the prefix: its text is what became showable behind it, and
    /// its `input_tokens` are those of the prompt, without the prefix. An end by
    /// [`Cancelled`](infernet_protocol::inference::EndReason::Cancelled) or failure is
    /// a false one: to check what was cancelled, say
    /// [`Length`](infernet_protocol::inference::EndReason::Length) and lower
    /// `max_tokens`.
    pub answer: Generated,
    /// How it was computed, as its provider says. If it is missing, activations are
    /// not compared.
    pub proof: Option<Proof>,
    /// What the margin of one token counts at most, and what a token counts that the
    /// filters do not leave, in logits.
    pub clip: f64,
    /// Whom it is for and what it pays.
    pub standing: Standing,
}

impl CheckText {
    /// Refuses what is wrong whatever the model.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        validate_asked(&self.prompt, &self.sampling, self.max_tokens, &self.stop)?;
        match self.clip.is_finite() && self.clip >= 0.0 {
            true => Ok(()),
            false => Err(Error::InvalidSampling("clip must be 0 or more")),
        }
    }
}

impl fmt::Debug for CheckText {
    /// Never shows the texts: they must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckText({}, {:?})", self.model, self.answer)
    }
}

/// A check that is queued or runs. Dropping it stops it.
#[derive(Debug)]
pub struct Checking(Outcome<TextFigures>);

impl Checking {
    /// The engine's ends and the reader's.
    pub(crate) fn channel() -> (Steps, oneshot::Sender<TextFigures>, Self) {
        let (steps, sender, outcome) = Outcome::channel();
        (steps, sender, Self(outcome))
    }

    /// Waits for what was found.
    ///
    /// # Errors
    /// What went wrong in the computation; [`Error::Stopped`] when the engine
    /// has gone.
    pub async fn wait(self) -> Result<TextFigures, Error> {
        self.0.wait().await
    }
}
