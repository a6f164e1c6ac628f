//! One piece of work in the engine: started, paced, watched.

mod shard;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use infernet_engine::{
    Compute, Embed, Engine, Error as EngineError, Generate, Generation, Standing, Step,
};
use infernet_protocol::inference::ModelId;
use infernet_protocol::payload::{Generate as Asked, Product, Proof, Vector, Work};
use infernet_protocol::tensor::{Tensor, tokens};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::shard::Shard;
use self::verify::Checker;
use crate::admission::Admitted;
use crate::shop::Shop;

/// How long the engine may take to the first token, reading a long prompt on a
/// slow machine.
const FIRST_TOKEN_PATIENCE: Duration = Duration::from_secs(120);

/// How long the engine may take from one token to the next. Slower is stuck.
const NEXT_TOKEN_PATIENCE: Duration = Duration::from_secs(15);

/// How long work waits that the engine has no place for, until it asks again.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How far a paced stream may catch up after it was held up.
const CATCH_UP: Duration = Duration::from_millis(100);

/// What the engine says.
#[derive(Debug)]
pub enum News {
    /// A step of a generation.
    Step(Step),
    /// Work that comes whole is done, or failed.
    Made(Result<Made, EngineError>),
    /// It has said nothing for too long.
    Stuck,
}

/// Work that is in the engine, or none.
pub enum Running {
    /// None: it waits, or has ended.
    Nothing,
    /// A generation.
    Generation(Paced),
    /// Work that comes whole: vectors, tensors, shards, verdicts.
    Whole(BoxFuture<'static, Result<Made, EngineError>>),
}

/// What was made in one go.
#[derive(Debug)]
pub struct Made {
    /// All of it.
    pub product: Product,
    /// How its texts were computed, if that was asked for.
    pub proofs: Vec<Proof>,
    /// What it was made of, in tokens.
    pub input_tokens: u64,
    /// How many tokens were drawn.
    pub output_tokens: u64,
}

impl Made {
    /// What draws no tokens.
    const fn of(product: Product, input_tokens: u64) -> Self {
        Self {
            product,
            proofs: vec![],
            input_tokens,
            output_tokens: 0,
        }
    }
}

/// A generation whose tokens come no faster than they are sold.
#[derive(Debug)]
pub struct Paced {
    generation: Generation,
    interval: Duration,
    /// When the next token may be read.
    due: Instant,
    /// When the engine counts as stuck.
    stuck_at: Instant,
    /// What the engine had done for it when that was looked at last.
    progress: u64,
}

impl Running {
    /// Gives an award's work to the engine. Tokens are read no faster than they are
    /// sold.
    ///
    /// # Errors
    /// The engine's refusal.
    pub fn start(shop: &Arc<Shop>, admitted: &mut Admitted) -> Result<Self, EngineError> {
        let (engine, model) = (&*shop.engine, admitted.item.model.id);
        let award = &admitted.award;
        let standing = shop.standing(&award.author(), award.price);
        match &admitted.work {
            Work::TextGeneration(asked) => {
                let request = generation(asked, model, admitted.prove, standing);
                let paced = Paced::new(engine.generate(request)?, shop.options.max_speed);
                Ok(Self::Generation(paced))
            }
            Work::Embedding { texts } => embed(engine, model, texts.clone()),
            Work::Tensors { inputs } => compute(engine, model, inputs.clone()),
            Work::Shard { requests } => {
                let shard = Shard {
                    engine: shop.engine.clone(),
                    model,
                    max_speed: shop.options.max_speed,
                    prove: admitted.prove,
                    standing,
                };
                Ok(Self::Whole(Box::pin(shard.generate(requests.clone()))))
            }
            Work::Verify { thresholds, .. } => {
                let item = admitted.item.clone();
                let checker = Checker::new(shop.clone(), item, *thresholds, standing);
                let cases = std::mem::take(&mut admitted.cases);
                let read = admitted.input_tokens.into();
                Ok(Self::Whole(Box::pin(checker.judge_all(cases, read))))
            }
        }
    }

    /// It is read again after a pause, in which the engine could say nothing.
    pub fn resume(&mut self) {
        if let Self::Generation(paced) = self {
            paced.stuck_at = Instant::now().max(paced.due) + NEXT_TOKEN_PATIENCE;
        }
    }

    /// The engine's next news; none ever while there is no work. Nothing is lost
    /// when the future is dropped.
    pub async fn next(&mut self) -> News {
        match self {
            Self::Nothing => std::future::pending().await,
            Self::Generation(paced) => paced.next().await,
            Self::Whole(work) => News::Made(work.await),
        }
    }
}

/// A text as the engine is asked for it.
fn generation(asked: &Asked, model: ModelId, prove: bool, standing: Standing) -> Generate {
    Generate {
        model,
        prompt: asked.prompt.clone(),
        sampling: asked.sampling,
        max_tokens: asked.max_tokens,
        stop: asked.stop.clone(),
        prefix: asked.prefix.clone(),
        prove,
        standing,
    }
}

fn embed(engine: &dyn Engine, model: ModelId, texts: Vec<String>) -> Result<Running, EngineError> {
    let embedding = engine.embed(Embed { model, texts })?;
    Ok(Running::Whole(Box::pin(async {
        let made = embedding.wait().await?;
        let vectors = made.vectors.into_iter().map(Vector).collect();
        Ok(Made::of(
            Product::Embedding { vectors },
            made.input_tokens.into(),
        ))
    })))
}

fn compute(
    engine: &dyn Engine,
    model: ModelId,
    inputs: Vec<Tensor>,
) -> Result<Running, EngineError> {
    let input_tokens = tokens(&inputs);
    let computation = engine.compute(Compute { model, inputs })?;
    Ok(Running::Whole(Box::pin(async move {
        let outputs = computation.wait().await?;
        Ok(Made::of(Product::Tensors { outputs }, input_tokens))
    })))
}

impl Paced {
    fn new(generation: Generation, max_speed: Option<f32>) -> Self {
        let now = Instant::now();
        // The options have checked that the speed is a positive number.
        let interval = max_speed.map_or(Duration::ZERO, |speed| {
            Duration::try_from_secs_f32(1.0 / speed).unwrap_or(Duration::MAX)
        });
        Self {
            generation,
            interval,
            due: now,
            stuck_at: now + FIRST_TOKEN_PATIENCE,
            progress: 0,
        }
    }

    async fn next(&mut self) -> News {
        // A timer counts whole milliseconds: what is due is not held up for the next one.
        if self.due > Instant::now() {
            sleep_until(self.due).await;
        }
        let step = loop {
            match timeout_at(self.stuck_at, self.generation.next()).await {
                Ok(Some(step)) => break step,
                Ok(None) => break Step::Failed(EngineError::Stopped),
                // The engine works on others, or reads: the job's deadline counts alone.
                Err(_) if self.generation.is_waiting() || self.has_advanced() => {
                    self.stuck_at = Instant::now() + FIRST_TOKEN_PATIENCE;
                }
                Err(_) => return News::Stuck,
            }
        };
        if matches!(step, Step::Token { .. }) {
            self.has_advanced();
            self.schedule(Instant::now());
        }
        News::Step(step)
    }

    /// Whether the engine has done anything for it since this was asked last.
    fn has_advanced(&mut self) -> bool {
        let progress = self.generation.progress();
        progress != std::mem::replace(&mut self.progress, progress)
    }

    /// A token was read: sets when the next may be.
    fn schedule(&mut self, now: Instant) {
        let latest = now.checked_sub(CATCH_UP).unwrap_or(now);
        let far = now + Duration::from_secs(24 * 3_600);
        self.due = self
            .due
            .max(latest)
            .checked_add(self.interval)
            .unwrap_or(far);
        self.stuck_at = self.due.max(now) + NEXT_TOKEN_PATIENCE;
    }
}
