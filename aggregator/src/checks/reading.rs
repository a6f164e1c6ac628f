//! Whether a checker's verdict can be what it says. A checker that did not look makes
//! its figures up; those that contradict the result or each other convict it.

use infernet_protocol::event::{Judgement, Signed, Verdict};
use infernet_protocol::inference::EndReason;
use infernet_protocol::payload::Product;
use infernet_protocol::verification::{Figures, Texts, Thresholds};

use crate::Bought;

/// A verdict whose figures were read.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub verdict: Signed<Verdict>,
    pub figures: Figures,
}

impl Read {
    /// The figures of texts, if it is about texts.
    pub const fn texts(&self) -> Option<&Texts> {
        match &self.figures {
            Figures::Texts(texts) => Some(texts),
            Figures::Vectors(_) => None,
        }
    }
}

/// Reads a verdict on this work; none if it is about something else or contradicts
/// itself.
pub(super) fn read(
    verdict: &Signed<Verdict>,
    work: &Bought,
    thresholds: &Thresholds,
) -> Option<Read> {
    let is_about_it = verdict.result == work.result.id()
        && verdict.award == work.award.id()
        && verdict.provider == work.provider
        && verdict.model == work.model;
    let figures = Figures::of(verdict).ok()?;
    let is_sound = is_about_it
        && counts(&figures, &work.product, verdict.judgement)
        && figures.hold_together(thresholds)
        && figures.judge(thresholds) == verdict.judgement;
    is_sound.then(|| Read {
        verdict: verdict.clone(),
        figures,
    })
}

/// Whether as much was measured as there is. With what is certainly wrong, a checker
/// need not go on.
fn counts(figures: &Figures, product: &Product, judgement: Judgement) -> bool {
    if judgement == Judgement::Rejected {
        return true;
    }
    match (figures, product) {
        (Figures::Texts(texts), Product::Shard { answers }) => {
            let done = answers.iter().filter(|answer| was_done(answer.ended));
            texts.tokens() == done.map(|answer| answer.tokens.len() as u64).sum::<u64>()
        }
        (Figures::Texts(texts), Product::TextGeneration { tokens, .. }) => {
            texts.tokens() == tokens.len() as u64
        }
        (Figures::Vectors(vectors), Product::Embedding { vectors: all }) => {
            u64::from(vectors.vectors) == all.len() as u64
        }
        _ => false,
    }
}

/// Whether an answer is one: what failed, or was stopped, is neither paid nor checked.
pub(super) const fn was_done(ended: EndReason) -> bool {
    matches!(ended, EndReason::Stop | EndReason::Length)
}
