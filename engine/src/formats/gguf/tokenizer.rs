//! The tokenizer inside a GGUF.

mod byte_level;
mod sentence_piece;

use infernet_protocol::inference::TokenId;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer as Model};

use super::header::Value;
use super::{Gguf, damaged, unsupported};
use crate::error::LoadError;
use crate::tokenizer::Tokenizer;

/// ggml's token types, as far as they matter.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// What makes tokens of a text, but for the tokens found as they stand and those
/// put around it.
struct Kind {
    model: Model,
    /// Does it put the begin token before a text, where the file is silent?
    begins: bool,
}

impl Gguf {
    /// The tokenizer, as yet without chat template and end tokens.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        let Kind { mut model, begins } = match self.text("tokenizer.ggml.model") {
            Some("gpt2") => byte_level::kind(self)?,
            Some("llama") => sentence_piece::kind(self)?,
            other => {
                let name = other.unwrap_or("(none)");
                let what = format!("a tokenizer of kind {name} (there are gpt2 and llama)");
                return Err(unsupported(&self.path, what));
            }
        };
        model.add_tokens(&self.added_tokens()?);
        if let Some(around) = self.around(begins)? {
            model.with_post_processor(Some(self.part::<PostProcessorWrapper>(around)?));
        }
        Tokenizer::from_model(model).map_err(|reason| damaged(&self.path, reason))
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
            .ok_or_else(|| damaged(&self.path, "its tokenizer has no tokens"))
    }

    /// Each token's type; all are normal if the file has none.
    fn token_types(&self) -> Result<Vec<i64>, LoadError> {
        let count = self.tokens()?.len();
        match self.integers("tokenizer.ggml.token_type") {
            Some(types) if types.len() == count => Ok(types.to_vec()),
            Some(types) => {
                let reason = format!("it has {count} tokens and the types of {}", types.len());
                Err(damaged(&self.path, reason))
            }
            None => Ok(vec![NORMAL; count]),
        }
    }

    /// The merges that are in the file, best first.
    fn merges(&self) -> Option<Result<Vec<(String, String)>, LoadError>> {
        let merges = self.texts("tokenizer.ggml.merges")?;
        let halves = |merge: &String| {
            // A half may begin with a space, and holds none else.
            let space = merge.char_indices().skip(1).find(|(_, c)| *c == ' ')?.0;
            Some((merge[..space].to_owned(), merge[space + 1..].to_owned()))
        };
        let merges: Option<Vec<_>> = merges.iter().map(halves).collect();
        Some(merges.ok_or_else(|| damaged(&self.path, "a merge of its tokenizer is no pair")))
    }

    /// Tokens that are found in a text as they stand, before any cut.
    fn added_tokens(&self) -> Result<Vec<AddedToken>, LoadError> {
        let tokens = self.tokens()?.iter().zip(self.token_types()?);
        let added = tokens.filter(|(token, kind)| {
            [CONTROL, UNKNOWN].contains(kind)
                // Runs of spaces are no such tokens to whoever made the model.
                || *kind == USER_DEFINED && !token.bytes().all(|byte| byte == b' ')
        });
        Ok(added
            .map(|(token, kind)| {
                AddedToken::from(token.as_str(), kind != USER_DEFINED).normalized(false)
            })
            .collect())
    }

    /// What puts the begin and end tokens around a text, where the model wants
    /// them.
    fn around(&self, begins: bool) -> Result<Option<Json>, LoadError> {
        let flag = |name: &str| match self.get(&format!("tokenizer.ggml.{name}")) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        };
        let begin = flag("add_bos_token")
            .unwrap_or(begins)
            .then_some("bos_token_id");
        let end = flag("add_eos_token")
            .unwrap_or(false)
            .then_some("eos_token_id");
        if begin.or(end).is_none() {
            return Ok(None);
        }
        let mut special = serde_json::Map::new();
        let mut piece = |name: &str| {
            let id = self.token_id(name);
            let token = id.and_then(|id| Some((id, self.tokens().ok()?.get(id as usize)?)));
            let Some((id, token)) = token else {
                let reason = format!("its tokenizer wants a token around texts and has no {name}");
                return Err(damaged(&self.path, reason));
            };
            special.insert(
                token.clone(),
                json!({"id": token, "ids": [id], "tokens": [token]}),
            );
            Ok(json!({"SpecialToken": {"id": token, "type_id": 0}}))
        };
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let (begin, end) = (
            begin.map(&mut piece).transpose()?,
            end.map(&mut piece).transpose()?,
        );
        let around = |texts: Vec<Json>| -> Vec<Json> {
            let whole = begin
                .iter()
                .cloned()
                .chain(texts)
                .chain(end.iter().cloned());
            whole.collect()
        };
        Ok(Some(json!({
            "type": "TemplateProcessing",
            "single": around(vec![text("A")]),
            "pair": around(vec![text("A"), text("B")]),
            "special_tokens": special,
        })))
    }

    /// A part of a tokenizer, from how a `tokenizer.json` would have it.
    fn part<T: DeserializeOwned>(&self, json: Json) -> Result<T, LoadError> {
        serde_json::from_value(json).map_err(|error| damaged(&self.path, error.to_string()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::detokenizer::Detokenizer;

    #[derive(Deserialize)]
    struct Reference {
        tokenizers: Vec<File>,
    }

    #[derive(Deserialize)]
    struct File {
        file: String,
        strings: Vec<Encoded>,
    }

    #[derive(Deserialize)]
    struct Encoded {
        text: String,
        tokens: Vec<TokenId>,
        decoded: String,
    }

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/formats")
    }

    /// The text of tokens, as an answer would show it.
    fn decode(tokenizer: &Tokenizer, tokens: &[TokenId]) -> String {
        let mut text = Detokenizer::new(vec![], tokenizer.adds_first_space());
        let mut shown: String = tokens
            .iter()
            .map(|&token| text.push(&tokenizer.bytes_of(token).unwrap()))
            .collect();
        shown.push_str(&text.finish());
        shown
    }

    #[test]
    fn tokens_are_those_of_transformers() {
        let text = std::fs::read(folder().join("tokenizers.json")).unwrap();
        let reference: Reference = serde_json::from_slice(&text).unwrap();
        assert_eq!(reference.tokenizers.len(), 12);
        for File { file, strings } in reference.tokenizers {
            let path = folder().join(&file);
            let tokenizer = match file.ends_with(".gguf") {
                true => Gguf::open(&path).unwrap().tokenizer().unwrap(),
                false => Tokenizer::new(&std::fs::read(&path).unwrap()).unwrap(),
            };
            for Encoded {
                text,
                tokens,
                decoded,
            } in strings
            {
                let own = tokenizer.encode_text(&text).unwrap();
                assert_eq!(own, tokens, "{file}: {text:?}");
                assert_eq!(decode(&tokenizer, &own), decoded, "{file}: {text:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        /// Whatever bytes of a vocabulary are changed, it is read or refused.
        #[test]
        fn a_changed_vocabulary_never_panics(
            file in prop::sample::select(vec!["llama.gguf", "gemma.gguf", "qwen2.gguf"]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut bytes = std::fs::read(folder().join(file)).unwrap();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            let changed = tempfile::tempdir().unwrap();
            let path = changed.path().join(file);
            std::fs::write(&path, bytes).unwrap();
            if let Ok(tokenizer) = Gguf::open(&path).and_then(|gguf| gguf.tokenizer()) {
                let _ = tokenizer.encode_text("Hello, <|im_end|> wörld 12");
            }
        }
    }
}
