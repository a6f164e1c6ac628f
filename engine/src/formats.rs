//! The file formats that weights come in.

pub(crate) mod gguf;
mod mistaken;
pub(crate) mod quantized;
pub(crate) mod safetensors;

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use tch::{Device, Kind, TchError, Tensor};

use crate::error::{LoadError, first_line};
use quantized::FourBit;

/// Where a model's weights come from, under the names that Hugging Face's
/// transformers gives them.
pub(crate) trait Weights {
    /// A tensor of this shape, in the processor's memory, in f32, f16 or bf16.
    /// It may lie in the file itself: see [`MappedFile`].
    ///
    /// # Errors
    /// When there is none of this name, or its shape or number format differs.
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError>;

    /// The same in the number format `kind`. What is quantised in the file is
    /// decoded into f32 or bf16 at once, without the other in between.
    ///
    /// # Errors
    /// As above.
    fn tensor_as(&self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, LoadError> {
        let tensor = self.tensor(name, shape)?;
        tensor
            .f_to_kind(kind)
            .map_err(|error| LoadError::Device(first_line(&error.to_string())))
    }

    /// The weights of a matrix `[rows, columns]` as they are in the file, if that
    /// has them in four bits and groups of 32.
    ///
    /// # Errors
    /// As above.
    fn four_bit(&self, _name: &str, _shape: &[i64]) -> Result<Option<FourBit>, LoadError> {
        Ok(None)
    }

    /// Is there a tensor of this name?
    fn contains(&self, name: &str) -> bool;

    /// The files that tensors may lie in. They must live as long as the tensors.
    fn files(&self) -> Vec<MappedFile>;
}

/// A file in memory. Whoever changes it while a model runs changes the model:
/// put a new file in its place instead.
pub(crate) type MappedFile = Arc<Mmap>;

/// Maps a file into memory.
pub(crate) fn map(path: &Path) -> Result<MappedFile, LoadError> {
    let unreadable = |source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    // SAFETY: the map is only read. That nobody shortens the file under us is
    // asked of the operator (see `MappedFile`), as every program that maps
    // models does.
    let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
    Ok(Arc::new(map))
}

/// A tensor of plain numbers that lies in a mapped file; a copy where the bytes
/// are not aligned. The file must stay mapped as long as the tensor is used,
/// which [`Weights::files`] asks of the model.
fn in_file(bytes: &[u8], shape: &[i64], kind: Kind) -> Result<Tensor, TchError> {
    let count = shape
        .iter()
        .try_fold(1_usize, |count, &size| count.checked_mul(size as usize));
    let expected = count.and_then(|count| count.checked_mul(kind.elt_size_in_bytes()));
    if expected != Some(bytes.len()) {
        let reason = format!("{} bytes are not of shape {shape:?}", bytes.len());
        return Err(TchError::Shape(reason));
    }
    match bytes.as_ptr().align_offset(kind.elt_size_in_bytes()) {
        // SAFETY: the bytes hold exactly this shape, are aligned, and live as long
        // as the file is mapped. They are never written.
        0 => unsafe { Tensor::f_from_blob(bytes.as_ptr(), shape, &[], kind, Device::Cpu) },
        _ => Tensor::f_from_data_size(bytes, shape, kind),
    }
}

/// The largest file other than weights, in bytes: large vocabularies have some
/// ten million.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Reads a file that is no weights.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // Not by its size: of what is no plain file, that is 0.
        let file = fs::File::open(path)?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let reason = format!("it has more than {MAX_FILE_BYTES} bytes");
        return Err(damaged(path, reason));
    }
    Ok(bytes)
}

/// A damaged file, said shortly.
pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> LoadError {
    LoadError::Damaged {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// Something that a file wants and the engine does not do.
pub(crate) fn unsupported(path: &Path, what: impl Into<String>) -> LoadError {
    LoadError::Unsupported {
        path: path.to_owned(),
        what: what.into(),
    }
}
