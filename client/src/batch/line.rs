//! A line of a batch file, in OpenAI's format: which text, or vectors, it asks for.

mod body;

use infernet_protocol::inference::Task;
use infernet_protocol::payload::Work;
use serde::Deserialize;
use serde_json::Value;

use body::{ChatBody, EmbeddingBody};

/// Bytes that a line may have: more than any model's context holds, few enough to be read into memory.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Bytes of a line's own id.
const MAX_ID_BYTES: usize = 256;

/// A line that can be done.
#[derive(Clone, PartialEq)]
pub struct Line {
    /// Its own id, which its answer repeats.
    pub custom_id: String,
    /// The model that it asks for.
    pub model: String,
    /// The work.
    pub work: Work,
    /// How its vectors are to be written.
    pub encoding: Encoding,
    /// Whether it names a seed of its own.
    pub is_seeded: bool,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As a list of numbers.
    #[default]
    Float,
    /// As the base64 of 32-bit little-endian floats.
    Base64,
}

/// Why a line cannot be done. It becomes an error in the output, and costs nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Flaw {
    /// The line's own id, if it could be read.
    pub custom_id: Option<String>,
    /// What kind of flaw it is, in one word.
    pub code: &'static str,
    /// The same for people.
    pub message: String,
}

/// What stands around the body.
#[derive(Deserialize)]
struct Envelope {
    custom_id: Option<String>,
    method: Option<String>,
    url: Option<String>,
    body: Option<Value>,
}

impl Line {
    /// Reads a line. `model`, if there is one, stands for whatever model the line names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str, model: Option<&str>) -> Result<Self, Flaw> {
        let envelope: Envelope = serde_json::from_str(text)
            .map_err(|error| flaw(None, "invalid_json", &brief(&error)))?;
        let Some(custom_id) = envelope.custom_id.filter(|id| !id.is_empty()) else {
            return Err(flaw(None, "missing_custom_id", "there is no custom_id"));
        };
        if custom_id.len() > MAX_ID_BYTES {
            let message = format!("its custom_id is longer than {MAX_ID_BYTES} bytes");
            return Err(flaw(None, "invalid_custom_id", &message));
        }
        let of = |code, message: &str| flaw(Some(custom_id.clone()), code, message);
        if !envelope
            .method
            .is_none_or(|method| method.eq_ignore_ascii_case("post"))
        {
            return Err(of("invalid_method", "its method is not POST"));
        }
        let Some(body) = envelope.body else {
            return Err(of("missing_body", "there is no body"));
        };
        let invalid = |message: String| of("invalid_request", &message);
        let (asked, work, encoding, is_seeded) = match envelope.url.as_deref() {
            Some("/v1/chat/completions") => {
                let body = ChatBody::read(body).map_err(invalid)?;
                let (model, seeded) = (body.model.clone(), body.seed.is_some());
                (
                    model,
                    body.work().map_err(invalid)?,
                    Encoding::Float,
                    seeded,
                )
            }
            Some("/v1/embeddings") => {
                let body = EmbeddingBody::read(body).map_err(invalid)?;
                let (model, encoding) = (body.model.clone(), body.encoding_format);
                (model, body.work(), encoding.unwrap_or_default(), true)
            }
            Some(_) => {
                let known = "its url is neither /v1/chat/completions nor /v1/embeddings";
                return Err(of("invalid_url", known));
            }
            None => return Err(of("missing_url", "there is no url")),
        };
        work.validate()
            .map_err(|refusal| invalid(refusal.to_string()))?;
        let Some(model) = model.map(str::to_owned).or(asked) else {
            return Err(of(
                "missing_model",
                "it names no model, and --model none either",
            ));
        };
        Ok(Self {
            custom_id,
            model,
            work,
            encoding,
            is_seeded,
        })
    }

    /// Which task it is.
    pub const fn task(&self) -> Task {
        self.work.task()
    }
}

/// The flaw of a line that is longer than [`MAX_LINE_BYTES`].
pub(super) fn too_long() -> Flaw {
    let message = format!("the line is longer than {MAX_LINE_BYTES} bytes");
    flaw(None, "line_too_long", &message)
}

/// The flaw of a line that is not UTF-8.
pub(super) fn not_text() -> Flaw {
    flaw(None, "invalid_json", "not UTF-8 text")
}

/// The flaw of a line whose id an earlier line has.
pub(super) fn duplicate(custom_id: &str) -> Flaw {
    let message = "an earlier line has the same custom_id";
    flaw(Some(custom_id.to_owned()), "duplicate_custom_id", message)
}

fn flaw(custom_id: Option<String>, code: &'static str, message: &str) -> Flaw {
    Flaw {
        custom_id,
        code,
        message: message.to_owned(),
    }
}

/// What is wrong with JSON, without quoting it: it may be a prompt.
fn brief(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let column = error.column();
    match error.classify() {
        Category::Eof => format!("not whole JSON: the line ends at column {column}"),
        Category::Syntax | Category::Io => format!("not JSON, from column {column}"),
        Category::Data => format!(
            "not a request, from column {column}: an object with the texts custom_id, method and url, and a body"
        ),
    }
}

#[cfg(test)]
mod tests;
