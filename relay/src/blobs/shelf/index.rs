//! What lies on the shelf, and who is charged for it, as far as memory knows.

use std::collections::HashMap;

use infernet_protocol::seal::Digest;
use nostr::{PublicKey, Timestamp};

/// Owners of one blob; who keeps it after these may read it, and not drop it.
const MAX_OWNERS: usize = 8;

/// What even the smallest blob counts, in bytes.
pub const LEAST: u64 = 4 * 1024;

/// All that is known.
#[derive(Debug, Default)]
pub struct Index {
    /// What is kept.
    pub blobs: HashMap<Digest, Kept>,
    /// What each key keeps, and has reserved, in bytes.
    pub owned: HashMap<PublicKey, u64>,
    /// What all keep, and have reserved, in bytes.
    pub total: u64,
    /// What of that is reserved, in bytes: the disk may not have it yet.
    pub coming: u64,
}

/// What is known of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its size.
    pub bytes: u64,
    /// When it came, or came again.
    pub uploaded: Timestamp,
    /// Who keeps it.
    pub owners: Vec<PublicKey>,
}

impl Kept {
    /// Whether `owner` keeps it, or may.
    pub fn may_own(&self, owner: &PublicKey) -> bool {
        self.owners.contains(owner) || self.owners.len() < MAX_OWNERS
    }
}

impl Index {
    /// Takes room for what is to come.
    pub fn reserve(&mut self, owner: &PublicKey, bytes: u64) {
        self.charge(owner, bytes);
        self.coming += bytes;
    }

    /// Gives that room back.
    pub fn unreserve(&mut self, owner: &PublicKey, bytes: u64) {
        self.release(owner, bytes);
        self.coming = self.coming.saturating_sub(bytes);
    }

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

    /// Notes that a blob came, and who keeps it now, if that is new and there is a place for it.
    pub fn note(&mut self, hash: Digest, owner: PublicKey, bytes: u64, uploaded: Timestamp) {
        let kept = self.blobs.entry(hash).or_insert(Kept {
            bytes,
            uploaded,
            owners: vec![],
        });
        kept.uploaded = kept.uploaded.max(uploaded);
        if !kept.owners.contains(&owner) && kept.may_own(&owner) {
            kept.owners.push(owner);
            self.charge(&owner, bytes.max(LEAST));
        }
    }

    /// Forgets that `owner` keeps a blob, and the blob with its last owner.
    pub fn forget(&mut self, hash: &Digest, owner: &PublicKey) {
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
