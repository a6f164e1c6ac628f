//! The tokenizer inside a GGUF, laid out as a `tokenizer.json`.

use infernet_protocol::inference::TokenId;
use serde_json::{Value as Json, json};

use super::header::Value;
use super::{Gguf, damaged, unsupported};
use crate::error::LoadError;

/// ggml's token types, as far as they matter.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// How Llama 3 cuts text before merging.
const LLAMA3_CUTS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Gguf {
    /// The tokenizer as the text of a `tokenizer.json`.
    pub(crate) fn tokenizer_json(&self) -> Result<Vec<u8>, LoadError> {
        match self.text("tokenizer.ggml.model") {
            Some("gpt2") => {}
            other => {
                let name = other.unwrap_or("none");
                return Err(unsupported(
                    self.path(),
                    format!("a tokenizer of kind {name}"),
                ));
            }
        }
        let tokens = self.tokens()?;
        let merges = self
            .texts("tokenizer.ggml.merges")
            .ok_or_else(|| damaged(self.path(), "its tokenizer has no merges"))?;
        let vocabulary: serde_json::Map<_, _> = tokens
            .iter()
            .enumerate()
            .map(|(id, token)| (token.clone(), id.into()))
            .collect();
        let cuts = self.text("tokenizer.ggml.pre").unwrap_or("default");
        let json = json!({
            "version": "1.0",
            "added_tokens": self.added_tokens(tokens),
            "pre_tokenizer": self.pre_tokenizer(cuts)?,
            "post_processor": self.post_processor(tokens)?,
            "decoder": byte_level(true),
            "model": {
                "type": "BPE",
                "vocab": vocabulary,
                "merges": merges,
                // Llama 3 takes a whole word that is a token without merging.
                "ignore_merges": cuts == "llama-bpe",
            },
        });
        serde_json::to_vec(&json).map_err(|error| damaged(self.path(), error.to_string()))
    }

    /// The chat template, if there is one.
    pub(crate) fn chat_template(&self) -> Option<&str> {
        self.text("tokenizer.chat_template")
    }

    /// The tokens that end an answer: of the text, of the turn, of the message.
    pub(crate) fn end_tokens(&self) -> Vec<TokenId> {
        let names = ["eos_token_id", "eot_token_id", "eom_token_id"];
        let mut tokens: Vec<_> = names
            .iter()
            .filter_map(|name| self.token_id(name))
            .collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// The text of the token that a metadata entry names, or nothing.
    pub(crate) fn token_text(&self, name: &str) -> String {
        self.token_id(name)
            .and_then(|id| self.tokens().ok()?.get(id as usize).cloned())
            .unwrap_or_default()
    }

    fn token_id(&self, name: &str) -> Option<TokenId> {
        let id = self.unsigned(&format!("tokenizer.ggml.{name}"))?;
        TokenId::try_from(id).ok()
    }

    fn tokens(&self) -> Result<&[String], LoadError> {
        self.texts("tokenizer.ggml.tokens")
            .ok_or_else(|| damaged(self.path(), "its tokenizer has no tokens"))
    }

    /// Tokens that are found in a text as they stand, before any cut.
    fn added_tokens(&self, tokens: &[String]) -> Vec<Json> {
        let types = self.integers("tokenizer.ggml.token_type").unwrap_or(&[]);
        let kinds = tokens.iter().zip(types).enumerate();
        kinds
            .filter(|(_, (_, kind))| [CONTROL, USER_DEFINED].contains(kind))
            .map(|(id, (token, kind))| {
                json!({
                    "id": id,
                    "content": token,
                    "special": *kind == CONTROL,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                })
            })
            .collect()
    }

    /// How a text is cut before merging; llama.cpp keeps a list of names.
    fn pre_tokenizer(&self, name: &str) -> Result<Json, LoadError> {
        match name {
            "default" | "gpt-2" => Ok(byte_level(true)),
            "smollm" => Ok(sequence(
                json!({"type": "Digits", "individual_digits": true}),
                byte_level(true),
            )),
            "llama-bpe" | "llama3" | "llama-v3" => Ok(sequence(
                json!({
                    "type": "Split",
                    "pattern": {"Regex": LLAMA3_CUTS},
                    "behavior": "Isolated",
                    "invert": false,
                }),
                byte_level(false),
            )),
            other => Err(unsupported(
                self.path(),
                format!("the pre-tokenizer {other}"),
            )),
        }
    }

    /// What puts the begin token before a text, where the model wants it.
    fn post_processor(&self, tokens: &[String]) -> Result<Json, LoadError> {
        if self.get("tokenizer.ggml.add_bos_token") != Some(&Value::Bool(true)) {
            return Ok(byte_level(true));
        }
        let id = self.token_id("bos_token_id");
        let Some((id, token)) = id.and_then(|id| Some((id, tokens.get(id as usize)?))) else {
            return Err(damaged(self.path(), "it wants a begin token and has none"));
        };
        Ok(json!({
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": token, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
        }))
    }
}

fn byte_level(use_regex: bool) -> Json {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": use_regex,
    })
}

fn sequence(first: Json, second: Json) -> Json {
    json!({"type": "Sequence", "pretokenizers": [first, second]})
}
