//! Decoders in a folder.

use std::path::Path;

use infernet_protocol::inference::{Task, TokenId};
use serde::Deserialize;
use serde_json::Value;

use super::super::Parts;
use super::part::Inside;
use super::template::{self, Template};
use super::{TextFile, weight_files};
use crate::error::LoadError;
use crate::formats::safetensors::Shards;
use crate::formats::{Weights, damaged};
use crate::manifest::{FileRole, Manifest};
use crate::models::Placement;
use crate::models::family::{Architecture, ConfigFile, Family};
use crate::tokenizer::Tokenizer;

/// One token or several: files have both.
#[derive(Deserialize)]
#[serde(untagged)]
enum EndTokens {
    One(TokenId),
    Several(Vec<TokenId>),
}

/// The end tokens in `generation_config.json` and in `config.json`.
#[derive(Deserialize)]
struct EndFile {
    eos_token_id: Option<EndTokens>,
}

impl EndFile {
    fn tokens(self) -> Option<Vec<TokenId>> {
        self.eos_token_id.map(|tokens| match tokens {
            EndTokens::One(token) => vec![token],
            EndTokens::Several(tokens) => tokens,
        })
    }
}

/// Loads a decoder of this family, whose `config.json` is given.
pub(super) fn load(
    folder: &Path,
    config_file: &TextFile,
    (family, architecture): (&Family, &'static Architecture),
    placement: Placement,
) -> Result<Parts, LoadError> {
    let about_text = about_text(config_file, architecture)?;
    let config: ConfigFile = parse(config_file, &about_text)?;
    let config = (family.from_folder)(&config).map_err(|unfit| unfit.of(&config_file.path))?;
    let end_tokens = end_tokens(folder, config_file, &about_text)?;
    let tokenizer_file = TextFile::require(folder.join("tokenizer.json"))?;
    let tokenizer_config = TextFile::find(folder.join("tokenizer_config.json"))?;
    let template = template::find(folder, tokenizer_config.as_ref())?;
    let weights = Shards::open(folder)?;
    let mut files = vec![
        config_file.as_file(FileRole::Config),
        tokenizer_file.as_file(FileRole::Tokenizer),
    ];
    files.extend(tokenizer_config.map(|file| file.as_file(FileRole::TokenizerConfig)));
    files.extend(weight_files(&weights));
    let manifest = Manifest {
        architecture: family.name.into(),
        task: Task::TextGeneration,
        chat_template: template.as_ref().map(|template| template.digest),
        context: u32::try_from(config.context).unwrap_or(u32::MAX),
        end_tokens: end_tokens.clone(),
        files,
    };
    let tokenizer = tokenizer(&tokenizer_file, template, end_tokens)?;
    let inside = architecture.part.as_ref();
    let inside = inside.map(|part| Inside::new(&weights, part));
    let weights: &dyn Weights = match &inside {
        Some(inside) => inside,
        None => &weights,
    };
    super::super::decoder(
        &config_file.path,
        config,
        weights,
        placement,
        tokenizer,
        manifest,
    )
}

/// The part of `config.json` that is about the text; mostly all of it.
fn about_text(file: &TextFile, architecture: &Architecture) -> Result<Value, LoadError> {
    let mut whole: Value = file.parse()?;
    match &architecture.part {
        None => Ok(whole),
        Some(part) => match whole.get_mut(part.config) {
            Some(about_text) => Ok(about_text.take()),
            None => Err(damaged(&file.path, format!("it has no {}", part.config))),
        },
    }
}

fn parse<T: for<'a> Deserialize<'a>>(file: &TextFile, value: &Value) -> Result<T, LoadError> {
    T::deserialize(value).map_err(|error| damaged(&file.path, error.to_string()))
}

/// From `generation_config.json`; without any there, from `config.json`.
fn end_tokens(
    folder: &Path,
    config_file: &TextFile,
    about_text: &Value,
) -> Result<Vec<TokenId>, LoadError> {
    if let Some(file) = TextFile::find(folder.join("generation_config.json"))?
        && let Some(tokens) = file.parse::<EndFile>()?.tokens()
    {
        return Ok(tokens);
    }
    if let Some(tokens) = config_file.parse::<EndFile>()?.tokens() {
        return Ok(tokens);
    }
    let inside: EndFile = parse(config_file, about_text)?;
    Ok(inside.tokens().unwrap_or_default())
}

fn tokenizer(
    file: &TextFile,
    template: Option<Template>,
    end_tokens: Vec<TokenId>,
) -> Result<Tokenizer, LoadError> {
    Tokenizer::new(&file.bytes)
        .and_then(|tokenizer| {
            tokenizer.for_answers(template.map(|template| template.template), end_tokens)
        })
        .map_err(|reason| damaged(&file.path, reason))
}
