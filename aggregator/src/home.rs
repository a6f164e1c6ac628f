//! The folder where an aggregator keeps its key, its store, its work and its
//! socket: one aggregator at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file that is locked. It stays behind; only the lock on it counts, and
/// that ends with the process, however it ends.
const LOCK: &str = "aggregator.lock";

/// The folder, held until this is dropped.
#[derive(Debug)]
pub struct Home {
    folder: PathBuf,
    _lock: File,
}

/// Why a folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another aggregator has it.
    #[error(
        "another aggregator is using {}. Stop it (infernet-aggregator stop), or give this one a --home of its own",
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
    /// When another aggregator has it, or it cannot be written.
    pub fn take(folder: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            folder: folder.to_owned(),
            source,
        };
        make_folder(&work(folder)).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
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
        folder.join("aggregator.key")
    }

    /// Where the settings lie.
    pub fn settings(folder: &Path) -> PathBuf {
        folder.join("aggregator.toml")
    }

    /// Where the running aggregator answers its owner.
    pub fn socket(folder: &Path) -> PathBuf {
        folder.join("aggregator.sock")
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The store of the aggregator whose home this is, running or not.
pub fn store(folder: &Path) -> PathBuf {
    folder.join("aggregator.sqlite")
}

/// The ledger of the aggregator whose home this is, running or not.
pub fn ledger(folder: &Path) -> PathBuf {
    folder.join("ledger.sqlite")
}

/// Where the owner puts files of thresholds, as `infernet-provider calibrate` writes
/// them: they go before those that come with the program.
pub fn thresholds(folder: &Path) -> PathBuf {
    folder.join("thresholds")
}

/// Where the lines and answers of open groups lie.
pub fn work(folder: &Path) -> PathBuf {
    folder.join("work")
}

/// Makes a folder, with those above it, for its owner alone.
///
/// # Errors
/// What the operating system says.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_home_has_one_aggregator_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("aggregator");
        let held = Home::take(&folder).unwrap();
        assert!(matches!(Home::take(&folder), Err(Error::Taken(_))));
        drop(held);
        Home::take(&folder).unwrap();
        let mode = folder.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
