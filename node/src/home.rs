//! The folder where a process keeps what is its own: one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A folder, held until this is dropped.
#[derive(Debug)]
pub struct Home {
    folder: PathBuf,
    _lock: File,
}

/// Why a folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error(
        "another {role} is using {}. Stop it (infernet-{role} stop), or give this one a --home of its own",
        folder.display()
    )]
    Taken {
        /// What it is.
        role: &'static str,
        /// The folder.
        folder: PathBuf,
    },
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
    /// Makes `folder`, for its owner alone, if it is not there, and takes it for a `role` such as `provider`.
    ///
    /// # Errors
    /// When another process of that role has it, or it cannot be written.
    pub fn take(role: &'static str, folder: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            folder: folder.to_owned(),
            source,
        };
        make_folder(folder).map_err(failed)?;
        // The file stays behind: only the lock on it counts, and that ends with the process, however it ends.
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(folder.join(format!("{role}.lock")))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                folder: folder.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Error::Taken {
                role,
                folder: folder.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Makes a folder, with those above it, for its owner alone, if it is not there.
///
/// # Errors
/// What the operating system says.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_home_has_one_of_a_role_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("homes/provider");
        let held = Home::take("provider", &folder).unwrap();
        let taken = Home::take("provider", &folder).unwrap_err();
        assert!(matches!(taken, Error::Taken { .. }));
        assert!(taken.to_string().contains("infernet-provider stop"));
        let _other = Home::take("aggregator", &folder).unwrap();
        drop(held);
        Home::take("provider", &folder).unwrap();
        let mode = folder.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
