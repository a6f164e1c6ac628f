//! The families of decoders: what their models are called, how their
//! configuration is read from `config.json` and from a GGUF, and where their
//! tensors differ. A family is a file of its own beside this one, named in
//! [`FAMILIES`].

mod config_file;
mod gemma3;
mod llama;
#[cfg(test)]
mod logits;
mod metadata;
mod mistral;
mod qwen2;
mod qwen3;
mod rope;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::decoder::Config;
use crate::error::LoadError;
use crate::formats::gguf::layout::Layout;
use crate::formats::{damaged, unsupported};

pub(crate) use config_file::ConfigFile;
pub(crate) use metadata::Metadata;

/// All families there are.
const FAMILIES: &[&Family] = &[
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &gemma3::FAMILY,
];

/// What sets a family of decoders apart from the others.
#[derive(Debug)]
pub(crate) struct Family {
    /// Its name in a manifest.
    pub(crate) name: &'static str,
    /// Its models in folders.
    architectures: &'static [Architecture],
    /// Makes a config of a `config.json`.
    pub(crate) from_folder: fn(&ConfigFile) -> Result<Config, Unfit>,
    /// Its models in GGUF, if they have an architecture of their own there.
    pub(crate) gguf: Option<InGguf>,
}

/// A family's models in folders.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// What `config.json` calls them.
    pub(crate) name: &'static str,
    /// Where the text is only a part of the model.
    pub(crate) part: Option<Part>,
}

/// The part of a larger model that is a decoder. The rest of it is not loaded.
#[derive(Debug)]
pub(crate) struct Part {
    /// The field of `config.json` that is about it.
    pub(crate) config: &'static str,
    /// What stands before its tensors' names in place of `model.`: one of these.
    pub(crate) model: &'static [&'static str],
    /// And in place of `lm_head.`.
    pub(crate) head: &'static [&'static str],
}

/// A family's models in GGUF.
#[derive(Debug)]
pub(crate) struct InGguf {
    /// `general.architecture`.
    architecture: &'static str,
    pub(crate) layout: Layout,
    /// Makes a config of the metadata.
    pub(crate) config: fn(&Metadata<'_>) -> Result<Config, Unfit>,
}

/// Why a configuration makes no decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// What is wrong in it.
    Damaged(String),
    /// What it wants and is not there.
    Unsupported(String),
}

impl Unfit {
    /// The error, for the file that the configuration is in.
    pub(crate) fn of(self, path: &Path) -> LoadError {
        match self {
            Self::Damaged(reason) => damaged(path, reason),
            Self::Unsupported(what) => unsupported(path, what),
        }
    }
}

impl Family {
    /// The family that an architecture of `config.json` belongs to.
    pub(crate) fn in_folder(name: &str) -> Option<(&'static Self, &'static Architecture)> {
        FAMILIES.iter().find_map(|family| {
            let found = family.architectures.iter().find(|known| known.name == name);
            found.map(|architecture| (*family, architecture))
        })
    }

    /// The family of a GGUF's `general.architecture`.
    pub(crate) fn in_gguf(name: &str) -> Option<(&'static Self, &'static InGguf)> {
        FAMILIES.iter().find_map(|family| {
            let found = family
                .gguf
                .as_ref()
                .filter(|gguf| gguf.architecture == name);
            found.map(|gguf| (*family, gguf))
        })
    }

    /// The architectures of `config.json` that there are.
    pub(crate) fn all_in_folders() -> impl Iterator<Item = &'static str> {
        let all = FAMILIES.iter().flat_map(|family| family.architectures);
        all.map(|architecture| architecture.name)
    }

    /// The architectures of GGUF that there are.
    pub(crate) fn all_in_gguf() -> impl Iterator<Item = &'static str> {
        let all = FAMILIES.iter().filter_map(|family| family.gguf.as_ref());
        all.map(|gguf| gguf.architecture)
    }
}
