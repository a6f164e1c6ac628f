//! Encoders in a folder, with what sentence-transformers adds.

mod sentence;

use std::path::Path;

use infernet_protocol::inference::Task;

use super::super::{Network, Parts};
use super::{TextFile, weight_files};
use crate::error::LoadError;
use crate::formats::safetensors::Shards;
use crate::formats::{damaged, unsupported};
use crate::manifest::{FileRole, Manifest};
use crate::models::Placement;
use crate::models::encoder::{Config, ConfigFile, Encoder, Family};
use crate::tokenizer::Tokenizer;

/// Loads an encoder of this family, whose `config.json` is given.
pub(super) fn load(
    folder: &Path,
    config_file: &TextFile,
    family: &Family,
    placement: Placement,
) -> Result<Parts, LoadError> {
    let file: ConfigFile = config_file.parse()?;
    if let Some(what) = file.unsupported() {
        return Err(unsupported(&config_file.path, what));
    }
    let config = Config::new(family, &file).map_err(|e| damaged(&config_file.path, e))?;
    let context = sentence::context(folder, config.positions)?;
    let (summary, summary_files) = sentence::summary(folder)?;
    let tokenizer_file = TextFile::require(folder.join("tokenizer.json"))?;
    let tokenizer = tokenizer(&tokenizer_file, &config)?;
    let weights = Shards::open(folder)?;
    let mut files = vec![
        config_file.as_file(FileRole::Config),
        tokenizer_file.as_file(FileRole::Tokenizer),
    ];
    files.extend(summary_files);
    files.extend(weight_files(&weights));
    let (network, parameters) = Encoder::load(family, &config, summary, &weights, placement)?;
    Ok(Parts {
        manifest: Manifest {
            architecture: family.name.into(),
            task: Task::Embedding,
            chat_template: None,
            context,
            end_tokens: vec![],
            files,
        },
        tokenizer,
        network: Network::Embedding(Box::new(network)),
        parameters,
        embedding_width: u32::try_from(config.width).ok(),
    })
}

fn tokenizer(file: &TextFile, config: &Config) -> Result<Tokenizer, LoadError> {
    let tokenizer = Tokenizer::new(&file.bytes).map_err(|reason| damaged(&file.path, reason))?;
    if i64::from(tokenizer.vocabulary_size()) > config.vocabulary {
        let reason = "it has more tokens than the model's weights";
        return Err(damaged(&file.path, reason));
    }
    Ok(tokenizer)
}
