//! Vocabularies of bytes, as GPT-2 began them: a text is cut into words by a
//! pattern, and each word's bytes are merged.

use serde_json::{Value as Json, json};
use tokenizers::Tokenizer as Model;
use tokenizers::models::bpe::{BPE, Vocab};

use super::{Gguf, Kind, damaged, unsupported};
use crate::error::LoadError;

/// How one of the names in `tokenizer.ggml.pre` cuts.
struct Cuts {
    /// A pattern of the words; GPT-2's own if there is none.
    pattern: Option<&'static str>,
    /// Does every digit stand alone, before anything else is cut?
    lone_digits: bool,
    /// Are characters composed first?
    composes: bool,
    /// Is a whole word that is a token taken without merging?
    takes_words: bool,
    /// Does the begin token come first, where the file is silent?
    begins: bool,
}

const GPT2: Cuts = Cuts {
    pattern: None,
    lone_digits: false,
    composes: false,
    takes_words: false,
    begins: false,
};

/// Words of Llama 3: at most three digits together.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with single digits.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words of Mistral's newer vocabulary: a word ends where a capital follows.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a name means; llama.cpp keeps the list.
fn cuts(name: &str) -> Option<Cuts> {
    Some(match name {
        "default" | "gpt-2" | "phi-2" | "olmo" | "mpt" => GPT2,
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => Cuts {
            lone_digits: true,
            ..GPT2
        },
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" => Cuts {
            pattern: Some(LLAMA3),
            takes_words: true,
            begins: true,
            ..GPT2
        },
        "dbrx" | "smaug-bpe" => Cuts {
            pattern: Some(LLAMA3),
            ..GPT2
        },
        "qwen2" | "deepseek-r1-qwen" => Cuts {
            pattern: Some(QWEN2),
            composes: true,
            ..GPT2
        },
        "tekken" => Cuts {
            pattern: Some(TEKKEN),
            takes_words: true,
            begins: true,
            ..GPT2
        },
        _ => return None,
    })
}

pub(super) fn kind(gguf: &Gguf) -> Result<Kind, LoadError> {
    let name = gguf.text("tokenizer.ggml.pre").unwrap_or("default");
    let Some(cuts) = cuts(name) else {
        return Err(unsupported(&gguf.path, format!("the pre-tokenizer {name}")));
    };
    let merges = gguf
        .merges()
        .unwrap_or_else(|| Err(damaged(&gguf.path, "its tokenizer has no merges")))?;
    let tokens = gguf.tokens()?.iter().cloned();
    let bpe = BPE::builder()
        .vocab_and_merges(tokens.zip(0..).collect::<Vocab>(), merges)
        .ignore_merges(cuts.takes_words)
        .build()
        .map_err(|error| damaged(&gguf.path, error.to_string()))?;
    let mut model = Model::new(bpe);
    if cuts.composes {
        model.with_normalizer(Some(
            gguf.part::<tokenizers::NormalizerWrapper>(json!({"type": "NFC"}))?,
        ));
    }
    model.with_pre_tokenizer(Some(
        gguf.part::<tokenizers::PreTokenizerWrapper>(pre_tokenizer(&cuts))?,
    ));
    model.with_decoder(Some(
        gguf.part::<tokenizers::DecoderWrapper>(byte_level(true))?,
    ));
    Ok(Kind {
        model,
        begins: cuts.begins,
    })
}

fn pre_tokenizer(cuts: &Cuts) -> Json {
    let mut steps = Vec::new();
    if cuts.lone_digits {
        steps.push(json!({"type": "Digits", "individual_digits": true}));
    }
    if let Some(pattern) = cuts.pattern {
        steps.push(json!({
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": false,
        }));
    }
    steps.push(byte_level(cuts.pattern.is_none()));
    json!({"type": "Sequence", "pretokenizers": steps})
}

fn byte_level(use_regex: bool) -> Json {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": use_regex,
    })
}
