//! The bodies of requests. What would change the answer and is not known here is refused, not ignored.

use infernet_protocol::inference::{Message, Prompt, Role, Sampling};
use infernet_protocol::payload::{Generate, Work};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Encoding;
use crate::DEFAULT_MAX_TOKENS;

/// Parameters that do not change the answer.
const HARMLESS: [&str; 9] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "stream_options",
    "parallel_tool_calls",
    "object",
];

/// Body of a request to `/v1/chat/completions`.
#[derive(Deserialize)]
pub(super) struct ChatBody {
    pub model: Option<String>,
    messages: Vec<ChatMessage>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    pub seed: Option<u64>,
    stop: Option<OneOrMany>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct ChatMessage {
    role: ChatRole,
    content: Content,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChatRole {
    System,
    Developer,
    User,
    Assistant,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message; text is the only one that can be read.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part {
    Text { text: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Vec<String> {
    fn from(texts: OneOrMany) -> Self {
        match texts {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}

impl ChatBody {
    pub fn read(body: Value) -> Result<Self, String> {
        let body: Self = serde_json::from_value(body).map_err(|_| {
            "the body is not a chat: model, messages of system, user and assistant with text, numbers".to_owned()
        })?;
        let mut rests = std::iter::once(&body.rest).chain(body.messages.iter().map(|m| &m.rest));
        rests.try_for_each(only_harmless)?;
        Ok(body)
    }

    pub fn work(self) -> Result<Work, String> {
        let sampling = Sampling {
            // As OpenAI has it where nothing is said.
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(0),
            seed: self.seed.unwrap_or(0),
        };
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        Ok(Work::TextGeneration(Generate {
            prompt: Prompt::Chat(self.messages.into_iter().map(message).collect()),
            sampling,
            max_tokens: max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
            stop: self.stop.map(Vec::from).unwrap_or_default(),
            prefix: Vec::new(),
        }))
    }
}

fn message(message: ChatMessage) -> Message {
    Message {
        role: match message.role {
            ChatRole::System | ChatRole::Developer => Role::System,
            ChatRole::User => Role::User,
            ChatRole::Assistant => Role::Assistant,
        },
        content: match message.content {
            Content::Text(text) => text,
            Content::Parts(parts) => parts.into_iter().map(|Part::Text { text }| text).collect(),
        },
    }
}

/// Body of a request to `/v1/embeddings`.
#[derive(Deserialize)]
pub(super) struct EmbeddingBody {
    pub model: Option<String>,
    input: OneOrMany,
    pub encoding_format: Option<Encoding>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl EmbeddingBody {
    pub fn read(body: Value) -> Result<Self, String> {
        let body: Self = serde_json::from_value(body).map_err(|_| {
            "the body is not one for embeddings: model, input (a text or a list of texts), encoding_format (float or \
             base64)"
                .to_owned()
        })?;
        only_harmless(&body.rest)?;
        Ok(body)
    }

    pub fn work(self) -> Work {
        let texts = self.input.into();
        Work::Embedding { texts }
    }
}

fn only_harmless(rest: &Map<String, Value>) -> Result<(), String> {
    let changes = |(name, value): &(&String, &Value)| !is_harmless(name, value);
    match rest.iter().find(changes) {
        None => Ok(()),
        Some((name, _)) => {
            let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
            Err(format!("{name} is not supported, or not with this value"))
        }
    }
}

/// Whether a parameter leaves the answer as it would be without it.
fn is_harmless(name: &str, value: &Value) -> bool {
    match name {
        _ if value.is_null() || HARMLESS.contains(&name) => true,
        "n" => *value == 1,
        "stream" | "logprobs" => *value == false,
        "presence_penalty" | "frequency_penalty" => value.as_f64() == Some(0.0),
        "logit_bias" => value.as_object().is_some_and(Map::is_empty),
        "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
        "response_format" => value.get("type").is_some_and(|kind| kind == "text"),
        _ => false,
    }
}
