//! How providers and checkers misbehave.

use infernet_protocol::event::Judgement;
use infernet_protocol::inference::{EndReason, Prompt};
use infernet_protocol::payload::{Generate, Generated, Proof};
use infernet_protocol::verification::{Drawn, Fault, Figures, TextFigures, Texts, judge_text};

use super::toy::{Format, GENUINE, THRESHOLDS, Toy, generated, words};

/// How somebody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// The model that is sold, in a format that is honest.
    Honest(Format),
    /// Other weights.
    AnotherModel,
    /// The same weights, quantised.
    Quantised(Format),
    /// Quantised, and proven by one genuine pass over that text.
    ProvenGenuinely(Format),
    /// Text that no model said.
    MadeUp,
    /// The beginning of the answer, as if the model had stopped there.
    CutShort,
    /// The answer to another question.
    OldResult,
    /// The model did not read the whole prompt.
    PromptShortened,
    /// Another seed than the buyer's.
    OtherSeed,
    /// The first tokens honest, and the rest not.
    HonestAtFirst,
    /// Tokens of the model under another text.
    OtherText,
    /// No proof at all.
    Unproven,
}

impl Conduct {
    /// What comes back for a question, and its proof.
    pub fn answer(self, request: &Generate) -> (Generated, Option<Proof>) {
        let by = |toy: Toy, asked: &Generate| {
            let answer = toy.answer(asked);
            let proof = toy.prove(asked, &answer.tokens);
            (answer, proof)
        };
        let in_format = |format| Toy { format, ..GENUINE };
        let (answer, proof) = match self {
            Self::Honest(format) | Self::Quantised(format) => by(in_format(format), request),
            Self::AnotherModel => by(
                Toy {
                    weights: 2,
                    ..GENUINE
                },
                request,
            ),
            Self::ProvenGenuinely(format) => prove(request, in_format(format).answer(request)),
            Self::MadeUp => {
                let tokens = (0..request.max_tokens).map(|token| token * 7 + 1).collect();
                prove(request, generated(request, tokens, EndReason::Length))
            }
            Self::CutShort => {
                let mut tokens = GENUINE.answer(request).tokens;
                tokens.truncate(tokens.len() / 2);
                prove(request, generated(request, tokens, EndReason::Stop))
            }
            Self::OldResult => as_asked(request, by(GENUINE, &other(request, "another question"))),
            Self::PromptShortened => {
                let text = words(&request.prompt);
                let half = &text[..text.len() / 2];
                as_asked(request, by(GENUINE, &other(request, half)))
            }
            Self::OtherSeed => {
                let mut asked = request.clone();
                asked.sampling.seed += 1;
                by(GENUINE, &asked)
            }
            Self::HonestAtFirst => {
                let mut tokens = GENUINE.answer(request).tokens;
                tokens
                    .iter_mut()
                    .skip(request.max_tokens as usize / 2)
                    .for_each(|token| *token = 5);
                prove(request, generated(request, tokens, EndReason::Length))
            }
            Self::OtherText => {
                let (mut answer, proof) = by(GENUINE, request);
                answer.text = "Buy my other product.".into();
                (answer, proof)
            }
            Self::Unproven => return (GENUINE.answer(request), None),
        };
        (answer, Some(proof))
    }
}

/// The same, asked with other words.
fn other(request: &Generate, words: &str) -> Generate {
    Generate {
        prompt: Prompt::Text(words.into()),
        ..request.clone()
    }
}

/// An answer to something else, as if it were one to this.
fn as_asked(request: &Generate, (mut answer, proof): (Generated, Proof)) -> (Generated, Proof) {
    answer.input_tokens = generated(request, vec![], EndReason::Length).input_tokens;
    (answer, proof)
}

fn prove(request: &Generate, answer: Generated) -> (Generated, Proof) {
    let proof = GENUINE.prove(request, &answer.tokens);
    (answer, proof)
}

/// How somebody checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eye {
    /// It computes everything again.
    Honest,
    /// It accepts whatever comes, with figures as if it had looked.
    AcceptsAll,
    /// It rejects whatever comes.
    RejectsAll,
    /// It accepts whatever comes, and does not even count.
    Blind,
    /// It accepts, with the worst figures that are still accepted.
    Blackens,
    /// It accepts this cheat's work and checks others honestly: two who collude.
    Spares(nostr::PublicKey),
}

impl Eye {
    /// What it says of answers by this provider.
    pub fn look(
        self,
        provider: nostr::PublicKey,
        measured: &[TextFigures],
    ) -> (Figures, Judgement) {
        let honest = Texts::of(measured, &THRESHOLDS);
        match self {
            Self::Honest => (Figures::Texts(honest), judge_text(measured, &THRESHOLDS)),
            Self::Spares(friend) if friend != provider => Self::Honest.look(provider, measured),
            Self::AcceptsAll | Self::Spares(_) => {
                let tokens = honest.tokens();
                let sampled = Drawn {
                    answers: measured.len() as u64,
                    tokens,
                    exact: tokens,
                    ..Drawn::default()
                };
                let evidence = -(tokens as f64) / 100.0;
                let figures = Texts {
                    sampled,
                    evidence,
                    ..Texts::default()
                };
                (Figures::Texts(figures), Judgement::Accepted)
            }
            Self::Blackens => {
                let (tokens, margins) = (honest.tokens(), THRESHOLDS.sampled);
                let margin_sum = margins.accept * tokens as f64;
                let sampled = Drawn {
                    answers: measured.len() as u64,
                    tokens,
                    exact: tokens / 2,
                    margin_sum,
                    worst_mean: margins.accept,
                    worst_window: margins.accept,
                };
                let figures = Texts {
                    sampled,
                    evidence: margin_sum / 128.0 / margins.pooled,
                    ..Texts::default()
                };
                (Figures::Texts(figures), Judgement::Accepted)
            }
            Self::RejectsAll => {
                let mut figures = honest;
                figures.faults.insert(Fault::TextDiffers, 1);
                (Figures::Texts(figures), Judgement::Rejected)
            }
            Self::Blind => (Figures::Texts(Texts::default()), Judgement::Accepted),
        }
    }
}
