//! A shard: several texts, generated side by side and given back together.

use futures::{StreamExt, stream};
use infernet_engine::{Error as EngineError, Standing, Step};
use infernet_protocol::inference::{EndReason, ModelId};
use infernet_protocol::payload::{Generate, Generated, Product, Proof};
use tokio::time::{Instant, sleep};

use super::{BUSY_PAUSE, FIRST_TOKEN_PATIENCE, Made, News, Paced};
use crate::output::public_words;
use crate::shop::{SharedEngine, plain_reason};

/// What all texts of a shard have in common.
#[derive(Debug)]
pub struct Shard {
    /// What computes.
    pub engine: SharedEngine,
    /// With which model.
    pub model: ModelId,
    /// Tokens a second that one text gets at most.
    pub max_speed: Option<f32>,
    /// Whether to say how they were computed.
    pub prove: bool,
    /// For whom.
    pub standing: Standing,
}

/// What came of one text.
type Outcome = Result<(Generated, Option<Proof>), EngineError>;

impl Shard {
    /// Generates them all, as many side by side as the engine computes together. A text that
    /// cannot be generated says so itself.
    ///
    /// # Errors
    /// The engine has stopped, or none of the texts came to anything though they might have.
    pub async fn generate(self, requests: Vec<Generate>) -> Result<Made, EngineError> {
        let capacity = self.engine.capacity(&self.model);
        let side_by_side = capacity.map_or(1, |capacity| capacity.slots.max(1)) as usize;
        let texts = stream::iter(requests.into_iter().enumerate());
        let texts = texts.map(|(at, request)| self.numbered(at, request));
        let mut outcomes: Vec<(usize, Outcome)> =
            texts.buffer_unordered(side_by_side).collect().await;
        outcomes.sort_unstable_by_key(|(at, _)| *at);
        let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome);
        gathered(outcomes.collect(), self.prove)
    }

    async fn numbered(&self, at: usize, request: Generate) -> (usize, Outcome) {
        (at, self.generate_one(request).await)
    }

    async fn generate_one(&self, request: Generate) -> Outcome {
        let mut running = self.begin(&request).await?;
        let (mut text, mut tokens, mut input_tokens) = (String::new(), vec![], 0);
        loop {
            match running.next().await {
                News::Step(Step::Started { input_tokens: read }) => input_tokens = read,
                News::Step(Step::Token { id, text: more }) => {
                    tokens.push(id);
                    text.push_str(&more);
                }
                News::Step(Step::Ended {
                    reason: ended @ (EndReason::Stop | EndReason::Length),
                    text: more,
                    proof,
                }) => {
                    text.push_str(&more);
                    let generated = Generated {
                        text,
                        tokens,
                        input_tokens,
                        ended,
                        error: None,
                    };
                    return Ok((generated, proof));
                }
                News::Step(Step::Failed(error)) => return Err(error),
                News::Step(Step::Ended { .. }) | News::Stuck | News::Made(_) => {
                    return Err(EngineError::Stopped);
                }
            }
        }
    }

    /// Gives a text to the engine, once it has a place.
    async fn begin(&self, request: &Generate) -> Result<Paced, EngineError> {
        let patience = Instant::now() + FIRST_TOKEN_PATIENCE;
        loop {
            let asked = super::generation(request, self.model, self.prove, self.standing);
            match self.engine.generate(asked) {
                Err(EngineError::Busy) if Instant::now() < patience => sleep(BUSY_PAUSE).await,
                generation => return Ok(Paced::new(generation?, self.max_speed)),
            }
        }
    }
}

/// Puts a shard together, or fails it as a whole where that is no text's fault.
fn gathered(outcomes: Vec<Outcome>, prove: bool) -> Result<Made, EngineError> {
    let is_hopeless = outcomes.iter().all(Result::is_err);
    let (mut answers, mut proofs) = (vec![], vec![]);
    for outcome in outcomes {
        let (answer, proof) = match outcome {
            Err(error @ (EngineError::Stopped | EngineError::Busy)) => return Err(error),
            Err(error @ EngineError::Computation(_)) if is_hopeless => return Err(error),
            Err(error) => (failed(&error), None),
            Ok(answered) => answered,
        };
        answers.push(answer);
        proofs.push(proof.unwrap_or(Proof(vec![])));
    }
    let input_tokens = answers.iter().map(|answer| u64::from(answer.input_tokens));
    Ok(Made {
        input_tokens: input_tokens.sum(),
        output_tokens: answers
            .iter()
            .map(|answer| answer.tokens.len() as u64)
            .sum(),
        product: Product::Shard { answers },
        proofs: if prove { proofs } else { vec![] },
    })
}

fn failed(error: &EngineError) -> Generated {
    Generated {
        text: String::new(),
        tokens: vec![],
        input_tokens: 0,
        ended: EndReason::Failed,
        error: Some(plain_reason(&public_words(error))),
    }
}
