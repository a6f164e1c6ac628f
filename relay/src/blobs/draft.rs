//! A blob while its bytes come in.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use infernet_protocol::seal::Digest;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

/// A file that belongs to no blob yet. It is gone when this is dropped.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    file: tokio::fs::File,
    hash: Sha256,
    bytes: u64,
}

/// A draft that is whole and on the disk.
#[derive(Debug)]
pub struct Whole {
    path: PathBuf,
    /// Its hash.
    pub hash: Digest,
    /// Its size.
    pub bytes: u64,
}

impl Draft {
    /// Begins one in `folder`, under a name of its own.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn begin(folder: &Path, number: u64) -> io::Result<Self> {
        let path = folder.join(number.to_string());
        let file = tokio::fs::File::create_new(&path).await?;
        Ok(Self {
            path,
            file,
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// How many bytes came so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// They cannot be written.
    pub async fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).await
    }

    /// Brings it to the disk.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn end(mut self) -> io::Result<Whole> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        Ok(Whole {
            hash: Digest::from_bytes(std::mem::take(&mut self.hash).finalize().into()),
            bytes: self.bytes,
            path: std::mem::take(&mut self.path),
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

impl Whole {
    /// Gives it a name for good.
    ///
    /// # Errors
    /// The disk failed.
    pub fn link(&self, path: &Path) -> io::Result<()> {
        std::fs::hard_link(&self.path, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// What cannot be removed now goes at the next start.
fn remove(draft: &Path) {
    if !draft.as_os_str().is_empty() {
        let _ = std::fs::remove_file(draft);
    }
}
