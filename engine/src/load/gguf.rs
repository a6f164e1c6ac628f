//! Models in a GGUF.

use std::path::Path;

use infernet_protocol::inference::Task;

use super::Parts;
use crate::chat::ChatTemplate;
use crate::error::LoadError;
use crate::formats::gguf::Gguf;
use crate::formats::gguf::layout::{DECODER, Layout};
use crate::formats::{damaged, unsupported};
use crate::manifest::{Digest, File, FileRole, Manifest};
use crate::models::{Placement, llama};
use crate::tokenizer::Tokenizer;

/// Files of this architecture interleave the rows of queries and keys.
const LAYOUT: Layout = Layout {
    interleaved: true,
    ..DECODER
};

pub(super) fn load(path: &Path, placement: Placement) -> Result<Parts, LoadError> {
    let gguf = Gguf::open(path)?;
    match gguf.text("general.architecture") {
        Some("llama") => {}
        other => {
            let name = other.unwrap_or("(none)");
            return Err(unsupported(path, format!("the architecture {name}")));
        }
    }
    let config = config(&gguf)?;
    let tokenizer = tokenizer(&gguf)?;
    let manifest = Manifest {
        architecture: String::new(),
        task: Task::TextGeneration,
        chat_template: gguf.chat_template().map(|text| Digest::of(text.as_bytes())),
        context: u32::try_from(config.context).unwrap_or(u32::MAX),
        end_tokens: gguf.end_tokens(),
        files: gguf
            .bytes()
            .map(|bytes| File {
                role: FileRole::Gguf,
                sha256: Digest::of(bytes),
            })
            .collect(),
    };
    super::llama(
        path,
        config,
        &gguf.laid_out(&LAYOUT),
        placement,
        tokenizer,
        manifest,
    )
}

fn config(gguf: &Gguf) -> Result<llama::Config, LoadError> {
    let path = gguf.path();
    let size = |key: &str| {
        let key = format!("llama.{key}");
        let number = gguf.require(&key)?;
        i64::try_from(number).map_err(|_| damaged(path, format!("its {key} is {number}")))
    };
    let optional = |key: &str, default: i64| match gguf.get(&format!("llama.{key}")) {
        Some(_) => size(key),
        None => Ok(default),
    };
    if gguf.has_tensor("rope_freqs.weight")
        || gguf
            .text("llama.rope.scaling.type")
            .is_some_and(|kind| kind != "none")
    {
        return Err(unsupported(path, "rope scaling"));
    }
    if gguf.unsigned("llama.expert_count").unwrap_or(0) > 0 {
        return Err(unsupported(path, "a mixture of experts"));
    }
    let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
    let head_width = optional(
        "attention.key_length",
        width.checked_div(heads).unwrap_or(0),
    )?;
    if optional("rope.dimension_count", head_width)? != head_width {
        return Err(unsupported(path, "rotary positions on a part of each head"));
    }
    let tokens = gguf.texts("tokenizer.ggml.tokens").map_or(0, <[_]>::len);
    Ok(llama::Config {
        layers: size("block_count")?,
        width,
        feed_forward: size("feed_forward_length")?,
        heads,
        kv_heads: optional("attention.head_count_kv", heads)?,
        head_width,
        vocabulary: optional("vocab_size", i64::try_from(tokens).unwrap_or(0))?,
        context: size("context_length")?,
        rope_theta: gguf.float("llama.rope.freq_base").unwrap_or(10_000.0),
        norm_epsilon: gguf
            .float("llama.attention.layer_norm_rms_epsilon")
            .ok_or_else(|| damaged(path, "it has no norm epsilon"))?,
        attention_bias: gguf.has_tensor("blk.0.attn_q.bias"),
        feed_forward_bias: gguf.has_tensor("blk.0.ffn_gate.bias"),
        tied: !gguf.has_tensor("output.weight"),
    })
}

fn tokenizer(gguf: &Gguf) -> Result<Tokenizer, LoadError> {
    let damaged = |reason: String| damaged(gguf.path(), reason);
    let template = gguf
        .chat_template()
        .map(|text| {
            let (begin, end) = (
                gguf.token_text("bos_token_id"),
                gguf.token_text("eos_token_id"),
            );
            ChatTemplate::new(text.to_owned(), begin, end)
        })
        .transpose()
        .map_err(damaged)?;
    Tokenizer::new(&gguf.tokenizer_json()?)
        .and_then(|tokenizer| tokenizer.for_answers(template, gguf.end_tokens()))
        .map_err(damaged)
}
