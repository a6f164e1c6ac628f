//! Files that people take for weights, told from their first bytes.

use std::fs;
use std::path::{Path, PathBuf};

/// Endings of the files that hold pickles, in folders that were not converted.
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// What to say of a file that is no GGUF, if that can be told.
pub(super) fn what_it_is(file: &[u8]) -> Option<&'static str> {
    // A pickle, and the zip archive that newer ones come in.
    let pickle = matches!(file, [0x80, 2..=5, ..]) || file.starts_with(b"PK\x03\x04");
    if pickle {
        return Some(
            "a pickle, which could run a program when it is read (convert it to safetensors)",
        );
    }
    // The length of a header in JSON.
    let safetensors = file.get(4..8) == Some(&[0; 4]) && file.get(8) == Some(&b'{');
    safetensors.then_some("a safetensors file alone (give the folder it is in)")
}

/// A file of weights in a folder that can only be a pickle.
pub(super) fn pickle_in(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let mut pickles: Vec<_> = files
        .filter(|file| {
            let ending = file.extension().and_then(|ending| ending.to_str());
            ending.is_some_and(|ending| PICKLES.contains(&ending))
        })
        .collect();
    pickles.sort();
    pickles.into_iter().next()
}
