//! Safetensors, Hugging Face's format: one file, or an index of several.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use tch::{Kind, Tensor};

use super::{MappedFile, Weights, damaged, in_file, map, mistaken, read, unsupported};
use crate::error::LoadError;

/// Files that one index may name: the largest models come in some hundreds.
const MAX_SHARDS: usize = 1024;

/// A folder's weights.
pub(crate) struct Shards {
    shards: Vec<Shard>,
    /// Which shard a tensor is in.
    places: HashMap<String, usize>,
}

struct Shard {
    path: PathBuf,
    file: MappedFile,
    /// Where the tensors' data begins, in bytes.
    data: usize,
    tensors: HashMap<String, TensorInfo>,
}

/// The part of `model.safetensors.index.json` that is needed.
#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Shards {
    /// Opens `model.safetensors`, or the files that
    /// `model.safetensors.index.json` names.
    pub(crate) fn open(folder: &Path) -> Result<Self, LoadError> {
        let index = folder.join("model.safetensors.index.json");
        let paths = match index.exists() {
            true => shard_paths(folder, &index)?,
            false => vec![folder.join("model.safetensors")],
        };
        if let ([only], Some(pickle)) = (&paths[..], mistaken::pickle_in(folder))
            && !only.exists()
        {
            let what =
                "a pickle, which could run a program when it is read (convert it to safetensors)";
            return Err(unsupported(&pickle, what));
        }
        let shards = paths
            .into_iter()
            .map(Shard::open)
            .collect::<Result<Vec<_>, _>>()?;
        let mut places = HashMap::new();
        for (place, shard) in shards.iter().enumerate() {
            for name in shard.tensors.keys() {
                if places.insert(name.clone(), place).is_some() {
                    return Err(damaged(&shard.path, format!("{name} is there twice")));
                }
            }
        }
        Ok(Self { shards, places })
    }

    /// The files, whole.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.shards.iter().map(|shard| &shard.file[..])
    }
}

impl Weights for Shards {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
        match self.places.get(name) {
            Some(&place) => self.shards[place].tensor(name, shape),
            None => Err(damaged(
                &self.shards[0].path,
                format!("it has no tensor {name}"),
            )),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    fn files(&self) -> Vec<MappedFile> {
        self.shards.iter().map(|shard| shard.file.clone()).collect()
    }
}

impl Shard {
    fn open(path: PathBuf) -> Result<Self, LoadError> {
        let file = map(&path)?;
        // The library checks that the tensors fill the file to its last byte.
        let (header, metadata) =
            SafeTensors::read_metadata(&file).map_err(|e| damaged(&path, e.to_string()))?;
        let data = header + size_of::<u64>();
        let tensors = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| (name, info.clone()))
            .collect();
        Ok(Self {
            path,
            file,
            data,
            tensors,
        })
    }

    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
        let info = &self.tensors[name];
        if !info
            .shape
            .iter()
            .map(|&size| size as i64)
            .eq(shape.iter().copied())
        {
            let reason = format!("{name} has shape {:?} and not {shape:?}", info.shape);
            return Err(damaged(&self.path, reason));
        }
        let kind = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            other => {
                let what = format!("{name}'s number format {other:?}");
                return Err(unsupported(&self.path, what));
            }
        };
        let (start, end) = info.data_offsets;
        let bytes = &self.file[self.data + start..self.data + end];
        in_file(bytes, shape, kind).map_err(|error| damaged(&self.path, format!("{name}: {error}")))
    }
}

/// The files that an index names, each once. They must lie beside it.
fn shard_paths(folder: &Path, index: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let text = read(index)?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|e| damaged(index, e.to_string()))?;
    let mut names: Vec<_> = parsed.weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(damaged(index, format!("it names {} files", names.len())));
    }
    if let Some(name) = names
        .iter()
        .find(|name| name.contains(['/', '\\']) || *name == "..")
    {
        return Err(damaged(index, format!("it names a file elsewhere: {name}")));
    }
    Ok(names.iter().map(|name| folder.join(name)).collect())
}
