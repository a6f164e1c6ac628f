//! The port between those who sell inference and what computes it.

mod check;
mod compute;
mod score;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use infernet_protocol::inference::{Dtype, EndReason, ModelId, Prompt, Sampling, Task, TokenId};
use infernet_protocol::payload::Proof;
use infernet_protocol::tensor::Interface;
use tokio::sync::{mpsc, oneshot};

pub use check::{CheckText, Checking};
pub use compute::{Computation, Compute, MAX_TENSOR_BYTES};
pub use score::{Score, Scoring};

use crate::error::Error;
use crate::sampling;

/// The largest prompt taken, in bytes, all messages or texts together: a guard
/// for the tokenizer, far above what the context of any model here holds.
pub const MAX_PROMPT_BYTES: usize = 1 << 20;
/// Stop strings in one request: other interfaces allow 4; every token's text
/// is searched for each.
pub const MAX_STOP_STRINGS: usize = 16;
/// The longest stop string, in bytes: as much text may be held back.
pub const MAX_STOP_BYTES: usize = 256;
/// Texts in one request for embeddings, as in the widespread interfaces.
pub const MAX_TEXTS: usize = 2048;
/// Steps that an engine goes ahead of its reader: enough that neither waits for
/// the other, and no more than what a reader who pays as it reads may leave unpaid.
pub const MAX_AHEAD: usize = 64;

/// What computes: models that are loaded, and the requests they serve.
pub trait Engine: Send + Sync + 'static {
    /// The models that are loaded.
    fn models(&self) -> &[ModelInfo];

    /// What the models run on.
    fn hardware(&self) -> Hardware;

    /// How much it does at a time with a model; `None` of a model that it does not
    /// have.
    fn capacity(&self, model: &ModelId) -> Option<Capacity>;

    /// Name and version of the engine and of what it rests on.
    fn version(&self) -> &str;

    /// The length of a prompt in this model's tokens, with chat template and
    /// special tokens. Computes on the calling thread.
    ///
    /// # Errors
    /// Those of a prompt that [`Engine::generate`] would refuse.
    fn count_tokens(&self, model: &ModelId, prompt: &Prompt) -> Result<u32, Error>;

    /// Takes a text generation into the queue. Never blocks.
    ///
    /// # Errors
    /// [`Error::Busy`] when the queue is full, and whatever is wrong in the
    /// request itself. What only the tokenizer can tell comes as
    /// [`Step::Failed`].
    fn generate(&self, request: Generate) -> Result<Generation, Error>;

    /// Takes texts to embed into the queue. Never blocks.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    fn embed(&self, request: Embed) -> Result<Embedding, Error>;

    /// Takes a run of a module into the queue. Never blocks.
    ///
    /// # Errors
    /// As [`Engine::generate`]; [`Error::InvalidTensors`] where the inputs are
    /// not those of the module's interface.
    fn compute(&self, request: Compute) -> Result<Computation, Error>;

    /// Takes somebody's answer into the queue, to say how far it is from what this
    /// model would have answered. Never blocks.
    ///
    /// # Errors
    /// As [`Engine::generate`]. What is wrong in the answer is no error but a fault
    /// among the figures.
    fn check(&self, request: CheckText) -> Result<Checking, Error>;
}

/// A model that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its identity (`nips/models.md`).
    pub id: ModelId,
    /// What people call it: an alias, no identity.
    pub name: String,
    /// What it does.
    pub task: Task,
    /// Its family: `llama`, `bert`; `torchscript` for a module.
    pub architecture: String,
    /// How much it can hold, prompt and answer together, in tokens: what the model
    /// was made for, or what the cache has room for, if that is less.
    pub context: u32,
    /// What it is computed in.
    pub dtype: Dtype,
    /// How many weights it has.
    pub parameters: u64,
    /// The length of its vectors, where it makes vectors.
    pub embedding_width: Option<u32>,
    /// What it takes and gives, where it is a module.
    pub interface: Option<Interface>,
}

/// How much is done at a time with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Requests that are computed together.
    pub slots: u32,
    /// What the cache of keys and values holds, all requests together, in tokens; 0
    /// where there is none.
    pub cache_tokens: u64,
    /// What the cache takes, in bytes.
    pub cache_bytes: u64,
}

/// The kind of device that computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The machine's own processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// What the models run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// The kind of device.
    pub device: Device,
    /// The name its maker gave it.
    pub name: String,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// Processor threads that compute.
    pub threads: u32,
}

/// A text to generate.
#[derive(Clone)]
pub struct Generate {
    /// Which model.
    pub model: ModelId,
    /// What to answer or continue.
    pub prompt: Prompt,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The answer's length at most, in tokens, `prefix` and end token included.
    pub max_tokens: u32,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    /// The answer's tokens that were produced elsewhere. The answer goes on
    /// after them as if they had been produced here: same positions, same
    /// noise, same stop strings. Their text is not given again.
    pub prefix: Vec<TokenId>,
    /// Whether to say how it was computed when it ends.
    pub prove: bool,
    /// Whom it is for.
    pub standing: Standing,
}

/// How a request stands among those that are served beside it.
///
/// Customers share what the engine can do; a request's price weighs its customer's
/// share, up to sixteen times that of one who pays nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whom it is for; 0: nobody in particular.
    pub customer: u64,
    /// What it pays, in millisatoshis for a million tokens of output.
    pub price: u64,
}

/// How much more goes to who pays the highest price of all that are served than to who
/// pays nothing. A paying customer should hardly notice the others; one who pays
/// nothing should still be served.
const MAX_WEIGHT: f64 = 16.0;

impl Standing {
    /// What it weighs where the highest price is this: from 1 for nothing up to 16.
    pub fn weight(&self, highest: u64) -> f64 {
        match highest {
            0 => 1.0,
            _ => 1.0 + (MAX_WEIGHT - 1.0) * self.price.min(highest) as f64 / highest as f64,
        }
    }
}

impl Generate {
    /// Refuses what is wrong whatever the model.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        validate_asked(&self.prompt, &self.sampling, self.max_tokens, &self.stop)?;
        if self.prefix.len() > self.max_tokens as usize {
            return Err(Error::InvalidPrefix("it is longer than max_tokens"));
        }
        Ok(())
    }
}

impl fmt::Debug for Generate {
    /// Never shows the texts: they must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generate")
            .field("model", &self.model)
            .field("prompt", &self.prompt)
            .field("max_tokens", &self.max_tokens)
            .field("stop_strings", &self.stop.len())
            .field("prefix_tokens", &self.prefix.len())
            .finish_non_exhaustive()
    }
}

/// Refuses what no text can be asked for with.
fn validate_asked(
    prompt: &Prompt,
    sampling: &Sampling,
    max_tokens: u32,
    stop: &[String],
) -> Result<(), Error> {
    validate_prompt(prompt)?;
    sampling::validate(sampling)?;
    if max_tokens == 0 {
        return Err(Error::NoTokensAllowed);
    }
    if stop.len() > MAX_STOP_STRINGS {
        return Err(Error::InvalidStop("there are more than 16"));
    }
    if stop.iter().any(String::is_empty) {
        return Err(Error::InvalidStop("one is empty"));
    }
    if stop.iter().any(|stop| stop.len() > MAX_STOP_BYTES) {
        return Err(Error::InvalidStop("one is longer than 256 bytes"));
    }
    Ok(())
}

/// Refuses prompts that are empty or too large whatever the model.
pub(crate) fn validate_prompt(prompt: &Prompt) -> Result<(), Error> {
    let bytes = match prompt {
        Prompt::Text(text) => text.len(),
        Prompt::Chat(messages) => messages.iter().map(|message| message.content.len()).sum(),
    };
    if bytes == 0 {
        return Err(Error::EmptyPrompt);
    }
    if bytes > MAX_PROMPT_BYTES {
        return Err(Error::PromptTooLarge {
            bytes,
            limit: MAX_PROMPT_BYTES,
        });
    }
    Ok(())
}

/// One step of a generation.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// The prompt was understood and its computation begins.
    Started {
        /// The prompt's length in tokens, without the prefix.
        input_tokens: u32,
    },
    /// A token was drawn. The end token is one too, and has no text.
    Token {
        /// The token.
        id: TokenId,
        /// What can be shown now: whole characters, and nothing that may be the
        /// beginning of a stop string. Often empty.
        text: String,
    },
    /// The generation ended, and nothing follows.
    Ended {
        /// Why.
        reason: EndReason,
        /// What had been held back and belongs to the answer.
        text: String,
        /// How the answer's tokens were computed, those of the prefix left out, if
        /// that was asked for.
        proof: Option<Proof>,
    },
    /// The generation failed, and nothing follows.
    Failed(Error),
}

impl fmt::Debug for Step {
    /// Never shows the answer: it must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { input_tokens } => write!(f, "Started({input_tokens} tokens)"),
            Self::Token { text, .. } => write!(f, "Token({} bytes)", text.len()),
            Self::Ended { reason, text, .. } => {
                write!(f, "Ended({reason:?}, {} bytes)", text.len())
            }
            Self::Failed(error) => write!(f, "Failed({error:?})"),
        }
    }
}

/// What the two ends of a generation tell each other beside the steps.
#[derive(Debug, Default)]
struct Flags {
    /// The reader wants no more.
    cancelled: AtomicBool,
    /// The engine has it wait for others.
    waiting: AtomicBool,
    /// What the engine has done for it.
    progress: AtomicU64,
}

/// A generation that is queued or runs. Dropping it stops it before its next
/// token.
#[derive(Debug)]
pub struct Generation {
    steps: mpsc::Receiver<Step>,
    flags: Arc<Flags>,
    /// Whether its last step was given out.
    ended: bool,
}

impl Generation {
    /// The two ends of a generation. The channel has room for a step more than
    /// an engine that keeps to [`Steps::is_ahead`] takes, and one for its end, so
    /// that a slow reader holds up its own generation and no other.
    pub(crate) fn channel() -> (Steps, Self) {
        let (sender, receiver) = mpsc::channel(MAX_AHEAD + 2);
        let flags = Arc::new(Flags::default());
        let steps = Steps {
            sender,
            flags: Arc::clone(&flags),
        };
        let generation = Self {
            steps: receiver,
            flags,
            ended: false,
        };
        (steps, generation)
    }

    /// The next step; `None` after [`Step::Ended`] or [`Step::Failed`], one of
    /// which always comes: [`Error::Stopped`] if the engine goes without a
    /// word. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Step> {
        if self.ended {
            return None;
        }
        let gone = Step::Failed(Error::Stopped);
        let step = self.steps.recv().await.unwrap_or(gone);
        self.ended = matches!(step, Step::Ended { .. } | Step::Failed(_));
        Some(step)
    }

    /// The next step, if there is one yet.
    #[cfg(test)]
    pub(crate) fn try_next(&mut self) -> Option<Step> {
        self.steps.try_recv().ok()
    }

    /// Asks the engine to stop before the next token. What was produced until
    /// then still comes, and then [`Step::Ended`] with
    /// [`EndReason::Cancelled`].
    pub fn cancel(&self) {
        self.flags.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the engine has it wait for a place in the batch or in the cache,
    /// before it begins or in its midst: that it says nothing is then no fault.
    pub fn is_waiting(&self) -> bool {
        self.flags.waiting.load(Ordering::Relaxed)
    }

    /// Counts what the engine has done for it: places given, pieces of its prompt read,
    /// tokens computed. While that grows, the engine is at work, though it may have
    /// nothing to say.
    pub fn progress(&self) -> u64 {
        self.flags.progress.load(Ordering::Relaxed)
    }
}

/// The engine's end of a generation.
pub(crate) struct Steps {
    sender: mpsc::Sender<Step>,
    flags: Arc<Flags>,
}

impl Steps {
    /// Hands a step to the reader, if it is still there.
    pub(crate) fn send(&self, step: Step) {
        // Closed: the reader has gone, which `is_abandoned` reports. Full: never,
        // since the engine waits while it `is_ahead`.
        let _ = self.sender.try_send(step);
    }

    /// Is there so much to read that the engine should wait? Not for a reader that
    /// wants no more.
    pub(crate) fn is_ahead(&self) -> bool {
        self.unread() >= MAX_AHEAD && !self.is_cancelled() && !self.is_abandoned()
    }

    /// Has the reader read so much that going on is worth taking a place?
    pub(crate) fn has_caught_up(&self) -> bool {
        self.unread() <= MAX_AHEAD / 2 || self.is_cancelled() || self.is_abandoned()
    }

    fn unread(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// Has the reader asked to stop?
    pub(crate) fn is_cancelled(&self) -> bool {
        self.flags.cancelled.load(Ordering::Relaxed)
    }

    /// Says whether it waits for others.
    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.flags.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Counts something that was done for it.
    pub(crate) fn advance(&self) {
        self.flags.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// Has the reader gone?
    pub(crate) fn is_abandoned(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Texts to turn into vectors.
#[derive(Clone)]
pub struct Embed {
    /// Which model.
    pub model: ModelId,
    /// The texts, each no longer than the model's context.
    pub texts: Vec<String>,
}

impl Embed {
    /// Refuses what is wrong whatever the model.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.texts.is_empty() || self.texts.iter().any(String::is_empty) {
            return Err(Error::EmptyPrompt);
        }
        if self.texts.len() > MAX_TEXTS {
            return Err(Error::TooManyTexts {
                texts: self.texts.len(),
                limit: MAX_TEXTS,
            });
        }
        let bytes = self.texts.iter().map(String::len).sum();
        if bytes > MAX_PROMPT_BYTES {
            return Err(Error::PromptTooLarge {
                bytes,
                limit: MAX_PROMPT_BYTES,
            });
        }
        Ok(())
    }
}

impl fmt::Debug for Embed {
    /// Never shows the texts: they must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embed({}, {} texts)", self.model, self.texts.len())
    }
}

/// The vectors of some texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Embeddings {
    /// One vector of f32 for each text, in their order, of the model's width.
    pub vectors: Vec<Vec<f32>>,
    /// The texts' length in tokens, special tokens included.
    pub input_tokens: u32,
}

/// Embeddings that are queued or computed. Dropping it stops the work.
#[derive(Debug)]
pub struct Embedding {
    result: oneshot::Receiver<Result<Embeddings, Error>>,
}

impl Embedding {
    /// The two ends.
    pub(crate) fn channel() -> (oneshot::Sender<Result<Embeddings, Error>>, Self) {
        let (sender, result) = oneshot::channel();
        (sender, Self { result })
    }

    /// Waits for the vectors.
    ///
    /// # Errors
    /// What went wrong in the computation; [`Error::Stopped`] when the engine
    /// has gone.
    pub async fn wait(self) -> Result<Embeddings, Error> {
        self.result.await.unwrap_or(Err(Error::Stopped))
    }
}
