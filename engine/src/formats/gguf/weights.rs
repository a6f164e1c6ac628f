//! A GGUF's tensors, under transformers' names and in its order.

use tch::{Kind, TchError, Tensor};

use super::Gguf;
use super::header::TensorInfo;
use super::layout::Layout;
use crate::error::{LoadError, first_line};
use crate::formats::quantized::{DecodeError, Encoding, FourBit, Rows};
use crate::formats::{MappedFile, Weights, damaged, in_file, unsupported};

/// A file's tensors as its architecture lays them out.
pub(crate) struct LaidOut<'a> {
    gguf: &'a Gguf,
    layout: &'a Layout,
}

impl Gguf {
    /// The tensors, of a file whose architecture has this layout.
    pub(crate) fn laid_out<'a>(&'a self, layout: &'a Layout) -> LaidOut<'a> {
        LaidOut { gguf: self, layout }
    }
}

/// A tensor that was found.
struct Found<'a> {
    name: String,
    info: &'a TensorInfo,
    bytes: &'a [u8],
}

impl LaidOut<'_> {
    fn damaged(&self, reason: impl Into<String>) -> LoadError {
        damaged(&self.gguf.path, reason)
    }

    fn find(&self, name: &str, shape: &[i64]) -> Result<Found<'_>, LoadError> {
        let own = self.layout.name(name);
        let name = own.unwrap_or_else(|| name.to_owned());
        let Some(info) = self.gguf.tensors.get(&name) else {
            return Err(self.damaged(format!("it has no tensor {name}")));
        };
        if info.shape != shape {
            let reason = format!("{name} has shape {:?} and not {shape:?}", info.shape);
            return Err(self.damaged(reason));
        }
        let bytes = &self.gguf.files[info.file][info.start..info.start + info.bytes];
        Ok(Found { name, info, bytes })
    }

    /// How many heads' rows are interleaved in this tensor, weights and biases
    /// alike.
    fn interleaved_heads(&self, name: &str) -> Result<Option<u64>, LoadError> {
        if !self.layout.interleaved {
            return Ok(None);
        }
        let heads = || self.gguf.require_own("attention.head_count");
        if name.contains(".attn_q.") {
            heads().map(Some)
        } else if name.contains(".attn_k.") {
            let own = self.gguf.unsigned_own("attention.head_count_kv");
            own.map_or_else(heads, Ok).map(Some)
        } else {
            Ok(None)
        }
    }

    /// A tensor of plain numbers, in the file's own format.
    fn plain(&self, found: &Found<'_>, kind: Kind) -> Result<Tensor, LoadError> {
        let failed = |error: TchError| {
            self.damaged(format!(
                "{}: {}",
                found.name,
                first_line(&error.to_string())
            ))
        };
        let tensor = in_file(found.bytes, &found.info.shape, kind).map_err(failed)?;
        match self.interleaved_heads(&found.name)? {
            Some(heads) => unfold(&tensor, heads).map_err(failed),
            None => Ok(tensor),
        }
    }

    /// The rows of a quantised tensor, in transformers' order.
    fn rows<'a>(&self, found: &Found<'a>) -> Result<Rows<'a>, LoadError> {
        let Found { name, info, bytes } = found;
        if let Encoding::Other(_) = info.encoding {
            let what = format!(
                "{name}'s number format {} (take a file in Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, Q8_0, F16 or BF16)",
                info.encoding.name()
            );
            return Err(unsupported(&self.gguf.path, what));
        }
        let count = info.shape.split_last().map_or(1, |(_, rows)| {
            rows.iter().map(|&size| size as usize).product()
        });
        let rows = Rows::new(info.encoding, bytes, count);
        match self.interleaved_heads(name)? {
            Some(heads) => rows.and_then(|rows| rows.interleaved(heads as usize)),
            None => rows,
        }
        .ok_or_else(|| self.damaged(format!("{name}'s rows have an odd number of weights")))
    }

    /// A tensor in the file's own format, or, if it is quantised, in `kind`.
    fn read(&self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, LoadError> {
        let found = self.find(name, shape)?;
        let tensor = match found.info.encoding.plain() {
            Some(own) => self.plain(&found, own)?,
            None => {
                let rows = self.rows(&found)?.tensor(kind);
                let tensor = rows.map_err(|error| self.undecodable(&found.name, error))?;
                tensor.f_reshape(shape).map_err(no_memory)?
            }
        };
        match self.layout.norms_plus_one && found.name.ends_with("norm.weight") {
            // In f32, before it is rounded to a shorter format.
            true => tensor
                .f_to_kind(Kind::Float)
                .and_then(|tensor| tensor.f_sub_scalar(1.0))
                .map_err(no_memory),
            false => Ok(tensor),
        }
    }

    fn undecodable(&self, name: &str, error: DecodeError) -> LoadError {
        match error {
            DecodeError::NoNumber => self.damaged(format!("{name}: {error}")),
            DecodeError::Memory(_) => LoadError::Device(error.to_string()),
        }
    }
}

impl Weights for LaidOut<'_> {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
        self.read(name, shape, Kind::Float)
    }

    fn tensor_as(&self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, LoadError> {
        let tensor = self.read(name, shape, kind)?;
        tensor.f_to_kind(kind).map_err(no_memory)
    }

    fn four_bit(&self, name: &str, shape: &[i64]) -> Result<Option<FourBit>, LoadError> {
        let found = self.find(name, shape)?;
        if found.info.encoding.plain().is_some() {
            return Ok(None);
        }
        let weights = self.rows(&found)?.four_bit();
        weights.map_err(|error| self.undecodable(&found.name, error))
    }

    fn contains(&self, name: &str) -> bool {
        let own = self.layout.name(name);
        own.is_some_and(|name| self.gguf.tensors.contains_key(&name))
    }

    fn files(&self) -> Vec<MappedFile> {
        self.gguf.files.clone()
    }
}

fn no_memory(error: TchError) -> LoadError {
    LoadError::Device(first_line(&error.to_string()))
}

/// Puts the two halves of each head's rows one after the other.
fn unfold(tensor: &Tensor, heads: u64) -> Result<Tensor, TchError> {
    let shape = tensor.size();
    let half = shape[0] / (heads as i64).max(1) / 2;
    tensor
        .f_reshape([heads as i64, half, 2, -1])?
        .f_transpose(1, 2)?
        .f_reshape(shape)
}
