//! BERTs in a folder, with what sentence-transformers adds.

use std::path::Path;

use infernet_protocol::inference::Task;
use serde::Deserialize;

use super::super::{Network, Parts};
use super::{TextFile, weight_files};
use crate::error::LoadError;
use crate::formats::safetensors::Shards;
use crate::formats::{damaged, unsupported};
use crate::manifest::{File, FileRole, Manifest};
use crate::models::Placement;
use crate::models::bert::{self, Bert, Pooling};
use crate::tokenizer::Tokenizer;

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
    #[serde(default)]
    do_lower_case: bool,
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

/// Loads a BERT, whose `config.json` is given.
pub(super) fn load(
    folder: &Path,
    config_file: &TextFile,
    placement: Placement,
) -> Result<Parts, LoadError> {
    let file: BertFile = config_file.parse()?;
    let tokenizer_file = TextFile::require(folder.join("tokenizer.json"))?;
    let context = context(folder, file.max_position_embeddings)?;
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
            context,
            end_tokens: vec![],
            files,
        },
        tokenizer,
        network: Network::Embedding(Box::new(network)),
        parameters,
        embedding_width: width,
    })
}

/// The longest text, in tokens: what `sentence_bert_config.json` says, and no
/// more than there are positions.
fn context(folder: &Path, positions: i64) -> Result<u32, LoadError> {
    let path = folder.join("sentence_bert_config.json");
    let sentence = TextFile::find(path.clone())?;
    let sentence: Option<SentenceFile> = sentence.map(|file| file.parse()).transpose()?;
    if sentence.as_ref().is_some_and(|file| file.do_lower_case) {
        return Err(unsupported(&path, "lower case before the tokenizer"));
    }
    let longest = sentence.and_then(|file| file.max_seq_length);
    match u32::try_from(longest.unwrap_or(positions).min(positions)) {
        Ok(context @ 1..) => Ok(context),
        _ => Err(damaged(&path, "its texts can have no token")),
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_text_has_a_token_and_no_more_than_there_are_positions() {
        let folder = tempfile::tempdir().unwrap();
        let with = |text: &str| {
            std::fs::write(folder.path().join("sentence_bert_config.json"), text).unwrap();
            context(folder.path(), 512)
        };
        assert_eq!(with(r#"{"max_seq_length": 256}"#).unwrap(), 256);
        assert_eq!(with(r#"{"max_seq_length": 1000}"#).unwrap(), 512);
        assert_eq!(with("{}").unwrap(), 512);
        for length in [0, -1] {
            let refused = with(&format!(r#"{{"max_seq_length": {length}}}"#));
            assert!(matches!(refused, Err(LoadError::Damaged { .. })));
        }
        let refused = with(r#"{"do_lower_case": true}"#);
        assert!(matches!(refused, Err(LoadError::Unsupported { .. })));
    }
}
