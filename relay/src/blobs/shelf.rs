//! The blobs on the disk.
//!
//! A blob that its owner keeps is a file `<hash>.<owner>`; that of another owner is a second link to the same bytes.
//! Everything that is known of it stands in its name and its times, so that a start finds it all by looking, and there
//! is nothing beside the files that a crash could leave at odds with them.

mod index;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use infernet_protocol::seal::Digest;
use nostr::{PublicKey, Timestamp};

use super::draft::{Draft, Whole};
use super::refusal::Refusal;
use crate::options::BlobLimits;
use index::{Index, LEAST};

pub use index::Kept;

/// Blobs in all; some 200 bytes of memory each.
const MAX_BLOBS: usize = 262_144;

/// Bytes of the disk that are left to others: the events lie on it too.
const LEFT_FREE: u64 = 512 * 1024 * 1024;

/// Where drafts lie.
const INCOMING: &str = "incoming";

/// Why a folder cannot be used for blobs.
#[derive(Debug, thiserror::Error)]
#[error("blobs cannot be kept in {}: {source}", folder.display())]
pub struct Error {
    folder: PathBuf,
    source: io::Error,
}

/// All blobs. Uploads reserve their room first, and give back what they do not use.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    limits: BlobLimits,
    /// Never held while the disk works: whoever serves requests waits for it.
    index: Mutex<Index>,
    /// Held by whoever gives files their names or takes them, which waits for the disk.
    writing: Mutex<()>,
    drafts: AtomicU64,
}

/// Room for an upload. It is given back when this is dropped.
#[derive(Debug)]
pub struct Room {
    shelf: Arc<Shelf>,
    owner: PublicKey,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shelf.index().unreserve(&self.owner, self.bytes);
    }
}

impl Shelf {
    /// Opens the blobs in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(folder: PathBuf, limits: BlobLimits) -> Result<Arc<Self>, Error> {
        let shelf = Self {
            folder,
            limits,
            index: Mutex::default(),
            writing: Mutex::default(),
            drafts: AtomicU64::new(0),
        };
        match shelf.look() {
            Ok(()) => Ok(Arc::new(shelf)),
            Err(source) => Err(Error {
                folder: shelf.folder,
                source,
            }),
        }
    }

    /// Finds what is there, and clears away what a crash left half done.
    fn look(&self) -> io::Result<()> {
        let incoming = self.folder.join(INCOMING);
        match fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&incoming)?,
        }
        for part in 0..=u8::MAX {
            let part = self.folder.join(format!("{part:02x}"));
            fs::create_dir_all(&part)?;
            for file in fs::read_dir(part)? {
                let file = file?;
                match parse_name(&file.file_name().to_string_lossy()) {
                    Some((hash, owner)) => {
                        let metadata = file.metadata()?;
                        let uploaded = seconds(metadata.modified()?);
                        self.index().note(hash, owner, metadata.len(), uploaded);
                    }
                    None => tracing::warn!(file = %file.path().display(), "this is no blob"),
                }
            }
        }
        Ok(())
    }

    /// What is known of a blob.
    pub fn find(&self, hash: &Digest) -> Option<Kept> {
        self.index().blobs.get(hash).cloned()
    }

    /// Bytes that one blob may have.
    pub const fn largest(&self) -> u64 {
        self.limits.bytes
    }

    /// When a blob that came at this time goes.
    pub fn expiration(&self, uploaded: Timestamp) -> Timestamp {
        uploaded + self.limits.days * 24 * 3_600
    }

    /// Whether there is room for a blob of `owner`'s, as things stand.
    ///
    /// # Errors
    /// With what is in the way.
    pub fn check(&self, owner: &PublicKey, bytes: u64) -> Result<(), Refusal> {
        self.check_in(&self.index(), owner, bytes)
    }

    fn check_in(&self, index: &Index, owner: &PublicKey, bytes: u64) -> Result<(), Refusal> {
        if bytes > self.limits.bytes {
            return Err(Refusal::TooLarge(self.limits.bytes));
        }
        let bytes = bytes.max(LEAST);
        let owned = index.owned.get(owner).copied().unwrap_or_default();
        if owned + bytes > self.limits.key_bytes {
            return Err(Refusal::KeyFull(owned));
        }
        let is_full =
            index.total + bytes > self.limits.total_bytes || index.blobs.len() >= MAX_BLOBS;
        // What is coming counts as if nothing of it were there yet.
        let wanted = (bytes + index.coming).saturating_add(LEFT_FREE);
        match is_full || free(&self.folder) < wanted {
            true => Err(Refusal::Full),
            false => Ok(()),
        }
    }

    /// Takes room for an upload.
    ///
    /// # Errors
    /// As [`Shelf::check`].
    pub fn reserve(self: &Arc<Self>, owner: PublicKey, bytes: u64) -> Result<Room, Refusal> {
        let mut index = self.index();
        self.check_in(&index, &owner, bytes)?;
        let bytes = bytes.max(LEAST);
        index.reserve(&owner, bytes);
        Ok(Room {
            shelf: self.clone(),
            owner,
            bytes,
        })
    }

    /// Begins a draft.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn draft(&self) -> io::Result<Draft> {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        Draft::begin(&self.folder.join(INCOMING), number).await
    }

    /// Keeps what came for whoever took the room for it. Answers whether it is new here. This waits for the disk.
    ///
    /// # Errors
    /// The disk failed.
    pub fn keep(&self, whole: &Whole, room: Room, now: Timestamp) -> io::Result<bool> {
        let _alone = self.writing();
        let owner = room.owner;
        let known = self.find(&whole.hash);
        match known
            .as_ref()
            .and_then(|kept| Some((kept, kept.owners.first()?)))
        {
            Some((kept, first)) => {
                let first = self.path(&whole.hash, first);
                set_modified(&first, now)?;
                if !kept.owners.contains(&owner) && kept.may_own(&owner) {
                    fs::hard_link(first, self.path(&whole.hash, &owner))?;
                }
            }
            None => whole.link(&self.path(&whole.hash, &owner))?,
        }
        self.index().note(whole.hash, owner, whole.bytes, now);
        // Only now: what is kept is charged in its own name.
        drop(room);
        Ok(known.is_none())
    }

    /// Opens a blob's file. This waits for the disk.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], or [`Refusal::Disk`].
    pub fn read(&self, hash: &Digest) -> Result<(File, Kept), Refusal> {
        let kept = self.find(hash).ok_or(Refusal::Unknown)?;
        let owner = kept.owners.first().ok_or(Refusal::Unknown)?;
        match File::open(self.path(hash, owner)) {
            Ok(file) => Ok((file, kept)),
            // Its owner dropped it just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Refusal::Unknown),
            Err(error) => {
                tracing::error!(%error, "a blob cannot be read");
                Err(Refusal::Disk)
            }
        }
    }

    /// Drops a blob as far as `owner` keeps it. This waits for the disk.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Forbidden`] if it is others', or [`Refusal::Disk`].
    pub fn drop_of(&self, hash: &Digest, owner: &PublicKey) -> Result<(), Refusal> {
        let _alone = self.writing();
        let kept = self.find(hash).ok_or(Refusal::Unknown)?;
        match kept.owners.contains(owner) {
            true => self.remove(hash, owner),
            false => Err(Refusal::Forbidden("this blob is another key's")),
        }
    }

    /// Whoever calls this is the only one who writes.
    fn remove(&self, hash: &Digest, owner: &PublicKey) -> Result<(), Refusal> {
        match fs::remove_file(self.path(hash, owner)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, "a blob cannot be dropped");
                Err(Refusal::Disk)
            }
            _ => {
                self.index().forget(hash, owner);
                Ok(())
            }
        }
    }

    /// Drops what came so long ago that its days are over by `now`, and answers how many these were. This waits for the
    /// disk.
    pub fn sweep(&self, now: Timestamp) -> usize {
        let is_due = |kept: &Kept| self.expiration(kept.uploaded) <= now;
        let index = self.index();
        let due = index.blobs.iter().filter(|(_, kept)| is_due(kept));
        let due: Vec<_> = due.map(|(hash, _)| *hash).collect();
        drop(index);
        let dropped = due.iter().map(|hash| {
            let _alone = self.writing();
            // It may have come again meanwhile.
            let kept = self.find(hash).filter(is_due);
            let owners = kept.map(|kept| kept.owners).unwrap_or_default();
            let dropped = owners.iter().map(|owner| self.remove(hash, owner));
            dropped.filter(Result::is_ok).count()
        });
        dropped.sum()
    }

    /// What a key keeps, newest first.
    pub fn list(&self, owner: &PublicKey) -> Vec<(Digest, Kept)> {
        let index = self.index();
        let owned = index.blobs.iter();
        let owned = owned.filter(|(_, kept)| kept.owners.contains(owner));
        let mut owned: Vec<_> = owned.map(|(hash, kept)| (*hash, kept.clone())).collect();
        drop(index);
        owned.sort_by_key(|(hash, kept)| (std::cmp::Reverse(kept.uploaded), *hash));
        owned
    }

    fn path(&self, hash: &Digest, owner: &PublicKey) -> PathBuf {
        let [part, ..] = hash.as_bytes();
        let part = self.folder.join(format!("{part:02x}"));
        part.join(format!("{hash}.{}", owner.to_hex()))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Whoever holds it changes it by single steps that do not panic.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_modified(file: &Path, time: Timestamp) -> io::Result<()> {
    let file = File::options().write(true).open(file)?;
    file.set_modified(UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

/// The hash and the owner in a file's name.
fn parse_name(name: &str) -> Option<(Digest, PublicKey)> {
    let (hash, owner) = name.split_once('.')?;
    let owner = PublicKey::from_hex(owner).ok()?;
    Some((hash.parse().ok()?, owner))
}

fn seconds(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_secs(since.as_secs())
}

/// Bytes that are free on the disk of `folder`; plenty if the system does not say.
fn free(folder: &Path) -> u64 {
    let space = rustix::fs::statvfs(folder);
    space.map_or(u64::MAX, |space| {
        space.f_bavail.saturating_mul(space.f_frsize)
    })
}

#[cfg(test)]
mod tests;
