//! SentencePiece's vocabularies: pieces with scores, a space is U+2581, and what
//! is in no piece is spelled in bytes. Merging the two neighbours whose union has
//! the best score, again and again, is a BPE whose merges are all pairs of pieces
//! that make a piece, best first.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::{Value as Json, json};
use tokenizers::Tokenizer as Model;
use tokenizers::models::bpe::{BPE, Vocab};

use super::{Gguf, Kind, NORMAL, USER_DEFINED, Value, damaged};
use crate::error::LoadError;

/// What stands for a space.
const SPACE: &str = "\u{2581}";

pub(super) fn kind(gguf: &Gguf) -> Result<Kind, LoadError> {
    let pieces = pieces(gguf)?;
    let merges = match gguf.merges() {
        Some(merges) => merges?,
        None => merges_of(&pieces),
    };
    let vocabulary = pieces.into_iter().map(|piece| piece.text);
    let mut bpe = BPE::builder()
        .vocab_and_merges(vocabulary.zip(0..).collect::<Vocab>(), merges)
        .fuse_unk(true)
        .byte_fallback(true);
    let unknown = gguf.token_text("unknown_token_id");
    if !unknown.is_empty() {
        bpe = bpe.unk_token(unknown);
    }
    let bpe = bpe
        .build()
        .map_err(|error| damaged(&gguf.path, error.to_string()))?;
    let begins_with_space =
        gguf.get("tokenizer.ggml.add_space_prefix") != Some(&Value::Bool(false));
    let mut model = Model::new(bpe);
    model.with_normalizer(Some(
        gguf.part::<tokenizers::NormalizerWrapper>(normalizer(begins_with_space))?,
    ));
    model.with_decoder(Some(
        gguf.part::<tokenizers::DecoderWrapper>(decoder(begins_with_space))?,
    ));
    Ok(Kind {
        model,
        begins: true,
    })
}

/// A piece of the vocabulary.
struct Piece {
    text: String,
    /// The greater, the sooner it is made; `None` if it is never made.
    score: Option<f32>,
}

fn pieces(gguf: &Gguf) -> Result<Vec<Piece>, LoadError> {
    let (tokens, types) = (gguf.tokens()?, gguf.token_types()?);
    let scores = gguf.floats("tokenizer.ggml.scores").unwrap_or(&[]);
    if scores.len() != tokens.len() || scores.iter().any(|score| !score.is_finite()) {
        let reason = "its tokenizer has no score for each token";
        return Err(damaged(&gguf.path, reason));
    }
    // Gemma's scores do not say in which order its pieces are made; their places
    // do.
    let by_place = gguf.architecture().starts_with("gemma");
    let pieces = tokens.iter().zip(types).zip(scores).enumerate();
    Ok(pieces
        .map(|(place, ((token, kind), &score))| Piece {
            // Some files spell runs of spaces as they are.
            text: match token.bytes().all(|byte| byte == b' ') {
                true => SPACE.repeat(token.len()),
                false => token.clone(),
            },
            score: [NORMAL, USER_DEFINED]
                .contains(&kind)
                .then_some(if by_place { -(place as f32) } else { score }),
        })
        .collect())
}

/// A way to make a piece of two others.
struct Merge<'a> {
    halves: (&'a str, &'a str),
    score: f32,
    /// The halves' lengths in characters: of equal scores the longer is first.
    lengths: (usize, usize),
}

/// All pairs of pieces that make a piece, best first, in the order in which
/// transformers has them.
fn merges_of(pieces: &[Piece]) -> Vec<(String, String)> {
    let merged = || {
        let numbered = pieces.iter().enumerate();
        numbered.filter_map(|(id, piece)| Some((piece.text.as_str(), id, piece.score?)))
    };
    let ids: HashMap<&str, usize> = merged().map(|(text, id, _)| (text, id)).collect();
    let mut merges: Vec<Merge<'_>> = Vec::new();
    for (text, _, score) in merged() {
        let first = merges.len();
        let length = text.chars().count();
        for (left_length, (place, _)) in text.char_indices().enumerate().skip(1) {
            let halves = text.split_at(place);
            if ids.contains_key(halves.0) && ids.contains_key(halves.1) {
                merges.push(Merge {
                    halves,
                    score,
                    lengths: (left_length, length - left_length),
                });
            }
        }
        merges[first..].sort_by_key(|merge| (ids[merge.halves.0], ids[merge.halves.1]));
    }
    merges.sort_by(|one, other| best_first(one, other));
    let halves = merges.iter().map(|merge| merge.halves);
    halves
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .collect()
}

fn best_first(one: &Merge<'_>, other: &Merge<'_>) -> Ordering {
    let scores = other.score.total_cmp(&one.score);
    scores.then_with(|| other.lengths.cmp(&one.lengths))
}

fn normalizer(begins_with_space: bool) -> Json {
    let mut steps = Vec::new();
    if begins_with_space {
        steps.push(json!({"type": "Prepend", "prepend": SPACE}));
    }
    steps.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
    json!({"type": "Sequence", "normalizers": steps})
}

fn decoder(begins_with_space: bool) -> Json {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if begins_with_space {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}
