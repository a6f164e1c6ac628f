//! One relay to a folder: two on one LMDB store would each think it the only writer of its rules.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::path::Path;

/// The file that is locked. It stays behind; only the lock on it counts, and that ends with the process.
const NAME: &str = "relay.lock";

/// Holds a folder until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough while a process that was just started still has a copy of it.
        let _ = self.file.unlock();
    }
}

/// Why a folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another relay has it.
    #[error(
        "another relay is using it. Stop that one, or give this one a --data folder of its own"
    )]
    Taken,
    /// It cannot be made or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes `folder` if it is not there, and takes it.
///
/// # Errors
/// When another relay has it, or it cannot be written.
pub fn take(folder: &Path) -> Result<Lock, Error> {
    fs::create_dir_all(folder)?;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(NAME))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::Taken),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    // For whoever looks for the holder; nothing reads it back.
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Lock { file })
}

/// Whether a relay, or a command, has `folder` just now.
pub fn is_taken(folder: &Path) -> bool {
    let tried = File::open(folder.join(NAME)).map(|file| file.try_lock_shared());
    matches!(tried, Ok(Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_taken(folder.path()));
        let held = take(folder.path()).unwrap();
        assert!(is_taken(folder.path()));
        assert!(matches!(take(folder.path()), Err(Error::Taken)));
        drop(held);
        assert!(!is_taken(folder.path()));
        take(folder.path()).unwrap();
    }
}
