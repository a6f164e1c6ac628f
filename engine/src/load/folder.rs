//! Models in a folder of Hugging Face's layout.

use std::io;
use std::path::{Path, PathBuf};

use infernet_protocol::inference::{Task, TokenId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Network, Parts};
use crate::chat::ChatTemplate;
use crate::error::LoadError;
use crate::formats::safetensors::Shards;
use crate::formats::{damaged, unsupported};
use crate::manifest::{Digest, File, FileRole, Manifest};
use crate::models::bert::{self, Bert, Pooling};
use crate::models::{Placement, llama};
use crate::tokenizer::Tokenizer;

/// The largest file other than weights, in bytes: large vocabularies have some
/// ten million.
const MAX_FILE_BYTES: u64 = 64 << 20;

pub(super) fn load(folder: &Path, placement: Placement) -> Result<Parts, LoadError> {
    let config = TextFile::require(folder.join("config.json"))?;
    let family: Family = config.parse()?;
    match family.architectures.first().map(String::as_str) {
        Some("LlamaForCausalLM") => load_llama(folder, &config, placement),
        Some("BertModel") => load_bert(folder, &config, placement),
        other => {
            let name = other.unwrap_or("(none)");
            Err(unsupported(
                &config.path,
                format!("the architecture {name}"),
            ))
        }
    }
}

/// A small file of a model.
struct TextFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl TextFile {
    fn require(path: PathBuf) -> Result<Self, LoadError> {
        let unreadable = |source| LoadError::Unreadable {
            path: path.clone(),
            source,
        };
        let size = std::fs::metadata(&path).map_err(unreadable)?.len();
        if size > MAX_FILE_BYTES {
            return Err(damaged(&path, format!("{size} bytes are too many for it")));
        }
        let bytes = std::fs::read(&path).map_err(unreadable)?;
        Ok(Self { path, bytes })
    }

    fn find(path: PathBuf) -> Result<Option<Self>, LoadError> {
        match Self::require(path) {
            Err(LoadError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        serde_json::from_slice(&self.bytes).map_err(|e| damaged(&self.path, e.to_string()))
    }

    fn as_file(&self, role: FileRole) -> File {
        File {
            role,
            sha256: Digest::of(&self.bytes),
        }
    }
}

#[derive(Deserialize)]
struct Family {
    #[serde(default)]
    architectures: Vec<String>,
}

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

fn load_llama(
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
    super::llama(
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

fn weight_files(weights: &Shards) -> impl Iterator<Item = File> {
    weights.bytes().map(|bytes| File {
        role: FileRole::Weights,
        sha256: Digest::of(bytes),
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

/// The part of a BERT's `config.json` that is needed.
#[derive(Deserialize)]
struct BertFile {
    num_hidden_layers: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_attention_heads: i64,
    vocab_size: i64,
    max_position_embeddings: i64,
    type_vocab_size: i64,
    layer_norm_eps: f64,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
}

/// `sentence_bert_config.json`.
#[derive(Deserialize)]
struct SentenceFile {
    max_seq_length: Option<i64>,
}

/// One module of `modules.json`.
#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// `1_Pooling/config.json`, as far as it is supported.
#[derive(Deserialize)]
struct PoolingFile {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
}

fn load_bert(
    folder: &Path,
    config_file: &TextFile,
    placement: Placement,
) -> Result<Parts, LoadError> {
    let file: BertFile = config_file.parse()?;
    let tokenizer_file = TextFile::require(folder.join("tokenizer.json"))?;
    let sentence = TextFile::find(folder.join("sentence_bert_config.json"))?;
    let sentence: Option<SentenceFile> = sentence.map(|file| file.parse()).transpose()?;
    let longest = sentence.and_then(|file| file.max_seq_length);
    let context = longest
        .unwrap_or(i64::MAX)
        .min(file.max_position_embeddings);
    let (pooling, normalize, pooling_files) = pooling(folder)?;
    let config = bert_config(&config_file.path, file, pooling, normalize)?;
    let weights = Shards::open(folder)?;
    let mut files = vec![
        config_file.as_file(FileRole::Config),
        tokenizer_file.as_file(FileRole::Tokenizer),
    ];
    files.extend(pooling_files);
    files.extend(weight_files(&weights));
    let tokenizer = Tokenizer::new(&tokenizer_file.bytes)
        .map_err(|reason| damaged(&tokenizer_file.path, reason))?;
    if i64::from(tokenizer.vocabulary_size()) > config.vocabulary {
        let reason = "it has more tokens than the model's weights";
        return Err(damaged(&tokenizer_file.path, reason));
    }
    let width = u32::try_from(config.width).ok();
    let (network, parameters) = Bert::load(config, &weights, placement)?;
    Ok(Parts {
        manifest: Manifest {
            architecture: "bert".into(),
            task: Task::Embedding,
            chat_template: None,
            context: u32::try_from(context).unwrap_or(0),
            end_tokens: vec![],
            files,
        },
        tokenizer,
        network: Network::Embedding(Box::new(network)),
        parameters,
        embedding_width: width,
    })
}

fn bert_config(
    path: &Path,
    file: BertFile,
    pooling: Pooling,
    normalize: bool,
) -> Result<bert::Config, LoadError> {
    if let Some(activation) = file.hidden_act.filter(|name| name != "gelu") {
        return Err(unsupported(path, format!("the activation {activation}")));
    }
    if let Some(kind) = file
        .position_embedding_type
        .filter(|kind| kind != "absolute")
    {
        return Err(unsupported(path, format!("positions of type {kind}")));
    }
    let config = bert::Config {
        layers: file.num_hidden_layers,
        width: file.hidden_size,
        feed_forward: file.intermediate_size,
        heads: file.num_attention_heads,
        vocabulary: file.vocab_size,
        positions: file.max_position_embeddings,
        token_types: file.type_vocab_size,
        norm_epsilon: file.layer_norm_eps,
        pooling,
        normalize,
    };
    config.validate().map_err(|reason| damaged(path, reason))?;
    Ok(config)
}

/// How token vectors become one, and whether its length becomes 1: what
/// `modules.json` says, or the mean of length 1 where there is none.
fn pooling(folder: &Path) -> Result<(Pooling, bool, Vec<File>), LoadError> {
    let Some(modules_file) = TextFile::find(folder.join("modules.json"))? else {
        return Ok((Pooling::Mean, true, vec![]));
    };
    let modules: Vec<Module> = modules_file.parse()?;
    let mut files = vec![modules_file.as_file(FileRole::Modules)];
    let (mut pooling, mut normalize) = (Pooling::Mean, false);
    for module in modules {
        match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Normalize" => normalize = true,
            "Pooling" if module.path == "1_Pooling" => {
                let file = TextFile::require(folder.join("1_Pooling").join("config.json"))?;
                pooling = pooling_mode(&file)?;
                files.push(file.as_file(FileRole::Pooling));
            }
            _ => {
                let what = format!("the module {}", module.kind);
                return Err(unsupported(&modules_file.path, what));
            }
        }
    }
    Ok((pooling, normalize, files))
}

fn pooling_mode(file: &TextFile) -> Result<Pooling, LoadError> {
    let modes: PoolingFile = file.parse()?;
    let others = modes.pooling_mode_max_tokens || modes.pooling_mode_mean_sqrt_len_tokens;
    match (
        modes.pooling_mode_mean_tokens,
        modes.pooling_mode_cls_token,
        others,
    ) {
        (true, false, false) => Ok(Pooling::Mean),
        (false, true, false) => Ok(Pooling::First),
        _ => Err(unsupported(&file.path, "its way of pooling")),
    }
}
