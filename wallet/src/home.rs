//! The folder in which a wallet lives: who may read it, what lies where, and that one process has it at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A wallet's folder.
#[derive(Clone, Debug)]
pub struct Home {
    folder: PathBuf,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has this wallet.
    #[error("the wallet in {} is running already", .0.display())]
    Taken(PathBuf),
    /// The disk refuses.
    #[error("cannot use the wallet's folder {}: {source}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Held by the one process that has the wallet.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Home {
    /// The wallet in `folder`; nothing is made.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// Makes the folder, or makes it private.
    ///
    /// # Errors
    /// A disk that refuses.
    pub fn make(&self) -> Result<(), Error> {
        for folder in [self.folder.clone(), self.ldk()] {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)));
            made.map_err(failed(&folder))?;
        }
        Ok(())
    }

    /// Takes the wallet for this process.
    ///
    /// # Errors
    /// When another has it.
    pub fn lock(&self) -> Result<Lock, Error> {
        let path = self.folder.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Taken(self.folder.clone())),
            Err(TryLockError::Error(error)) => Err(failed(&path)(error)),
        }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The words from which all keys come.
    pub fn seed(&self) -> PathBuf {
        self.folder.join("seed-words")
    }

    /// The settings.
    pub fn settings(&self) -> PathBuf {
        self.folder.join("wallet.toml")
    }

    /// What LDK keeps.
    pub fn ldk(&self) -> PathBuf {
        self.folder.join("ldk")
    }

    /// What we keep: connections, invoices, payments.
    pub fn records(&self) -> PathBuf {
        self.folder.join("records.sqlite")
    }

    /// Where the running wallet listens to its own command line.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("control")
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

/// Writes a file that only its owner can read and that was not there before; whole or not at all.
///
/// # Errors
/// `AlreadyExists`, or a disk that refuses.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let draft = path.with_extension("draft");
    let _ = fs::remove_file(&draft);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    // Unlike a rename, a link never replaces what is there.
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    linked?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_folder_is_private_and_belongs_to_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = Home::at(folder.path());
        home.make().unwrap();
        let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let lock = home.lock().unwrap();
        assert!(matches!(home.lock(), Err(Error::Taken(_))));
        drop(lock);
        home.lock().unwrap();
    }

    #[test]
    fn a_private_file_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        write_private(&path, b"one").unwrap();
        let again = write_private(&path, b"two").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
