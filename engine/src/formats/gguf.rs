//! GGUF, llama.cpp's format: metadata, then tensors, in one file.

mod header;
pub(crate) mod layout;
pub(crate) mod split;
mod tokenizer;
mod weights;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{MappedFile, damaged, map, unsupported};
use crate::error::LoadError;
use header::{TensorInfo, Value};

/// A model in GGUF, in one file or several, that was found to be whole.
#[derive(Debug)]
pub(crate) struct Gguf {
    /// Of the first file, which has the metadata.
    path: PathBuf,
    files: Vec<MappedFile>,
    entries: HashMap<String, Value>,
    tensors: HashMap<String, TensorInfo>,
}

impl Gguf {
    /// Opens a file, or all parts of a model of which it is one, and checks that
    /// all tensors lie inside them.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let paths = split::parts(path).unwrap_or_else(|| vec![path.to_owned()]);
        let mut parts = paths.iter().enumerate();
        let Some((_, first)) = parts.next() else {
            return Err(damaged(path, "it has no parts"));
        };
        let mut gguf = Self::open_one(first)?;
        gguf.check_count(paths.len())?;
        for (number, path) in parts {
            gguf.add(number, Self::open_one(path)?)?;
        }
        gguf.check_tensors()?;
        Ok(gguf)
    }

    fn open_one(path: &Path) -> Result<Self, LoadError> {
        let file = map(path)?;
        let (entries, tensors) = header::parse(&file).map_err(|reason| damaged(path, reason))?;
        Ok(Self {
            path: path.to_owned(),
            files: vec![file],
            entries,
            tensors,
        })
    }

    /// Refuses a first file that speaks of another number of files.
    fn check_count(&self, count: usize) -> Result<(), LoadError> {
        let own = self.unsigned("split.count").unwrap_or(0).max(1);
        match own == count as u64 {
            true => Ok(()),
            false => Err(damaged(
                &self.path,
                format!(
                    "its model is in {own} files, and by their names (like model-00001-of-00003.gguf) there are {count}"
                ),
            )),
        }
    }

    /// Takes in the tensors of part `number` (from 0).
    fn add(&mut self, number: usize, part: Self) -> Result<(), LoadError> {
        if part.unsigned("split.no") != Some(number as u64) {
            let reason = "it is another part of its model than its name says";
            return Err(damaged(&part.path, reason));
        }
        for (name, info) in part.tensors {
            let info = TensorInfo {
                file: number,
                ..info
            };
            if self.tensors.insert(name.clone(), info).is_some() {
                let reason = format!("its tensor {name} is in another part too");
                return Err(damaged(&part.path, reason));
            }
        }
        self.files.extend(part.files);
        Ok(())
    }

    /// Refuses a split model that lacks tensors.
    fn check_tensors(&self) -> Result<(), LoadError> {
        let found = self.tensors.len() as u64;
        match self.unsigned("split.tensors.count") {
            Some(count) if count != found => Err(damaged(
                &self.path,
                format!("its model has {count} tensors, and there are {found}"),
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The files, whole.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(|file| &file[..])
    }

    /// Is there a tensor of this name, which is GGUF's own?
    pub(crate) fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The name of the architecture, which begins the keys that are its own.
    pub(crate) fn architecture(&self) -> &str {
        self.text("general.architecture").unwrap_or("(none)")
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Option<&[String]> {
        match self.get(key)? {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    pub(crate) fn integers(&self, key: &str) -> Option<&[i64]> {
        match self.get(key)? {
            Value::Integers(integers) => Some(integers),
            _ => None,
        }
    }

    pub(crate) fn floats(&self, key: &str) -> Option<&[f32]> {
        match self.get(key)? {
            Value::Floats(floats) => Some(floats),
            _ => None,
        }
    }

    pub(crate) fn unsigned(&self, key: &str) -> Option<u64> {
        match *self.get(key)? {
            Value::Unsigned(number) => Some(number),
            Value::Signed(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }

    pub(crate) fn float(&self, key: &str) -> Option<f64> {
        match *self.get(key)? {
            Value::Float(number) => Some(number),
            _ => None,
        }
    }

    /// A number that the model cannot do without.
    pub(crate) fn require(&self, key: &str) -> Result<u64, LoadError> {
        self.unsigned(key)
            .ok_or_else(|| damaged(&self.path, format!("it has no number {key}")))
    }

    /// A number under one of the architecture's own keys.
    pub(crate) fn unsigned_own(&self, key: &str) -> Option<u64> {
        self.unsigned(&format!("{}.{key}", self.architecture()))
    }

    /// The same, which the model cannot do without.
    pub(crate) fn require_own(&self, key: &str) -> Result<u64, LoadError> {
        self.require(&format!("{}.{key}", self.architecture()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use tch::Tensor;

    use super::Gguf;
    use super::layout::{DECODER, Layout};
    use crate::formats::Weights;

    /// A Llama with one head of four, whose queries have a bias.
    fn with_bias() -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        let text = |text: &str, file: &mut Vec<u8>| {
            file.extend((text.len() as u64).to_le_bytes());
            file.extend(text.bytes());
        };
        file.extend([1_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat());
        text("(none).attention.head_count", &mut file);
        file.extend([4_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat());
        text("blk.0.attn_q.bias", &mut file);
        file.extend(1_u32.to_le_bytes());
        file.extend(4_u64.to_le_bytes());
        file.extend(0_u32.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend([0.0_f32, 2.0, 1.0, 3.0].map(f32::to_le_bytes).concat());
        file
    }

    #[test]
    fn biases_are_put_back_as_their_weights_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, with_bias()).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let llama = Layout {
            interleaved: true,
            ..DECODER
        };
        let bias = gguf
            .laid_out(&llama)
            .tensor("model.layers.0.self_attn.q_proj.bias", &[4])
            .unwrap();
        assert_eq!(bias, Tensor::from_slice(&[0.0_f32, 1.0, 2.0, 3.0]));
    }
}
