//! A line of the output, in OpenAI's format.

use base64::Engine as _;
use infernet_protocol::batch::LineOutcome;
use infernet_protocol::inference::EndReason;
use infernet_protocol::payload::{Generated, Vector};
use nostr::Timestamp;
use serde_json::{Value, json};

use super::line::{Encoding, Flaw, Line};

/// What the answers of a batch have in common.
#[derive(Debug, Clone)]
pub(super) struct Sheet {
    /// The batch, short: it begins the ids of its answers.
    pub batch: String,
    /// When it was ordered.
    pub at: Timestamp,
}

impl Sheet {
    /// The output of a line that nobody was given.
    pub fn flawed(&self, number: u64, flaw: &Flaw) -> Value {
        self.error(number, flaw.custom_id.as_deref(), flaw.code, &flaw.message)
    }

    /// The output of a line that could not be done.
    pub fn failed(&self, number: u64, line: &Line, why: &str) -> Value {
        self.error(number, Some(&line.custom_id), "failed", why)
    }

    fn error(&self, number: u64, custom_id: Option<&str>, code: &str, message: &str) -> Value {
        json!({
            "id": self.id("batch_req", number),
            "custom_id": custom_id,
            "response": null,
            "error": { "code": code, "message": message, "line": number + 1 },
        })
    }

    /// The output of a line that was done, or not.
    pub fn answer(&self, number: u64, line: &Line, outcome: &LineOutcome) -> Value {
        let body = match outcome {
            LineOutcome::Failed { reason } => return self.failed(number, line, reason),
            LineOutcome::Text(text) => match &text.error {
                Some(error) => return self.failed(number, line, error),
                None => self.chat(number, line, text),
            },
            LineOutcome::Vectors {
                vectors,
                input_tokens,
            } => embeddings(line, vectors, *input_tokens),
        };
        json!({
            "id": self.id("batch_req", number),
            "custom_id": line.custom_id,
            "response": {
                "status_code": 200,
                "request_id": self.id("req", number),
                "body": body,
            },
            "error": null,
        })
    }

    fn id(&self, what: &str, number: u64) -> String {
        format!("{what}_{}_{}", self.batch, number + 1)
    }

    fn chat(&self, number: u64, line: &Line, text: &Generated) -> Value {
        let input = u64::from(text.input_tokens);
        let output = text.tokens.len() as u64;
        json!({
            "id": self.id("chatcmpl", number),
            "object": "chat.completion",
            "created": self.at.as_secs(),
            "model": line.model,
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": text.text, "refusal": null },
                "logprobs": null,
                "finish_reason": match text.ended {
                    EndReason::Length => "length",
                    EndReason::Stop | EndReason::Cancelled | EndReason::Failed => "stop",
                },
            }],
            "usage": {
                "prompt_tokens": input,
                "completion_tokens": output,
                "total_tokens": input + output,
            },
        })
    }
}

fn embeddings(line: &Line, vectors: &[Vector], input_tokens: u64) -> Value {
    let data = vectors.iter().enumerate().map(|(index, vector)| {
        json!({
            "object": "embedding",
            "index": index,
            "embedding": match line.encoding {
                Encoding::Float => json!(vector.0),
                Encoding::Base64 => json!(base64_of(vector)),
            },
        })
    });
    json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": line.model,
        "usage": { "prompt_tokens": input_tokens, "total_tokens": input_tokens },
    })
}

fn base64_of(vector: &Vector) -> String {
    let bytes: Vec<u8> = vector.0.iter().flat_map(|x| x.to_le_bytes()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sheet() -> Sheet {
        Sheet {
            batch: "abcd".into(),
            at: Timestamp::from_secs(1_800_000_000),
        }
    }

    fn line(encoding: &str) -> Line {
        let text = format!(
            r#"{{"custom_id":"x","url":"/v1/embeddings","body":{{"model":"m","input":"t","encoding_format":"{encoding}"}}}}"#
        );
        Line::read(&text, None).unwrap()
    }

    #[test]
    fn a_text_is_a_chat_completion() {
        let text = LineOutcome::Text(Generated {
            text: "Hello".into(),
            tokens: vec![1, 2, 3],
            input_tokens: 5,
            ended: EndReason::Length,
            error: None,
        });
        let answer = sheet().answer(6, &line("float"), &text);
        assert_eq!(answer["id"], "batch_req_abcd_7");
        let body = &answer["response"]["body"];
        assert_eq!(body["choices"][0]["message"]["content"], "Hello");
        assert_eq!(body["choices"][0]["finish_reason"], "length");
        assert_eq!(body["usage"]["total_tokens"], 8);
        assert!(answer["error"].is_null());
    }

    #[test]
    fn vectors_are_written_as_they_were_asked_for() {
        let vectors = LineOutcome::Vectors {
            vectors: vec![Vector(vec![1.0, -0.5])],
            input_tokens: 3,
        };
        let written = |encoding| {
            let answer = sheet().answer(0, &line(encoding), &vectors);
            answer["response"]["body"]["data"][0]["embedding"].clone()
        };
        assert_eq!(written("float"), json!([1.0, -0.5]));
        assert_eq!(written("base64"), json!("AACAPwAAAL8="));
    }

    #[test]
    fn a_failure_says_which_line_and_why() {
        let failed = LineOutcome::Failed {
            reason: "nobody could".into(),
        };
        let answer = sheet().answer(2, &line("float"), &failed);
        assert!(answer["response"].is_null());
        assert_eq!(
            answer["error"],
            json!({ "code": "failed", "message": "nobody could", "line": 3 })
        );
    }
}
