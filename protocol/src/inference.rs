//! The vocabulary of inference: what a buyer asks of a model and what a model
//! answers. The engine speaks it, and the encrypted payloads carry it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hex32::{hex32, hex32_shown};

/// One token's number in a model's vocabulary.
pub type TokenId = u32;

hex32!(
    /// The identity of a model: the sha256 of its manifest, which covers weights,
    /// quantisation, tokenizer, chat template and end tokens (`nips/models.md`).
    ModelId
);
hex32_shown!(ModelId);

/// What kind of work a model does; the value of an event's `t` tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Continue a chat or a text.
    TextGeneration,
    /// Turn texts into vectors.
    Embedding,
    /// Run a module: tensors in, tensors out.
    Tensors,
    /// Check others' results by computing them again.
    Verify,
}

impl Task {
    /// The task's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TextGeneration => "text-generation",
            Self::Embedding => "embedding",
            Self::Tensors => "tensors",
            Self::Verify => "verify",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The number format a model is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// 8-bit packed weights, bf16 activations.
    Int8,
    /// 4-bit packed weights in groups of 32, bf16 activations.
    Int4,
    /// No model at all: a scripted engine, for tests and load.
    Scripted,
}

impl Dtype {
    /// Whether weights are packed into so few bits that answers are not the model's own.
    pub const fn is_quantised(self) -> bool {
        matches!(self, Self::Int8 | Self::Int4)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Scripted => "scripted",
        })
    }
}

/// Who said a chat message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The instructions that stand over the chat.
    System,
    /// The person, or the program that asks.
    User,
    /// The model.
    Assistant,
}

/// One message of a chat.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

impl fmt::Debug for Message {
    /// Never shows the text: a prompt must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.role, self.content.len())
    }
}

/// What a text generation starts from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prompt {
    /// A chat, laid out by the model's own chat template.
    Chat(Vec<Message>),
    /// Text to be continued as it stands.
    Text(String),
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chat(messages) => write!(f, "Prompt::Chat({} messages)", messages.len()),
            Self::Text(text) => write!(f, "Prompt::Text({} bytes)", text.len()),
        }
    }
}

/// How tokens are drawn. The filters apply in this order: temperature, top-k,
/// top-p, then noise (`nips/sampling.md`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// 0 takes the most probable token; at most 2.
    pub temperature: f32,
    /// Keep the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Keep this many of the most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Seed of the sampling noise.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            seed: 0,
        }
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndReason {
    /// The model ended its answer, or a stop string was reached.
    Stop,
    /// `max_tokens` was reached, or the context is full.
    Length,
    /// The buyer asked to stop.
    Cancelled,
    /// The provider failed while working.
    Failed,
}
