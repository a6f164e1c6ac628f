//! What can go wrong, by what the caller can do about it.

use std::path::PathBuf;

use infernet_protocol::inference::{ModelId, Task, TokenId};

/// Why a request was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No model with this identity is loaded.
    #[error("model {0} is not loaded here")]
    UnknownModel(ModelId),
    /// The model does other work.
    #[error("model {model} does {task}, and something else was asked of it")]
    WrongTask {
        /// The model that was asked.
        model: ModelId,
        /// What it does.
        task: Task,
    },
    /// A prompt without a message or a character, or no text to embed.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt leaves no room in the model's context.
    #[error("the prompt has {tokens} tokens, and the model's context holds {context}")]
    PromptTooLong {
        /// The prompt's length in tokens.
        tokens: u32,
        /// What the model can hold, prompt and answer together, in tokens.
        context: u32,
    },
    /// The prompt is larger than any that is taken, whatever the model.
    #[error("the prompt has {bytes} bytes, and at most {limit} are taken")]
    PromptTooLarge {
        /// The prompt's size in bytes.
        bytes: usize,
        /// The largest that is taken, in bytes.
        limit: usize,
    },
    /// More texts than one request may carry.
    #[error("{texts} texts to embed, and at most {limit} are taken at once")]
    TooManyTexts {
        /// How many there are.
        texts: usize,
        /// How many are taken.
        limit: usize,
    },
    /// `max_tokens` is 0.
    #[error("max_tokens must be at least 1")]
    NoTokensAllowed,
    /// A sampling value is out of its range.
    #[error("invalid sampling: {0}")]
    InvalidSampling(&'static str),
    /// The stop strings are too many, too long, or one is empty.
    #[error("invalid stop strings: {0}")]
    InvalidStop(&'static str),
    /// The prefix cannot be the beginning of an answer to this request.
    #[error("invalid prefix: {0}")]
    InvalidPrefix(&'static str),
    /// A text has a token that is none of the model's.
    #[error("the model has no token {0}")]
    UnknownToken(TokenId),
    /// The tensors are not what the module takes.
    #[error("invalid tensors: {0}")]
    InvalidTensors(String),
    /// A chat was given to a model that has no chat template.
    #[error("the model has no chat template; give it a text to continue")]
    NoChatTemplate,
    /// The model's chat template does not accept these messages.
    #[error("the model's chat template refuses the messages: {0}")]
    ChatTemplate(String),
    /// The queue is full: try again later, or elsewhere.
    #[error("the engine's queue is full")]
    Busy,
    /// The computation failed; other requests go on.
    #[error("the computation failed: {0}")]
    Computation(String),
    /// The engine has stopped: no request will be served any more.
    #[error("the engine has stopped")]
    Stopped,
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file does not hold what it should: fetch it again.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// The model needs something that this engine does not do.
    #[error("{path} cannot be run: {what} is not supported")]
    Unsupported {
        /// The file or folder.
        path: PathBuf,
        /// What is not supported.
        what: String,
    },
    /// Two sources are the same model, or no model was given.
    #[error("{0}")]
    Models(String),
    /// The device that was asked for is not there, or it refused.
    #[error("{0}")]
    Device(String),
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::Computation(first_line(&error.to_string()))
    }
}

/// libtorch adds a C++ stack to its messages: the first line says what is wrong.
pub(crate) fn first_line(text: &str) -> String {
    /// Long enough for a sentence, short enough for a log line.
    const MAX_CHARS: usize = 300;
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(MAX_CHARS)
        .collect()
}
