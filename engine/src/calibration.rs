//! What honest answers look like to a checker: questions, answers to them, and what is
//! found in these, from which thresholds are chosen (`nips/verification.md`).
//!
//! It needs nothing but [`Engine`]s, and everybody who has a model can run it:
//! `infernet-provider calibrate`.

mod choice;
mod questions;
mod summary;

use std::collections::VecDeque;

use infernet_protocol::inference::{EndReason, ModelId};
use infernet_protocol::payload::Generated;
use infernet_protocol::verification::TextFigures;

use crate::error::Error;
use crate::port::{CheckText, Checking, Engine, Generation, Step};

pub use choice::{thresholds_of_texts, thresholds_of_vectors};
pub use questions::{Question, questions};
pub use summary::Summary;

/// What a token's margin counts at most where honest answers are measured, in logits:
/// beyond any that rounding makes, so that what the filters do not leave can be told
/// from what is only far.
pub const CLIP: f64 = 64.0;

/// Has a model answer questions, so many at a time, and gives what it takes to check
/// the answers.
///
/// # Errors
/// The first that the engine says.
pub async fn answer(
    engine: &dyn Engine,
    model: ModelId,
    questions: &[Question],
    at_once: usize,
) -> Result<Vec<CheckText>, Error> {
    let mut answers = Vec::with_capacity(questions.len());
    let mut under_way = VecDeque::new();
    for question in questions {
        if under_way.len() == at_once.max(1) {
            answers.extend(finish(model, &mut under_way).await?);
        }
        under_way.push_back((question, engine.generate(question.request(model))?));
    }
    while !under_way.is_empty() {
        answers.extend(finish(model, &mut under_way).await?);
    }
    Ok(answers)
}

/// Reads the first of those under way to its end.
async fn finish(
    model: ModelId,
    under_way: &mut VecDeque<(&Question, Generation)>,
) -> Result<Option<CheckText>, Error> {
    let Some((question, mut generation)) = under_way.pop_front() else {
        return Ok(None);
    };
    let mut answer = Generated {
        text: String::new(),
        tokens: Vec::new(),
        input_tokens: 0,
        ended: EndReason::Cancelled,
        error: None,
    };
    let mut proven = None;
    while let Some(step) = generation.next().await {
        match step {
            Step::Started { input_tokens } => answer.input_tokens = input_tokens,
            Step::Token { id, text } => {
                answer.tokens.push(id);
                answer.text.push_str(&text);
            }
            Step::Ended {
                reason,
                text,
                proof,
            } => {
                answer.text.push_str(&text);
                answer.ended = reason;
                proven = proof;
            }
            Step::Failed(error) => return Err(error),
        }
    }
    Ok(Some(question.check(model, answer, proven)))
}

/// Checks answers with a model, so many at a time.
///
/// # Errors
/// The first that the engine says.
pub async fn check(
    engine: &dyn Engine,
    model: ModelId,
    answers: &[CheckText],
    at_once: usize,
) -> Result<Vec<TextFigures>, Error> {
    let mut figures = Vec::with_capacity(answers.len());
    let mut under_way: VecDeque<Checking> = VecDeque::new();
    for answer in answers {
        if under_way.len() == at_once.max(1)
            && let Some(first) = under_way.pop_front()
        {
            figures.push(first.wait().await?);
        }
        under_way.push_back(engine.check(CheckText {
            model,
            ..answer.clone()
        })?);
    }
    for checking in under_way {
        figures.push(checking.wait().await?);
    }
    Ok(figures)
}
