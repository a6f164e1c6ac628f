//! Llamas in a folder.

use std::path::Path;

use infernet_protocol::inference::{Task, TokenId};
use serde::Deserialize;
use serde_json::Value;

use super::super::Parts;
use super::{TextFile, weight_files};
use crate::chat::ChatTemplate;
use crate::error::LoadError;
use crate::formats::safetensors::Shards;
use crate::formats::{damaged, unsupported};
use crate::manifest::{Digest, FileRole, Manifest};
use crate::models::{Placement, llama};
use crate::tokenizer::Tokenizer;

/// The part of a Llama's `config.json` that is needed.
#[derive(Deserialize)]
struct LlamaFile {
    num_hidden_layers: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_attention_heads: i64,
    num_key_value_heads: Option<i64>,
    head_dim: Option<i64>,
    vocab_size: i64,
    max_position_embeddings: i64,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeFile>,
    rope_parameters: Option<RopeFile>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
    eos_token_id: Option<EndTokens>,
}

#[derive(Deserialize)]
struct RopeFile {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
}

/// One token or several: files have both.
#[derive(Deserialize)]
#[serde(untagged)]
enum EndTokens {
    One(TokenId),
    Several(Vec<TokenId>),
}

impl EndTokens {
    fn into_list(self) -> Vec<TokenId> {
        match self {
            Self::One(token) => vec![token],
            Self::Several(tokens) => tokens,
        }
    }
}

#[derive(Deserialize)]
struct GenerationFile {
    eos_token_id: Option<EndTokens>,
}

/// Loads a Llama, whose `config.json` is given.
pub(super) fn load(
    folder: &Path,
    config_file: &TextFile,
    placement: Placement,
) -> Result<Parts, LoadError> {
    let file: LlamaFile = config_file.parse()?;
    let tokenizer_file = TextFile::require(folder.join("tokenizer.json"))?;
    let tokenizer_config = TextFile::find(folder.join("tokenizer_config.json"))?;
    let template = template(folder, tokenizer_config.as_ref())?;
    let generation = TextFile::find(folder.join("generation_config.json"))?;
    let generation: Option<GenerationFile> = generation.map(|file| file.parse()).transpose()?;
    let end_tokens = generation
        .and_then(|file| file.eos_token_id)
        .or(file.eos_token_id)
        .map(EndTokens::into_list)
        .unwrap_or_default();
    let config = llama_config(
        &config_file.path,
        LlamaFile {
            eos_token_id: None,
            ..file
        },
    )?;
    let weights = Shards::open(folder)?;
    let mut files = vec![
        config_file.as_file(FileRole::Config),
        tokenizer_file.as_file(FileRole::Tokenizer),
    ];
    files.extend(tokenizer_config.map(|file| file.as_file(FileRole::TokenizerConfig)));
    files.extend(weight_files(&weights));
    let manifest = Manifest {
        architecture: String::new(),
        task: Task::TextGeneration,
        chat_template: template.as_ref().map(|template| template.digest),
        context: u32::try_from(config.context).unwrap_or(u32::MAX),
        end_tokens: end_tokens.clone(),
        files,
    };
    let tokenizer = Tokenizer::new(&tokenizer_file.bytes)
        .and_then(|tokenizer| {
            tokenizer.for_answers(template.map(|template| template.template), end_tokens)
        })
        .map_err(|reason| damaged(&tokenizer_file.path, reason))?;
    super::super::llama(
        &config_file.path,
        config,
        &weights,
        placement,
        tokenizer,
        manifest,
    )
}

fn llama_config(path: &Path, file: LlamaFile) -> Result<llama::Config, LoadError> {
    for rope in [&file.rope_scaling, &file.rope_parameters]
        .into_iter()
        .flatten()
    {
        match rope.rope_type.as_deref() {
            None | Some("default") => {}
            Some(kind) => return Err(unsupported(path, format!("rope scaling of type {kind}"))),
        }
    }
    if let Some(activation) = file.hidden_act.filter(|name| name != "silu") {
        return Err(unsupported(path, format!("the activation {activation}")));
    }
    let theta = file.rope_parameters.and_then(|rope| rope.rope_theta);
    let (width, heads) = (file.hidden_size, file.num_attention_heads);
    Ok(llama::Config {
        layers: file.num_hidden_layers,
        width,
        feed_forward: file.intermediate_size,
        heads,
        kv_heads: file.num_key_value_heads.unwrap_or(heads),
        head_width: file.head_dim.or(width.checked_div(heads)).unwrap_or(0),
        vocabulary: file.vocab_size,
        context: file.max_position_embeddings,
        rope_theta: theta.or(file.rope_theta).unwrap_or(10_000.0),
        norm_epsilon: file.rms_norm_eps,
        attention_bias: file.attention_bias,
        feed_forward_bias: file.mlp_bias,
        tied: file.tie_word_embeddings,
    })
}

/// A folder's chat template, and what names it in the manifest.
struct Template {
    template: ChatTemplate,
    digest: Digest,
}

/// The chat template: `chat_template.jinja`, or what `tokenizer_config.json`
/// holds.
fn template(folder: &Path, config_file: Option<&TextFile>) -> Result<Option<Template>, LoadError> {
    let config: Value = match config_file {
        Some(file) => file.parse()?,
        None => Value::Null,
    };
    let own = TextFile::find(folder.join("chat_template.jinja"))?;
    let (path, text) = match (own, config_file) {
        (Some(file), _) => {
            let text = String::from_utf8(file.bytes)
                .map_err(|_| damaged(&file.path, "it is no UTF-8 text"))?;
            (file.path, text)
        }
        (None, Some(file)) => match named_template(&config["chat_template"]) {
            Some(text) => (file.path.clone(), text.to_owned()),
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let digest = Digest::of(text.as_bytes());
    let (begin, end) = (
        token_text(&config["bos_token"]),
        token_text(&config["eos_token"]),
    );
    let template = ChatTemplate::new(text, begin, end).map_err(|reason| damaged(&path, reason))?;
    Ok(Some(Template { template, digest }))
}

/// The one template, or the one named `default` of several.
fn named_template(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(several) => several
            .iter()
            .find(|one| one["name"] == "default")
            .and_then(|one| one["template"].as_str()),
        _ => None,
    }
}

/// A special token's text, which files give plainly or inside an object.
fn token_text(value: &Value) -> String {
    let text = value.as_str().or_else(|| value["content"].as_str());
    text.unwrap_or_default().to_owned()
}
