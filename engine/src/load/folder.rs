//! Models in a folder of Hugging Face's layout.

mod bert;
mod llama;

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Parts;
use crate::error::LoadError;
use crate::formats::safetensors::Shards;
use crate::formats::{damaged, read, unsupported};
use crate::manifest::{Digest, File, FileRole};
use crate::models::Placement;

pub(super) fn load(folder: &Path, placement: Placement) -> Result<Parts, LoadError> {
    let config = TextFile::require(folder.join("config.json"))?;
    let family: Family = config.parse()?;
    match family.architectures.first().map(String::as_str) {
        Some("LlamaForCausalLM") => llama::load(folder, &config, placement),
        Some("BertModel") => bert::load(folder, &config, placement),
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
        let bytes = read(&path)?;
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

fn weight_files(weights: &Shards) -> impl Iterator<Item = File> {
    weights.bytes().map(|bytes| File {
        role: FileRole::Weights,
        sha256: Digest::of(bytes),
    })
}
