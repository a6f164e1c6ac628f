//! The folder where a provider keeps its key, its store and its socket: one
//! provider at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The file that is locked. It stays behind; only the lock on it counts, and
/// that ends with the process, however it ends.
const LOCK: &str = "provider.lock";

/// The folder, held until this is dropped.
#[derive(Debug)]
pub struct Home {
    folder: PathBuf,
    _lock: File,
}

/// Why a folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another provider has it.
    #[error(
        "another provider is using {}. Stop it (infernet-provider stop), or give this one a --home of its own",
        .0.display()
    )]
    Taken(PathBuf),
    /// It cannot be made or written.
    #[error("cannot use {}: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Home {
    /// Makes `folder`, for its owner alone, if it is not there, and takes it.
    ///
    /// # Errors
    /// When another provider has it, or it cannot be written.
    pub fn take(folder: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            folder: folder.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(LOCK))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                folder: folder.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Error::Taken(folder.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Where the secret key lies.
    pub fn key(folder: &Path) -> PathBuf {
        folder.join("provider.key")
    }

    /// Where the settings lie.
    pub fn settings(folder: &Path) -> PathBuf {
        folder.join("provider.toml")
    }

    /// Where the running provider answers questions.
    pub fn socket(folder: &Path) -> PathBuf {
        folder.join("provider.sock")
    }

    /// Where attempts and results are kept.
    pub fn store(&self) -> PathBuf {
        store(&self.folder)
    }

    /// Where money is written down.
    pub fn ledger(&self) -> PathBuf {
        ledger(&self.folder)
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The ledger of the provider whose home this is, running or not.
pub fn ledger(folder: &Path) -> PathBuf {
    folder.join("ledger.sqlite")
}

/// The store of the provider whose home this is, running or not.
pub fn store(folder: &Path) -> PathBuf {
    folder.join("provider.sqlite")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_home_has_one_provider_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("provider");
        let held = Home::take(&folder).unwrap();
        assert!(matches!(Home::take(&folder), Err(Error::Taken(_))));
        drop(held);
        Home::take(&folder).unwrap();
        let mode = folder.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
