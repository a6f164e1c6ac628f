//! What a checker finds in somebody's answer.

use half::bf16;
use infernet_protocol::inference::EndReason;
use infernet_protocol::verification::{Fault, TextFigures};

use crate::error::Error;
use crate::port::CheckText;
use crate::proof::{self, Comparison};
use crate::sampling::Margin;
use crate::telling::{Telling, Vocabulary};

/// What is wrong with an answer as anybody sees who knows the model's tokens.
///
/// The prompt has so many tokens, and the model holds so many in all.
///
/// # Errors
/// What keeps it from being checked: it does not fit in the context here, or the
/// prefix, which is not its provider's, is none.
pub(crate) fn find_fault(
    request: &CheckText,
    vocabulary: &impl Vocabulary,
    skip_space: bool,
    prompt_tokens: usize,
    context: usize,
) -> Result<Option<Fault>, Error> {
    let answer = &request.answer;
    let answered = request.prefix.len() + answer.tokens.len();
    let is_unknown = |token: &&u32| !vocabulary.has(**token);
    if request.prefix.iter().any(|token| is_unknown(&token)) {
        return Err(Error::InvalidPrefix("a token is not in the vocabulary"));
    }
    if answer.tokens.iter().any(|token| is_unknown(&token)) {
        return Ok(Some(Fault::UnknownToken));
    }
    if answered > request.max_tokens as usize {
        return Ok(Some(Fault::TooLong));
    }
    if prompt_tokens + answered > context {
        return Err(Error::PromptTooLong {
            tokens: u32::try_from(prompt_tokens + answered).unwrap_or(u32::MAX),
            context: u32::try_from(context).unwrap_or(u32::MAX),
        });
    }
    let room = (request.max_tokens as usize).min(context - prompt_tokens);
    let telling = Telling::new(request.stop.clone(), skip_space, room);
    let told = tell(request, vocabulary, telling)?;
    let proof = request.proof.as_ref();
    let fits = |bytes: usize| bytes == proof::bytes_of(answer.tokens.len());
    Ok(match told {
        Told::On => Some(Fault::GoesOnAfterEnd),
        Told::Ended(reason, _) if reason != Some(answer.ended) => Some(Fault::EndsFalsely),
        Told::Ended(_, text) if text != answer.text => Some(Fault::TextDiffers),
        _ if answer.input_tokens as usize != prompt_tokens => Some(Fault::InputMiscounted),
        _ if proof.is_some_and(|proof| !fits(proof.0.len())) => Some(Fault::NoProof),
        _ => None,
    })
}

/// What an answer's tokens say.
enum Told {
    /// More than one answer.
    On,
    /// This text behind the prefix, and why the answer ended there, if it did.
    Ended(Option<EndReason>, String),
}

fn tell(
    request: &CheckText,
    vocabulary: &impl Vocabulary,
    mut telling: Telling,
) -> Result<Told, Error> {
    let mut ended = None;
    for &token in &request.prefix {
        if ended.is_some() {
            let after = "the answer ends before its last token";
            return Err(Error::InvalidPrefix(after));
        }
        (_, ended) = telling.push(vocabulary, token);
    }
    let mut text = String::new();
    for &token in &request.answer.tokens {
        if ended.is_some() {
            return Ok(Told::On);
        }
        let shown;
        (shown, ended) = telling.push(vocabulary, token);
        text.push_str(&shown);
    }
    text.push_str(&telling.finish());
    Ok(Told::Ended(ended, text))
}

/// Figures with nothing in them but a fault, if there is one.
pub(crate) fn only(request: &CheckText, fault: Option<Fault>) -> TextFigures {
    TextFigures {
        greedy: request.sampling.temperature == 0.0,
        fault,
        ..TextFigures::default()
    }
}

/// What is found token by token.
#[derive(Debug)]
pub(crate) struct Findings {
    clip: f64,
    /// Whether the last token is said to end the answer.
    stops: bool,
    tokens: usize,
    figures: TextFigures,
    comparison: Option<Comparison>,
}

impl Findings {
    /// Of an answer without fault.
    pub(crate) fn new(request: &CheckText) -> Self {
        let tokens = request.answer.tokens.len();
        let proof = request.proof.clone();
        Self {
            clip: request.clip,
            stops: request.answer.ended == EndReason::Stop,
            tokens,
            figures: only(request, None),
            comparison: proof.and_then(|proof| Comparison::new(proof, tokens)),
        }
    }

    /// Whether the states that tokens are drawn from are looked at.
    pub(crate) fn compares(&self) -> bool {
        self.comparison.is_some()
    }

    /// Begins from the first token again.
    pub(crate) fn begin_anew(&mut self) {
        self.figures.margins.clear();
        self.figures.fault = None;
        if let Some(comparison) = &mut self.comparison {
            comparison.begin_anew();
        }
    }

    /// Takes what was found of one more token: its margin, and the state that it would
    /// be drawn from here, if states are compared.
    pub(crate) fn push(&mut self, margin: Margin, state: Option<&[bf16]>) {
        self.figures.margins.push(margin.clipped(self.clip) as f32);
        // An end that no rounding explains: one token is all that a text cut short shows.
        let is_last = self.figures.margins.len() == self.tokens;
        if is_last && self.stops && margin.logits >= self.clip {
            self.figures.fault = Some(Fault::EndsFalsely);
        }
        if let (Some(comparison), Some(state)) = (&mut self.comparison, state) {
            comparison.push(state);
        }
    }

    /// All of it.
    pub(crate) fn finish(self) -> TextFigures {
        let chunks = self.comparison.map(Comparison::finish);
        TextFigures {
            chunks: chunks.unwrap_or_default(),
            ..self.figures
        }
    }
}
