//! A model's tokenizer: text to tokens, and the bytes of a token.

use std::panic::{AssertUnwindSafe, catch_unwind};

use infernet_protocol::inference::{Prompt, TokenId};
use serde_json::Value;
use tokenizers::Tokenizer as Model;

use crate::chat::ChatTemplate;
use crate::error::Error;
use crate::seam;
use crate::telling::Vocabulary;

/// Text to tokens and back, for one model.
pub(crate) struct Tokenizer {
    model: Model,
    /// How tokens spell bytes; `None` where only texts are read (embeddings).
    spelling: Option<Spelling>,
    /// Is the space before a text none of it?
    strips_space: bool,
    template: Option<ChatTemplate>,
    /// Any of these ends an answer.
    end_tokens: Vec<TokenId>,
    /// The model has no token from this one on.
    limit: TokenId,
}

/// How a vocabulary writes bytes that are no printable text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// Each byte is one printable character, as GPT-2 began it.
    ByteLevel,
    /// A space is U+2581, and other bytes are `<0xAB>`, as SentencePiece does.
    SentencePiece,
}

impl Tokenizer {
    /// A tokenizer from the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(json: &[u8]) -> Result<Self, String> {
        Self::from_model(Model::from_bytes(json).map_err(|error| error.to_string())?)
    }

    /// A tokenizer that the library has read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_model(mut model: Model) -> Result<Self, String> {
        // Some files carry the limits of their authors' experiments.
        model.with_padding(None);
        model
            .with_truncation(None)
            .map_err(|error| error.to_string())?;
        let decoder = serde_json::to_value(model.get_decoder()).map_err(|e| e.to_string())?;
        Ok(Self {
            spelling: spelling(&decoder),
            strips_space: strips_space(&decoder),
            model,
            template: None,
            end_tokens: Vec::new(),
            limit: TokenId::MAX,
        })
    }

    /// Makes it the tokenizer of a model that answers.
    ///
    /// # Errors
    /// When its tokens cannot be turned into bytes, or an end token is not in
    /// the vocabulary.
    pub(crate) fn for_answers(
        mut self,
        template: Option<ChatTemplate>,
        end_tokens: Vec<TokenId>,
    ) -> Result<Self, String> {
        if self.spelling.is_none() {
            return Err("its decoder is neither byte-level nor SentencePiece's".into());
        }
        for &token in &end_tokens {
            if self.model.id_to_token(token).is_none() {
                return Err(format!("its end token {token} is not in the vocabulary"));
            }
        }
        self.template = template;
        self.end_tokens = end_tokens;
        Ok(self)
    }

    /// Makes it the tokenizer of a model that has weights for so many tokens. Some
    /// tokenizers were given a few more, as Gemma 3's one for images: texts with
    /// these are refused.
    ///
    /// # Errors
    /// When it has more tokens of its own: it is another model's.
    pub(crate) fn within(mut self, vocabulary: i64) -> Result<Self, String> {
        let added = self.model.get_added_vocabulary().get_added_tokens_decoder();
        let is_missing =
            |token: TokenId| i64::from(token) >= vocabulary && !added.contains_key(&token);
        if self.model.get_vocab(true).into_values().any(is_missing) {
            return Err("its tokenizer has more tokens than its weights".into());
        }
        self.limit = TokenId::try_from(vocabulary).unwrap_or(TokenId::MAX);
        Ok(self)
    }

    /// One more than the greatest token there is.
    pub(crate) fn vocabulary_size(&self) -> u32 {
        self.model
            .get_vocab(true)
            .values()
            .max()
            .map_or(0, |greatest| greatest.saturating_add(1))
    }

    /// A prompt's tokens, with template and special tokens.
    ///
    /// # Errors
    /// When there is no template for a chat or it refuses the messages.
    pub(crate) fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<TokenId>, Error> {
        match prompt {
            Prompt::Text(text) => some(self.encode(text, true)?),
            Prompt::Chat(messages) => {
                let template = self.template.as_ref().ok_or(Error::NoChatTemplate)?;
                let (messages, seam) = seam::separate(messages, self.special_texts());
                // The template writes the special tokens itself.
                let text = template.render(&messages)?;
                let mut tokens = Vec::new();
                for piece in seam.split(&text) {
                    tokens.extend(self.encode(piece, false)?);
                }
                some(tokens)
            }
        }
    }

    /// A text's tokens, with those that the model wants around a text.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub(crate) fn encode_text(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        some(self.encode(text, true)?)
    }

    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<TokenId>, Error> {
        // Damaged tokenizer files are known to make the library panic.
        let encode = || self.model.encode_fast(text, add_special_tokens);
        let tokens = catch_unwind(AssertUnwindSafe(encode))
            .ok()
            .and_then(Result::ok)
            .map(|encoding| encoding.get_ids().to_vec())
            .ok_or_else(|| Error::Computation("the tokenizer failed on this prompt".into()))?;
        match tokens.iter().find(|&&token| token >= self.limit) {
            Some(&unknown) => Err(Error::UnknownToken(unknown)),
            None => Ok(tokens),
        }
    }

    /// The texts that become special tokens wherever they stand.
    fn special_texts(&self) -> impl Iterator<Item = &str> {
        let added = self.model.get_added_vocabulary().get_added_tokens_decoder();
        let special = added.values().filter(|token| token.special);
        special.map(|token| token.content.as_str())
    }

    /// The bytes that a token adds to an answer: none for a special token.
    /// `None` when the vocabulary has no such token.
    pub(crate) fn bytes_of(&self, token: TokenId) -> Option<Vec<u8>> {
        let added = self.model.get_added_vocabulary();
        if let Some(added) = added.get_added_tokens_decoder().get(&token) {
            return Some(match (added.special, self.spelling) {
                (true, _) => Vec::new(),
                (false, Some(Spelling::SentencePiece)) => sentence_piece_bytes(&added.content),
                (false, _) => added.content.clone().into_bytes(),
            });
        }
        let text = self.model.id_to_token(token)?;
        Some(match self.spelling {
            Some(Spelling::SentencePiece) => sentence_piece_bytes(&text),
            Some(Spelling::ByteLevel) | None => byte_level_bytes(&text),
        })
    }

    /// Does the tokenizer put a space before every text?
    pub(crate) fn adds_first_space(&self) -> bool {
        self.strips_space
    }
}

impl Vocabulary for Tokenizer {
    fn has(&self, token: TokenId) -> bool {
        token < self.limit
    }

    fn is_end(&self, token: TokenId) -> bool {
        self.end_tokens.contains(&token)
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.bytes_of(token).unwrap_or_default()
    }
}

fn some(tokens: Vec<TokenId>) -> Result<Vec<TokenId>, Error> {
    match tokens.is_empty() {
        true => Err(Error::EmptyPrompt),
        false => Ok(tokens),
    }
}

/// The spelling that a `tokenizer.json`'s decoder undoes.
fn spelling(decoder: &Value) -> Option<Spelling> {
    match decoder["type"].as_str()? {
        "ByteLevel" => Some(Spelling::ByteLevel),
        "ByteFallback" | "Metaspace" => Some(Spelling::SentencePiece),
        "Sequence" => decoder["decoders"].as_array()?.iter().find_map(spelling),
        _ => None,
    }
}

/// Whether a `tokenizer.json`'s decoder takes a space from a text's beginning,
/// since the tokenizer has put it there.
fn strips_space(decoder: &Value) -> bool {
    match decoder["type"].as_str() {
        Some("Strip") => decoder["content"] == " " && decoder["start"] != 0,
        Some("Metaspace") => decoder["prepend_scheme"] != "never",
        Some("Sequence") => decoder["decoders"]
            .as_array()
            .is_some_and(|decoders| decoders.iter().any(strips_space)),
        _ => false,
    }
}

fn sentence_piece_bytes(token: &str) -> Vec<u8> {
    let byte = token
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'))
        .filter(|digits| digits.len() == 2)
        .and_then(|digits| u8::from_str_radix(digits, 16).ok());
    match byte {
        Some(byte) => vec![byte],
        None => token.replace('\u{2581}', " ").into_bytes(),
    }
}

/// The bytes of a byte-level token; a character that stands for no byte stands
/// for itself.
fn byte_level_bytes(token: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    for character in token.chars() {
        match byte_of(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

/// The byte that a character stands for: printable Latin-1 stands for itself,
/// and the other bytes, in their order, are the characters from U+0100 on.
fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokenizers::AddedToken;

    use super::*;

    #[test]
    fn a_text_with_a_token_beyond_the_weights_is_refused() {
        let json = include_bytes!("../tests/reference/tiny-llama/tokenizer.json");
        let with_image = || {
            let mut model = Model::from_bytes(json).unwrap();
            model.add_special_tokens(&[AddedToken::from("<image>", true)]);
            Tokenizer::from_model(model).unwrap()
        };
        let own = with_image().vocabulary_size() - 1;
        let tokenizer = with_image().within(own.into()).unwrap();
        assert!(tokenizer.encode_text("an image").is_ok());
        let refused = tokenizer.encode_text("an <image>");
        assert_eq!(refused, Err(Error::UnknownToken(own)));
        assert!(with_image().within(i64::from(own) / 2).is_err());
    }

    #[test]
    fn every_byte_has_one_character() {
        let mut bytes: Vec<u8> = (0..0x144)
            .filter_map(|code| byte_of(char::from_u32(code).unwrap()))
            .collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_level_bytes("Ġthe"), b" the");
        assert_eq!(byte_level_bytes("Ċ"), b"\n");
        assert_eq!(byte_level_bytes("Ã©"), "é".as_bytes());
    }

    #[test]
    fn sentence_piece_spells_spaces_and_bytes() {
        assert_eq!(sentence_piece_bytes("▁the"), b" the");
        assert_eq!(sentence_piece_bytes("<0x0A>"), b"\n");
        assert_eq!(sentence_piece_bytes("<0xZZ>"), b"<0xZZ>");
    }

    #[test]
    fn finds_the_spelling_inside_a_sequence() {
        let decoder = serde_json::json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]});
        assert_eq!(spelling(&decoder), Some(Spelling::SentencePiece));
        assert!(!strips_space(&decoder));
        assert_eq!(spelling(&serde_json::json!({"type": "WordPiece"})), None);
    }
}
