//! The blobs on the disk.
//!
//! A blob that its owner keeps is a file `<hash>.<owner>`; that of another owner is a second link to the same bytes.
//! Everything that is known of it stands in its name and its times, so that a start finds it all by looking, and there
//! is nothing beside the files that a crash could leave at odds with them.

use std::collections::HashMap;
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

/// Blobs in all; some 200 bytes of memory each.
const MAX_BLOBS: usize = 262_144;

/// Owners of one blob; who keeps it after these may read it, and not drop it.
const MAX_OWNERS: usize = 8;

/// What even the smallest blob counts, in bytes.
const LEAST: u64 = 4 * 1024;

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

#[derive(Debug, Default)]
struct Index {
    blobs: HashMap<Digest, Kept>,
    /// What each key keeps, and has reserved.
    owned: HashMap<PublicKey, u64>,
    /// What all keep, and have reserved.
    total: u64,
}

/// What is known of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its size.
    pub bytes: u64,
    /// When it came, or came again.
    pub uploaded: Timestamp,
    owners: Vec<PublicKey>,
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
        self.shelf.index().release(&self.owner, self.bytes);
    }
}

impl Index {
    fn charge(&mut self, owner: &PublicKey, bytes: u64) {
        *self.owned.entry(*owner).or_default() += bytes;
        self.total += bytes;
    }

    fn release(&mut self, owner: &PublicKey, bytes: u64) {
        self.total = self.total.saturating_sub(bytes);
        if let Some(owned) = self.owned.get_mut(owner) {
            *owned = owned.saturating_sub(bytes);
            if *owned == 0 {
                self.owned.remove(owner);
            }
        }
    }

    /// Notes an owner, if that is new and there is a place for it.
    fn note(&mut self, hash: Digest, owner: PublicKey, bytes: u64, uploaded: Timestamp) {
        let kept = self.blobs.entry(hash).or_insert(Kept {
            bytes,
            uploaded,
            owners: vec![],
        });
        kept.uploaded = kept.uploaded.max(uploaded);
        if !kept.owners.contains(&owner) {
            kept.owners.push(owner);
            self.charge(&owner, bytes.max(LEAST));
        }
    }

    fn forget(&mut self, hash: &Digest, owner: &PublicKey) {
        let Some(kept) = self.blobs.get_mut(hash) else {
            return;
        };
        let bytes = kept.bytes.max(LEAST);
        kept.owners.retain(|one| one != owner);
        if kept.owners.is_empty() {
            self.blobs.remove(hash);
        }
        self.release(owner, bytes);
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
        match is_full || free(&self.folder) < bytes.saturating_add(LEFT_FREE) {
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
        index.charge(&owner, bytes);
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
        let owned = known
            .as_ref()
            .is_some_and(|kept| kept.owners.contains(&owner));
        let may_own = known
            .as_ref()
            .is_none_or(|kept| kept.owners.len() < MAX_OWNERS);
        match known.as_ref().and_then(|kept| kept.owners.first()) {
            Some(first) => {
                let first = self.path(&whole.hash, first);
                set_modified(&first, now)?;
                if !owned && may_own {
                    fs::hard_link(first, self.path(&whole.hash, &owner))?;
                }
            }
            None => whole.link(&self.path(&whole.hash, &owner))?,
        }
        if owned || may_own {
            self.index().note(whole.hash, owner, whole.bytes, now);
        }
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
        if !kept.owners.contains(owner) {
            return Err(Refusal::Forbidden("this blob is another key's"));
        }
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
        let blobs = self.index();
        let due = blobs.blobs.iter();
        let due = due.filter(|(_, kept)| self.expiration(kept.uploaded) <= now);
        let due: Vec<_> = due
            .flat_map(|(hash, kept)| kept.owners.iter().map(|owner| (*hash, *owner)))
            .collect();
        drop(blobs);
        let dropped = due.iter().map(|(hash, owner)| self.drop_of(hash, owner));
        dropped.filter(Result::is_ok).count()
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::Keys;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(NOW + secs)
    }

    fn limits() -> BlobLimits {
        BlobLimits {
            bytes: 10_000,
            key_bytes: 24_000,
            total_bytes: 40_000,
            days: 1,
            ..BlobLimits::default()
        }
    }

    fn open(folder: &Path) -> Arc<Shelf> {
        Shelf::open(folder.to_owned(), limits()).unwrap()
    }

    async fn put(shelf: &Arc<Shelf>, owner: PublicKey, bytes: &[u8], now: Timestamp) -> bool {
        let room = shelf.reserve(owner, bytes.len() as u64).unwrap();
        let mut draft = shelf.draft().await.unwrap();
        draft.add(bytes).await.unwrap();
        let whole = draft.end().await.unwrap();
        assert_eq!(whole.hash, Digest::of(bytes));
        shelf.keep(&whole, room, now).unwrap()
    }

    fn keys() -> [PublicKey; 2] {
        [(); 2].map(|()| Keys::generate().public_key())
    }

    fn files(folder: &Path) -> usize {
        let parts = fs::read_dir(folder).unwrap();
        parts
            .map(|part| fs::read_dir(part.unwrap().path()).unwrap().count())
            .sum()
    }

    #[tokio::test]
    async fn what_is_kept_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let [ada, bob] = keys();
        let hash = Digest::of(b"bytes");
        let before = {
            let shelf = open(folder.path());
            assert!(put(&shelf, ada, b"bytes", at(0)).await);
            assert!(!put(&shelf, bob, b"bytes", at(5)).await);
            let _half_done = std::mem::ManuallyDrop::new(shelf.draft().await.unwrap());
            assert_eq!(files(folder.path()), 3);
            shelf.find(&hash).unwrap()
        };
        let shelf = open(folder.path());
        assert_eq!(files(folder.path()), 2, "the draft is gone");
        let after = shelf.find(&hash).unwrap();
        assert_eq!((after.bytes, after.uploaded), (5, at(5)));
        assert_eq!(before.uploaded, after.uploaded);
        assert_eq!(shelf.index().owned.len(), 2);
        assert_eq!(shelf.index().total, 2 * LEAST);
    }

    #[tokio::test]
    async fn a_blob_lives_as_long_as_one_owner_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = open(folder.path());
        let [ada, bob] = keys();
        let hash = Digest::of(b"bytes");
        put(&shelf, ada, b"bytes", at(0)).await;
        put(&shelf, ada, b"bytes", at(1)).await;
        put(&shelf, bob, b"bytes", at(2)).await;
        assert_eq!(shelf.list(&ada), shelf.list(&bob));
        shelf.drop_of(&hash, &ada).unwrap();
        let forbidden = Refusal::Forbidden("this blob is another key's");
        assert_eq!(shelf.drop_of(&hash, &ada), Err(forbidden));
        let (file, _) = shelf.read(&hash).unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "bytes");
        shelf.drop_of(&hash, &bob).unwrap();
        assert_eq!(shelf.drop_of(&hash, &bob), Err(Refusal::Unknown));
        assert_eq!(files(folder.path()), 0);
        assert_eq!(shelf.index().total, 0);
    }

    #[tokio::test]
    async fn days_run_from_the_last_upload() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = open(folder.path());
        let [ada, bob] = keys();
        put(&shelf, ada, b"one", at(0)).await;
        put(&shelf, ada, b"other", at(0)).await;
        put(&shelf, bob, b"other", at(100)).await;
        let day = 24 * 3_600;
        assert_eq!(shelf.sweep(at(day - 1)), 0);
        assert_eq!(shelf.sweep(at(day)), 1);
        assert_eq!(shelf.find(&Digest::of(b"one")), None);
        assert_eq!(shelf.sweep(at(day + 100)), 2, "both its owners'");
        assert_eq!(shelf.index().total, 0);
    }

    #[tokio::test]
    async fn quotas_count_what_is_kept_and_what_is_coming() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = open(folder.path());
        let [ada, bob] = keys();
        let refused = |owner, bytes| shelf.check(&owner, bytes).unwrap_err();
        assert_eq!(refused(ada, 10_001), Refusal::TooLarge(10_000));
        put(&shelf, ada, &[1; 10_000], at(0)).await;
        let room = shelf.reserve(ada, 10_000).unwrap();
        assert_eq!(
            refused(ada, 1),
            Refusal::KeyFull(20_000),
            "one counts 4,096"
        );
        drop(room);
        put(&shelf, ada, &[2; 10_000], at(0)).await;
        put(&shelf, bob, &[3; 10_000], at(0)).await;
        assert_eq!(refused(bob, 10_001), Refusal::TooLarge(10_000));
        let room = shelf.reserve(bob, 10_000).unwrap();
        let [other, _] = keys();
        assert_eq!(refused(other, 1), Refusal::Full);
        drop(room);
        shelf.check(&other, 1).unwrap();
    }

    #[test]
    fn names_that_are_none_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()));
        fs::write(folder.path().join("00/notes.txt"), "mine").unwrap();
        let shelf = open(folder.path());
        assert!(shelf.index().blobs.is_empty());
        assert_eq!(shelf.sweep(Timestamp::max()), 0);
        assert!(folder.path().join("00/notes.txt").exists());
    }
}
