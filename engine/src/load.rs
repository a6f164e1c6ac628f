//! From a path to a model that runs.

mod folder;
mod gguf;
mod module;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use infernet_protocol::inference::Dtype;
use tch::{Device, Kind};

pub(crate) use module::Module;

use crate::error::LoadError;
use crate::formats::gguf::split;
use crate::formats::unsupported;
use crate::linear::Packing;
use crate::manifest::Manifest;
use crate::models::Placement;
use crate::models::decoder::{self, Decoder};
use crate::models::encoder::Encoder;
use crate::port::ModelInfo;
use crate::tokenizer::Tokenizer;

/// Where a model lies and how to run it.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// A GGUF file, a folder that holds one, or a folder in Hugging Face's
    /// layout: `config.json`, `model.safetensors` or its index and shards,
    /// `tokenizer.json`. Its files are mapped into memory: replace them by new
    /// ones (`mv`) and never write into them while the model is loaded, since
    /// shortening one ends the process (SIGBUS). Or a module: a folder with a
    /// `module.json` and a TorchScript file (`.pt`, `.ts`), or that file. It is
    /// code, and runs with the rights of this process.
    pub path: PathBuf,
    /// What to call it; else it is named after its file or folder.
    pub name: Option<String>,
    /// What to compute in; int8 and int4 on the processor alone.
    pub dtype: Dtype,
}

impl ModelSource {
    /// A model in f32, named after its file or folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            name: None,
            dtype: Dtype::F32,
        }
    }
}

/// A model that is ready to run.
pub(crate) struct Loaded {
    pub(crate) info: ModelInfo,
    pub(crate) served: Served,
}

/// What serves requests.
pub(crate) enum Served {
    /// A network on tokens.
    Network {
        tokenizer: Arc<Tokenizer>,
        network: Network,
    },
    /// Any other computation.
    Module(Box<Module>),
}

/// What computes.
pub(crate) enum Network {
    Text(Box<Decoder>),
    Embedding(Box<Encoder>),
}

/// What a format's reader found.
struct Parts {
    manifest: Manifest,
    tokenizer: Tokenizer,
    network: Network,
    parameters: u64,
    embedding_width: Option<u32>,
}

/// Loads a model. A file that makes a library panic is a damaged file.
pub(crate) fn load(source: &ModelSource, device: Device) -> Result<Loaded, LoadError> {
    // On a thread that ends. libgomp keeps threads for each one that computes, and
    // when all together are more than cores it has them sleep at every turn.
    let loaded = thread::scope(|scope| {
        let load = || {
            let _no_grad = tch::no_grad_guard();
            load_unguarded(source, device)
        };
        scope.spawn(load).join()
    });
    loaded.unwrap_or_else(|_| {
        Err(LoadError::Damaged {
            path: source.path.clone(),
            reason: "reading it failed in a way that nobody foresaw".into(),
        })
    })
}

fn load_unguarded(source: &ModelSource, device: Device) -> Result<Loaded, LoadError> {
    if module::is_module(&source.path) {
        return load_module(source, device);
    }
    let placement = placement(source, device)?;
    let path = find(&source.path)?;
    let parts = match path.is_dir() {
        true => folder::load(&path, placement)?,
        false => gguf::load(&path, placement)?,
    };
    let info = ModelInfo {
        id: parts.manifest.id(),
        name: source.name.clone().unwrap_or_else(|| name(&source.path)),
        task: parts.manifest.task,
        architecture: parts.manifest.architecture,
        context: parts.manifest.context,
        dtype: source.dtype,
        parameters: parts.parameters,
        embedding_width: parts.embedding_width,
        interface: None,
    };
    Ok(Loaded {
        info,
        served: Served::Network {
            tokenizer: Arc::new(parts.tokenizer),
            network: parts.network,
        },
    })
}

/// A module is computed as it was saved, whatever the number format asked for.
fn load_module(source: &ModelSource, device: Device) -> Result<Loaded, LoadError> {
    let found = module::load(&source.path, device)?;
    let own_name = source.name.clone().or(found.name);
    Ok(Loaded {
        info: ModelInfo {
            id: found.manifest.id(),
            name: own_name.unwrap_or_else(|| name(&source.path)),
            task: found.manifest.task,
            architecture: found.manifest.architecture,
            context: found.manifest.context,
            dtype: found.dtype,
            parameters: found.parameters,
            embedding_width: None,
            interface: Some(found.module.interface.clone()),
        },
        served: Served::Module(Box::new(found.module)),
    })
}

/// What the number format asked for means on this device.
fn placement(source: &ModelSource, device: Device) -> Result<Placement, LoadError> {
    let (kind, packing) = match source.dtype {
        Dtype::F32 => (Kind::Float, Packing::None),
        Dtype::Bf16 => (Kind::BFloat16, Packing::None),
        Dtype::Int8 => (Kind::BFloat16, Packing::Int8),
        Dtype::Int4 => (Kind::BFloat16, Packing::Int4),
        Dtype::Scripted => {
            let what = "computing as scripted (take f32, bf16, int8 or int4)";
            return Err(unsupported(&source.path, what));
        }
    };
    if packing != Packing::None && device != Device::Cpu {
        let what = format!("{} on a GPU (take bf16)", source.dtype);
        return Err(unsupported(&source.path, what));
    }
    Ok(Placement {
        device,
        kind,
        packing,
    })
}

/// The folder or GGUF that a path means.
fn find(path: &Path) -> Result<PathBuf, LoadError> {
    let unreadable = |source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_dir() || path.join("config.json").exists() {
        return Ok(path.to_owned());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension() == Some(OsStr::new("gguf")) {
            found.push(file);
        }
    }
    if let Some(first) = split::first_of(&found) {
        return Ok(first);
    }
    match (found.pop(), found.is_empty()) {
        (Some(file), true) => Ok(file),
        (Some(_), false) => Err(unsupported(path, "a folder of several GGUF files")),
        (None, _) => Err(unsupported(
            path,
            "a folder with neither config.json nor a GGUF file",
        )),
    }
}

/// A name for people: that of the folder, or of the file without what says how
/// it is quantised.
fn name(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let lower = file.to_lowercase();
    let Some(stem) = lower.strip_suffix(".gguf") else {
        return lower;
    };
    let stem = split::part(OsStr::new(&lower)).map_or(stem, |(beginning, ..)| beginning);
    match stem.rsplit_once(['.', '-']) {
        Some((name, end)) if is_quantization(end) => name.to_owned(),
        _ => stem.to_owned(),
    }
}

/// Is it one of ggml's names: `q4_1`, `iq2_xs`, `f16`, `bf16`?
fn is_quantization(text: &str) -> bool {
    ["q", "iq", "f", "bf"].iter().any(|beginning| {
        text.strip_prefix(beginning)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// Makes a decoder of what a reader found; the same for all formats.
fn decoder(
    path: &Path,
    config: decoder::Config,
    weights: &dyn crate::formats::Weights,
    placement: Placement,
    tokenizer: Tokenizer,
    manifest: Manifest,
) -> Result<Parts, LoadError> {
    let damaged = |reason: String| crate::formats::damaged(path, reason);
    config.validate().map_err(damaged)?;
    let tokenizer = tokenizer.within(config.vocabulary).map_err(damaged)?;
    let (network, parameters) = Decoder::load(config, weights, placement)?;
    Ok(Parts {
        manifest,
        tokenizer,
        network: Network::Text(Box::new(network)),
        parameters,
        embedding_width: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_leave_the_quantization_out() {
        for (path, expected) in [
            (
                "/m/SmolLM2-135M-Instruct.Q4_1.gguf",
                "smollm2-135m-instruct",
            ),
            ("/m/Llama-3-8B-bf16.gguf", "llama-3-8b"),
            ("/m/tiny.gguf", "tiny"),
            ("/m/Llama-70B-Q4_K_M-00001-of-00002.gguf", "llama-70b"),
            ("/m/all-MiniLM-L6-v2", "all-minilm-l6-v2"),
        ] {
            assert_eq!(name(Path::new(path)), expected);
        }
    }
}
