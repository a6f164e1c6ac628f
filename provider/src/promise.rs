//! How fast a provider says it is: measured with all slots busy, discounted so that
//! it can be kept, and kept up to date by the jobs it does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infernet_engine::{Compute, Embed, Engine, Generate, ModelInfo, Standing, Step};
use infernet_protocol::bounds::MAX_BLOB_PAYLOAD_BYTES;
use infernet_protocol::event::Promise;
use infernet_protocol::inference::{ModelId, Prompt, Sampling, Task};
use infernet_protocol::tensor::{Tensor, tokens};
use tokio::time::{Instant, timeout};

/// The share of the measured speed that is promised: the rest covers noise, a
/// neighbour on the same machine, and the way to the buyer.
const KEPT_SHARE: f32 = 0.8;

/// How much the newest job counts in the moving average.
const NEWEST_SHARE: f32 = 0.2;

/// Tokens drawn to warm up: enough for a speed, few enough for a slow machine.
const WARM_UP_TOKENS: u32 = 16;

/// Tokens of those beside which it is measured, which nobody reads: an engine goes so
/// far ahead of its reader, and the measurement takes no longer.
const COMPANION_TOKENS: u32 = infernet_engine::MAX_AHEAD as u32;

/// What is read to warm up: about as long as a short question with its template.
const WARM_UP_PROMPT: &str = "The sea is never still, and those who live beside it learn early that its moods \
                              decide what a day will bring. Every morning they look at the water and";

/// How long a warm-up may be silent. Its first step also pays for pages of a
/// model that are read from disk.
const WARM_UP_SILENCE: Duration = Duration::from_secs(60);

/// Lengths of a module's free dimensions that are tried to warm up.
const WARM_UP_LENGTHS: [u64; 3] = [1, 8, 32];

/// Bytes of tensors that have room in a blob, as base64.
const MAX_DATA_BYTES: u64 = MAX_BLOB_PAYLOAD_BYTES as u64 / 4 * 3;

/// Tokens after the first from which a job's speed counts; fewer say too little.
const MIN_TOKENS: u64 = 8;

/// How fast one piece of work went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Milliseconds from the engine's start to the first token, or to the end
    /// of work that is not streamed.
    pub first_token_ms: u64,
    /// Tokens a second after that, if there were enough to tell; of what comes
    /// whole, tokens of input.
    pub tokens_per_s: Option<f32>,
}

impl Pace {
    /// The pace of `tokens` of output between these instants.
    pub fn of(started: Instant, first: Instant, last: Instant, tokens: u64) -> Self {
        let after_first = tokens.saturating_sub(1);
        let seconds = last.duration_since(first).as_secs_f32();
        Self {
            first_token_ms: milliseconds(first.duration_since(started)),
            tokens_per_s: (after_first >= MIN_TOKENS && seconds > 0.0)
                .then(|| after_first as f32 / seconds),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Why a model cannot be sold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not work.
    #[error("{model} does not work: {reason}")]
    Broken {
        /// The model's name.
        model: String,
        /// What went wrong.
        reason: String,
    },
}

#[derive(Debug, Clone, Copy)]
struct Average {
    first_token_ms: f32,
    tokens_per_s: f32,
}

/// What is promised of each model. Clones share it.
#[derive(Debug, Clone)]
pub struct Promises {
    averages: Arc<Mutex<HashMap<ModelId, Average>>>,
    /// What was measured beside others. Jobs that had the machine to themselves do not
    /// make the promise any better than this.
    beside_others: Arc<Mutex<HashMap<ModelId, Average>>>,
    max_speed: Option<f32>,
    fixed: Option<Promise>,
}

impl Promises {
    /// No measurements yet. Speeds over `max_speed` are not promised; `fixed`
    /// is promised instead of anything measured.
    pub fn new(max_speed: Option<f32>, fixed: Option<Promise>) -> Self {
        Self {
            averages: Arc::default(),
            beside_others: Arc::default(),
            max_speed,
            fixed,
        }
    }

    /// Measures every model once beside so many other jobs, unless the promise is
    /// fixed.
    ///
    /// # Errors
    /// A model that does not produce anything.
    pub async fn measure(&self, engine: &dyn Engine, others: u32) -> Result<(), Error> {
        if self.fixed.is_some() {
            return Ok(());
        }
        for model in engine.models() {
            let others = match model.task {
                Task::TextGeneration => others,
                Task::Embedding | Task::Tensors | Task::Verify => 0,
            };
            let pace = warm_up(engine, model, others).await?;
            tracing::info!(
                model = model.name,
                first_token_ms = pace.first_token_ms,
                tokens_per_s = pace.tokens_per_s,
                others,
                "warmed up"
            );
            self.learn(&model.id, pace);
            if others > 0
                && let Some(average) = lock(&self.averages).get(&model.id)
            {
                lock(&self.beside_others).insert(model.id, *average);
            }
        }
        Ok(())
    }

    /// Takes a job's pace into the average.
    pub fn learn(&self, model: &ModelId, pace: Pace) {
        let mut averages = lock(&self.averages);
        let newest_first = pace.first_token_ms as f32;
        match averages.get_mut(model) {
            Some(average) => {
                average.first_token_ms = blend(average.first_token_ms, newest_first);
                if let Some(speed) = pace.tokens_per_s {
                    average.tokens_per_s = blend(average.tokens_per_s, speed);
                }
            }
            None => {
                let average = Average {
                    first_token_ms: newest_first,
                    tokens_per_s: pace.tokens_per_s.unwrap_or(1.0),
                };
                averages.insert(*model, average);
            }
        }
    }

    /// What can be promised of a model.
    pub fn of(&self, model: &ModelId) -> Promise {
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        let mut average = lock(&self.averages).get(model).copied().unwrap_or(Average {
            first_token_ms: 1_000.0,
            tokens_per_s: 1.0,
        });
        if let Some(beside) = lock(&self.beside_others).get(model) {
            average.first_token_ms = average.first_token_ms.max(beside.first_token_ms);
            average.tokens_per_s = average.tokens_per_s.min(beside.tokens_per_s);
        }
        let speed = average.tokens_per_s * KEPT_SHARE;
        Promise {
            // A float cast saturates; the average is never negative.
            first_token_ms: (average.first_token_ms / KEPT_SHARE).ceil() as u64,
            tokens_per_s: round(self.max_speed.map_or(speed, |most| speed.min(most))),
        }
    }
}

fn lock(averages: &Mutex<HashMap<ModelId, Average>>) -> MutexGuard<'_, HashMap<ModelId, Average>> {
    averages.lock().unwrap_or_else(PoisonError::into_inner)
}

fn blend(average: f32, newest: f32) -> f32 {
    average + NEWEST_SHARE * (newest - average)
}

/// A tenth of a token a second is as exact as anybody reads.
fn round(speed: f32) -> f32 {
    (speed * 10.0).round() / 10.0
}

async fn warm_up(engine: &dyn Engine, model: &ModelInfo, others: u32) -> Result<Pace, Error> {
    let outcome = match model.task {
        Task::TextGeneration => generate_beside(engine, model, others).await,
        Task::Embedding => embed(engine, model).await,
        Task::Tensors => compute(engine, model).await,
        // No model does that of itself: it is done with one that writes or embeds.
        Task::Verify => Err("the engine has no model for checks".to_owned()),
    };
    outcome.map_err(|reason| Error::Broken {
        model: model.name.clone(),
        reason,
    })
}

/// Draws some tokens while so many others are under way: what a buyer gets who comes
/// when all slots but one are taken.
async fn generate_beside(
    engine: &dyn Engine,
    model: &ModelInfo,
    others: u32,
) -> Result<Pace, String> {
    let mut companions = Vec::new();
    for number in 1..=others {
        let request = Generate {
            max_tokens: COMPANION_TOKENS,
            ..warm_up_request(model, number)
        };
        // An engine that takes no more computes no more together.
        companions.extend(engine.generate(request));
    }
    for companion in &mut companions {
        let first = async { while let Some(Step::Started { .. }) = companion.next().await {} };
        // One that says nothing is no company; what is sold is measured below.
        let _ = timeout(WARM_UP_SILENCE, first).await;
    }
    generate(engine, warm_up_request(model, 0)).await
}

/// Each number is another customer with another prompt: none has its beginning
/// computed by an earlier one.
fn warm_up_request(model: &ModelInfo, number: u32) -> Generate {
    let prompt = match number {
        0 => WARM_UP_PROMPT.to_owned(),
        number => format!("{number}. {WARM_UP_PROMPT}"),
    };
    Generate {
        model: model.id,
        prompt: Prompt::Text(prompt),
        sampling: Sampling::default(),
        max_tokens: WARM_UP_TOKENS,
        stop: vec![],
        prefix: vec![],
        prove: false,
        standing: Standing {
            customer: number.into(),
            price: 0,
        },
    }
}

/// Draws some tokens. A generation that breaks off behind its first token is
/// slow, not useless: its buyers will be told.
async fn generate(engine: &dyn Engine, request: Generate) -> Result<Pace, String> {
    let started = Instant::now();
    let mut generation = engine.generate(request).map_err(|e| e.to_string())?;
    let (mut first, mut last, mut tokens) = (None, started, 0);
    let mut broke = String::from("it produced nothing");
    while let Ok(Some(step)) = timeout(WARM_UP_SILENCE, generation.next()).await {
        match step {
            Step::Started { .. } => {}
            Step::Token { .. } => {
                last = Instant::now();
                first.get_or_insert(last);
                tokens += 1;
            }
            Step::Ended { .. } => break,
            Step::Failed(error) => broke = error.to_string(),
        }
    }
    let first = first.ok_or(broke)?;
    Ok(Pace::of(started, first, last, tokens))
}

async fn embed(engine: &dyn Engine, model: &ModelInfo) -> Result<Pace, String> {
    let started = Instant::now();
    let request = Embed {
        model: model.id,
        texts: vec![WARM_UP_PROMPT.into()],
    };
    let embedding = engine.embed(request).map_err(|e| e.to_string())?;
    let made = timeout(WARM_UP_SILENCE, embedding.wait()).await;
    let made = made.map_err(|_| "it produced nothing".to_owned())?;
    let tokens = made.map_err(|e| e.to_string())?.input_tokens;
    Ok(whole_pace(started, tokens.into()))
}

/// Runs a module on zeros. Where lengths are free, some modules take no short
/// ones.
async fn compute(engine: &dyn Engine, model: &ModelInfo) -> Result<Pace, String> {
    let interface = model.interface.as_ref();
    let zeros = |free| interface.and_then(|interface| interface.zeros(free, MAX_DATA_BYTES));
    let mut broke = String::from("its inputs have no room in a blob");
    for inputs in WARM_UP_LENGTHS.into_iter().filter_map(zeros) {
        let started = Instant::now();
        let input_tokens = tokens(&inputs);
        match compute_once(engine, model, inputs).await {
            Ok(()) => return Ok(whole_pace(started, input_tokens)),
            Err(error) => broke = error,
        }
    }
    Err(broke)
}

async fn compute_once(
    engine: &dyn Engine,
    model: &ModelInfo,
    inputs: Vec<Tensor>,
) -> Result<(), String> {
    let model = model.id;
    let computation = engine.compute(Compute { model, inputs });
    let computation = computation.map_err(|e| e.to_string())?;
    let made = timeout(WARM_UP_SILENCE, computation.wait()).await;
    let outputs = made.map_err(|_| "it produced nothing".to_owned())?;
    let outputs = outputs.map_err(|e| e.to_string())?;
    let bytes: usize = outputs.iter().map(|tensor| tensor.data.len()).sum();
    match bytes as u64 <= MAX_DATA_BYTES {
        true => Ok(()),
        false => Err("its outputs have no room in a blob".into()),
    }
}

/// The pace of what comes whole, of so many tokens of input, until now.
pub fn whole_pace(started: Instant, input_tokens: u64) -> Pace {
    let took = started.elapsed();
    Pace {
        first_token_ms: milliseconds(took),
        tokens_per_s: Some(input_tokens as f32 / took.as_secs_f32().max(0.001)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_engine::{Script, ScriptedEngine};

    use super::*;

    const MODEL: ModelId = ModelId::from_bytes([7; 32]);

    fn pace(first_token_ms: u64, tokens_per_s: f32) -> Pace {
        Pace {
            first_token_ms,
            tokens_per_s: Some(tokens_per_s),
        }
    }

    #[test]
    fn less_is_promised_than_was_measured() {
        let promises = Promises::new(None, None);
        promises.learn(&MODEL, pace(80, 100.0));
        let promise = promises.of(&MODEL);
        assert_eq!((promise.first_token_ms, promise.tokens_per_s), (100, 80.0));
    }

    #[test]
    fn later_jobs_move_the_average() {
        let promises = Promises::new(None, None);
        promises.learn(&MODEL, pace(100, 100.0));
        for _ in 0..50 {
            promises.learn(&MODEL, pace(400, 50.0));
        }
        let promise = promises.of(&MODEL);
        assert!((39.0..=41.0).contains(&promise.tokens_per_s), "{promise:?}");
        assert!((490..=501).contains(&promise.first_token_ms), "{promise:?}");
    }

    #[test]
    fn no_more_is_promised_than_is_sold() {
        let promises = Promises::new(Some(12.0), None);
        promises.learn(&MODEL, pace(10, 100.0));
        assert_eq!(promises.of(&MODEL).tokens_per_s, 12.0);
    }

    #[tokio::test]
    async fn idle_hours_promise_no_more_than_was_measured_beside_others() {
        let engine = ScriptedEngine::new(Script {
            tokens_per_second: 400.0,
            ..Script::default()
        });
        let promises = Promises::new(None, None);
        promises.measure(&engine, 2).await.unwrap();
        let model = engine.models()[0].id;
        let measured = promises.of(&model);
        for _ in 0..50 {
            promises.learn(&model, pace(0, 100_000.0));
        }
        assert_eq!(promises.of(&model), measured);
        for _ in 0..50 {
            promises.learn(&model, pace(10_000, 10.0));
        }
        assert!(promises.of(&model).tokens_per_s < measured.tokens_per_s);
    }

    #[tokio::test]
    async fn few_tokens_say_nothing_of_speed() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(Pace::of(start, at(50), at(60), 2).tokens_per_s, None);
        let long = Pace::of(start, at(50), at(1_050), 11);
        assert_eq!((long.first_token_ms, long.tokens_per_s), (50, Some(10.0)));
    }
}
