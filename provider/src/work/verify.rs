//! Checking results of others: computing them again, and judging.

use std::sync::Arc;

use futures::future::try_join_all;
use infernet_engine::{CheckText, Embed, Engine, Error as EngineError, Standing};
use infernet_node::clock;
use infernet_protocol::event::{JobResult, Signed, V1, Verdict};
use infernet_protocol::payload::{Product, Vector};
use infernet_protocol::verification::{
    Fault, Figures, TextFigures, Texts, Thresholds, VectorFigures,
};
use nostr::Event;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::{BUSY_PAUSE, FIRST_TOKEN_PATIENCE, Made};
use crate::admission::{Case, Claim, TextClaim};
use crate::catalogue::Item;
use crate::shop::Shop;

/// What checks.
pub struct Checker {
    shop: Arc<Shop>,
    item: Item,
    thresholds: Thresholds,
    standing: Standing,
    /// As many texts as the engine reads side by side.
    places: Semaphore,
}

impl Checker {
    /// A checker with this model, for whom `standing` says.
    pub fn new(shop: Arc<Shop>, item: Item, thresholds: Thresholds, standing: Standing) -> Self {
        let capacity = shop.engine.capacity(&item.model.id);
        let side_by_side = capacity.map_or(1, |capacity| capacity.slots.max(1));
        Self {
            shop,
            item,
            thresholds,
            standing,
            places: Semaphore::new(side_by_side as usize),
        }
    }

    /// Judges them all; `input_tokens` are those that are read for it.
    ///
    /// # Errors
    /// What went wrong in the computation: then nothing is said of any.
    pub async fn judge_all(self, cases: Vec<Case>, input_tokens: u64) -> Result<Made, EngineError> {
        let verdicts = cases.into_iter().map(|case| self.judge(case));
        let verdicts = try_join_all(verdicts).await?;
        Ok(Made::of(Product::Verify { verdicts }, input_tokens))
    }

    async fn judge(&self, case: Case) -> Result<Event, EngineError> {
        let figures = match case.claim {
            Claim::Texts(texts) => self.texts(texts).await?,
            Claim::Vectors { texts, vectors } => {
                let claimed = case.result.usage.input_tokens;
                Figures::Vectors(self.vectors(texts, &vectors, claimed).await?)
            }
            Claim::Missing => self.missing(),
        };
        Ok(self.verdict(&case.result, &figures))
    }

    async fn texts(&self, texts: Vec<TextClaim>) -> Result<Figures, EngineError> {
        let figures = try_join_all(texts.into_iter().map(|text| self.text(text))).await?;
        Ok(Figures::Texts(Texts::of(&figures, &self.thresholds)))
    }

    async fn text(&self, claim: TextClaim) -> Result<TextFigures, EngineError> {
        if claim.fault.is_some() {
            return Ok(TextFigures {
                greedy: claim.asked.sampling.temperature == 0.0,
                fault: claim.fault,
                ..TextFigures::default()
            });
        }
        // It is never closed.
        let _place = self.places.acquire().await;
        let is_greedy = claim.asked.sampling.temperature == 0.0;
        let margins = match is_greedy {
            true => self.thresholds.greedy,
            false => self.thresholds.sampled,
        };
        let request = CheckText {
            model: self.item.model.id,
            prompt: claim.asked.prompt,
            sampling: claim.asked.sampling,
            max_tokens: claim.asked.max_tokens,
            stop: claim.asked.stop,
            prefix: claim.asked.prefix,
            answer: claim.answer,
            proof: claim.proof,
            clip: margins.clip,
            standing: self.standing,
        };
        let checking = self
            .when_free(|engine| engine.check(request.clone()))
            .await?;
        checking.wait().await
    }

    /// Embeds once more, and compares.
    async fn vectors(
        &self,
        texts: Vec<String>,
        claimed: &[Vector],
        input_tokens: u64,
    ) -> Result<VectorFigures, EngineError> {
        let model = self.item.model.id;
        let texts = || Embed {
            model,
            texts: texts.clone(),
        };
        let embedding = self.when_free(|engine| engine.embed(texts())).await?;
        let ours = embedding.wait().await?;
        let is_counted = u64::from(ours.input_tokens) == input_tokens;
        let pairs = ours.vectors.iter().zip(claimed);
        let cosines = pairs.map(|(ours, theirs)| cosine(ours, &theirs.0));
        Ok(VectorFigures {
            // Bounded by MAX_TEXTS.
            vectors: claimed.len() as u32,
            least_cosine: cosines.fold(1.0, f64::min),
            fault: (!is_counted).then_some(Fault::InputMiscounted),
        })
    }

    /// There is no answer to compare with.
    fn missing(&self) -> Figures {
        let figures = TextFigures {
            fault: Some(Fault::Missing),
            ..TextFigures::default()
        };
        Figures::Texts(Texts::of(&[figures], &self.thresholds))
    }

    /// Gives work to the engine, once it has a place.
    async fn when_free<T>(
        &self,
        give: impl Fn(&dyn Engine) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let patience = Instant::now() + FIRST_TOKEN_PATIENCE;
        loop {
            match give(&*self.shop.engine) {
                Err(EngineError::Busy) if Instant::now() < patience => sleep(BUSY_PAUSE).await,
                given => return given,
            }
        }
    }

    fn verdict(&self, result: &Signed<JobResult>, figures: &Figures) -> Event {
        let verdict = Verdict {
            v: V1,
            job: result.job,
            award: result.award,
            result: result.id(),
            provider: result.author(),
            model: result.model,
            judgement: figures.judge(&self.thresholds),
            method: figures.method().to_owned(),
            figures: figures.to_map(),
            dtype: self.item.model.dtype,
            engine: self.shop.engine_version.clone(),
        };
        self.shop.sign(&verdict, clock::now())
    }
}

/// The cosine of the angle between two vectors; −1 for what cannot be compared.
fn cosine(ours: &[f32], theirs: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let lengths = (dot(ours, ours) * dot(theirs, theirs)).sqrt();
    let cosine = dot(ours, theirs) / lengths;
    match ours.len() == theirs.len() && cosine.is_finite() {
        true => cosine.clamp(-1.0, 1.0),
        false => -1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_cannot_be_compared_are_far_apart() {
        assert!((cosine(&[1.0, 0.0], &[2.0, 0.0]) - 1.0).abs() < 1e-9);
        assert!(cosine(&[1.0, 0.0], &[0.0, 1.0]).abs() < 1e-9);
        for theirs in [
            &[][..],
            &[1.0],
            &[0.0, 0.0],
            &[f32::NAN, 1.0],
            &[f32::INFINITY, 0.0],
        ] {
            assert_eq!(cosine(&[1.0, 0.0], theirs), -1.0, "{theirs:?}");
        }
    }
}
