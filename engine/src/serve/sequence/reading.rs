//! Requests that have a text read instead of answered: scored, or checked.

use half::bf16;
use infernet_protocol::inference::{EndReason, ModelId, Prompt, Sampling, TokenId};
use infernet_protocol::verification::TextFigures;
use tokio::sync::oneshot;

use super::{Drawing, Sequence, Text};
use crate::cache::Blocks;
use crate::check::Findings;
use crate::error::Error;
use crate::port::{CheckText, Generate, Score, Standing, Steps};
use crate::sampling::Margin;

/// A text that is read, as far as it is. The request computes all of it but the last
/// token.
pub(super) struct Reading {
    text: Vec<TokenId>,
    aim: Aim,
}

/// What it is read for.
enum Aim {
    /// How probable each token after the first is.
    Score {
        scores: Vec<f32>,
        result: oneshot::Sender<Vec<f32>>,
    },
    /// How far an answer is from what would be answered here.
    Check {
        /// Tokens before the answer.
        before: usize,
        /// How its first token is drawn.
        drawing: Drawing,
        findings: Box<Findings>,
        result: oneshot::Sender<TextFigures>,
    },
}

/// What is asked of a piece of a text.
pub(crate) enum Asked<'a> {
    /// How probable each of these is: `next[i]` after token `i` of the piece.
    Score {
        /// As many as the piece has tokens.
        next: &'a [TokenId],
    },
    /// How far each of these is from the token that is drawn there.
    Check {
        /// The token of the piece after which the first of them comes.
        first: usize,
        /// One for each token of the piece from there on.
        next: &'a [TokenId],
        /// How the first of them is drawn.
        drawing: Drawing,
    },
}

/// What was read in a piece of a text.
pub(crate) enum Read {
    /// How probable its tokens are.
    Scores(Vec<f32>),
    /// How far they are from what is drawn, with the states that they are drawn from,
    /// where these are wanted.
    Margins(Vec<(Margin, Option<Vec<bf16>>)>),
}

impl Reading {
    /// What there is gets lost with what the cache holds of it.
    pub(super) fn begin_anew(&mut self) {
        match &mut self.aim {
            Aim::Score { scores, .. } => scores.clear(),
            Aim::Check { findings, .. } => findings.begin_anew(),
        }
    }

    /// The first token after which something is to be known.
    pub(super) fn first(&self) -> usize {
        match &self.aim {
            Aim::Score { .. } => 0,
            Aim::Check { before, .. } => before - 1, // a prompt is not empty
        }
    }

    /// Whether states are wanted.
    pub(super) fn compares(&self) -> bool {
        match &self.aim {
            Aim::Score { .. } => false,
            Aim::Check { findings, .. } => findings.compares(),
        }
    }

    fn push(&mut self, read: Read) {
        match (&mut self.aim, read) {
            (Aim::Score { scores, .. }, Read::Scores(more)) => scores.extend(more),
            (Aim::Check { findings, .. }, Read::Margins(more)) => {
                for (margin, state) in more {
                    findings.push(margin, state.as_deref());
                }
            }
            // Each aim asks for its own.
            (Aim::Score { .. }, Read::Margins(_)) | (Aim::Check { .. }, Read::Scores(_)) => {}
        }
    }

    /// Tells whoever asked, who may have gone.
    fn tell(self) {
        match self.aim {
            Aim::Score { scores, result } => drop(result.send(scores)),
            Aim::Check {
                findings, result, ..
            } => drop(result.send(findings.finish())),
        }
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
        let reading = Reading {
            text: request.tokens,
            aim: Aim::Score {
                scores: Vec::new(),
                result,
            },
        };
        Self::to_read(text, has, request.standing, reading, steps)
    }

    /// A request to check an answer of at least one token to a prompt of these tokens,
    /// in which no fault was found.
    ///
    /// # Errors
    /// As [`Sequence::to_score`].
    pub(crate) fn to_check(
        text: &Text,
        has: impl Fn(TokenId) -> bool,
        request: CheckText,
        prompt: Vec<TokenId>,
        result: oneshot::Sender<TextFigures>,
        steps: Steps,
    ) -> Result<Self, (Steps, Error)> {
        let before = prompt.len() + request.prefix.len();
        let drawing = Drawing {
            sampling: request.sampling,
            position: u32::try_from(request.prefix.len()).unwrap_or(u32::MAX),
        };
        let reading = Reading {
            text: [&prompt, &request.prefix[..], &request.answer.tokens].concat(),
            aim: Aim::Check {
                before,
                drawing,
                findings: Box::new(Findings::new(&request)),
                result,
            },
        };
        Self::to_read(text, has, request.standing, reading, steps)
    }

    fn to_read(
        text: &Text,
        has: impl Fn(TokenId) -> bool,
        standing: Standing,
        reading: Reading,
        steps: Steps,
    ) -> Result<Self, (Steps, Error)> {
        let tokens = &reading.text;
        if let Some(&unknown) = tokens.iter().find(|&&token| !has(token)) {
            return Err((steps, Error::UnknownToken(unknown)));
        }
        let before_last = tokens[..tokens.len().saturating_sub(1)].to_vec();
        let generate = Generate {
            // Whatever it is, it is the one that is served here.
            model: ModelId::from_bytes([0; 32]),
            prompt: Prompt::Text(String::new()),
            sampling: Sampling::default(),
            max_tokens: 1,
            stop: vec![],
            prefix: vec![],
            prove: false,
            standing,
        };
        let mut sequence = Self::new(text, has, generate, before_last, steps)?;
        sequence.reading = Some(reading);
        Ok(sequence)
    }

    /// What is asked of its piece, if it is read.
    pub(in crate::serve) fn asked(&self) -> Option<Asked<'_>> {
        let reading = self.reading.as_ref()?;
        let next = &reading.text[self.computed + 1..][..self.piece];
        Some(match &reading.aim {
            Aim::Score { .. } => Asked::Score { next },
            Aim::Check { drawing, .. } => {
                let first = reading
                    .first()
                    .saturating_sub(self.computed)
                    .min(self.piece);
                let places = (self.computed + first).saturating_sub(reading.first());
                Asked::Check {
                    first,
                    next: &next[first..],
                    drawing: drawing.after(places),
                }
            }
        })
    }

    /// Its piece was read; why it has ended, if it has.
    pub(in crate::serve) fn read(&mut self, blocks: &mut Blocks, read: Read) -> Option<EndReason> {
        self.computed(blocks);
        let reading = self.reading.as_mut()?;
        reading.push(read);
        if self.computed < self.tokens.len() {
            return None;
        }
        self.reading.take()?.tell();
        Some(EndReason::Length)
    }
}
