//! Models in a folder of Hugging Face's layout.

mod decoder;
mod encoder;
mod part;
mod template;

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
use crate::models::encoder::Family as EncoderFamily;
use crate::models::family::Family as DecoderFamily;

pub(super) fn load(folder: &Path, placement: Placement) -> Result<Parts, LoadError> {
    let config = TextFile::require(folder.join("config.json"))?;
    let family: Family = config.parse()?;
    let architecture = family.architectures.first().map(String::as_str);
    if let Some(family) = architecture.and_then(EncoderFamily::find) {
        return encoder::load(folder, &config, family, placement);
    }
    if let Some(family) = architecture.and_then(DecoderFamily::in_folder) {
        return decoder::load(folder, &config, family, placement);
    }
    let known: Vec<_> = DecoderFamily::all_in_folders()
        .chain(EncoderFamily::all())
        .collect();
    let what = format!(
        "the architecture {} (there are {})",
        architecture.unwrap_or("(none)"),
        known.join(", ")
    );
    Err(unsupported(&config.path, what))
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
