//! Scoring a text: how probable a model finds what is there already.

use std::fmt;

use infernet_protocol::inference::{ModelId, TokenId};
use tokio::sync::oneshot;

use super::{Generation, Standing, Step, Steps};
use crate::error::Error;

/// A text to score.
#[derive(Clone)]
pub struct Score {
    /// Which model.
    pub model: ModelId,
    /// The text, no longer than the model's context.
    pub tokens: Vec<TokenId>,
    /// Whom it is for and what it pays.
    pub standing: Standing,
}

impl Score {
    /// Refuses what is wrong whatever the model.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        match self.tokens.len() {
            // Nothing comes after a token to be scored.
            0 | 1 => Err(Error::EmptyPrompt),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Score {
    /// Never shows the text: it must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Score({}, {} tokens)", self.model, self.tokens.len())
    }
}

/// A scoring that is queued or runs. Dropping it stops it.
#[derive(Debug)]
pub struct Scoring(Outcome<Vec<f32>>);

impl Scoring {
    /// The engine's ends and the reader's.
    pub(crate) fn channel() -> (Steps, oneshot::Sender<Vec<f32>>, Self) {
        let (steps, sender, outcome) = Outcome::channel();
        (steps, sender, Self(outcome))
    }

    /// Waits for the natural logarithms of how probable each token but the first is
    /// after all those before it: one fewer than there are tokens.
    ///
    /// # Errors
    /// What went wrong in the computation; [`Error::Stopped`] when the engine
    /// has gone.
    pub async fn wait(self) -> Result<Vec<f32>, Error> {
        self.0.wait().await
    }
}

/// What comes of reading a text, when it has been read.
#[derive(Debug)]
pub(super) struct Outcome<T> {
    generation: Generation,
    outcome: oneshot::Receiver<T>,
}

impl<T> Outcome<T> {
    /// The engine's ends and the reader's.
    pub(super) fn channel() -> (Steps, oneshot::Sender<T>, Self) {
        let (steps, generation) = Generation::channel();
        let (sender, outcome) = oneshot::channel();
        let outcome = Self {
            generation,
            outcome,
        };
        (steps, sender, outcome)
    }

    pub(super) async fn wait(mut self) -> Result<T, Error> {
        while let Some(step) = self.generation.next().await {
            if let Step::Failed(error) = step {
                return Err(error);
            }
        }
        self.outcome.await.map_err(|_| Error::Stopped)
    }
}
