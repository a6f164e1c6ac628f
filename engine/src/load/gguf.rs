//! Models in a GGUF.

use std::path::Path;

use infernet_protocol::inference::Task;

use super::Parts;
use crate::chat::ChatTemplate;
use crate::error::LoadError;
use crate::formats::gguf::Gguf;
use crate::formats::{Weights, damaged, unsupported};
use crate::manifest::{Digest, File, FileRole, Manifest};
use crate::models::{Placement, llama};
use crate::tokenizer::Tokenizer;

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
        files: vec![File {
            role: FileRole::Gguf,
            sha256: Digest::of(gguf.bytes()),
        }],
    };
    super::llama(path, config, &gguf, placement, tokenizer, manifest)
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
    if gguf.contains("rope_freqs.weight")
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
        attention_bias: gguf.contains("model.layers.0.self_attn.q_proj.bias"),
        feed_forward_bias: gguf.contains("model.layers.0.mlp.gate_proj.bias"),
        tied: !gguf.contains("lm_head.weight"),
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
