//! What is kept, for whom, and until when.

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
    assert_eq!(shelf.index().coming, 10_000);
    drop(room);
    assert_eq!(shelf.index().coming, 0);
    shelf.check(&other, 1).unwrap();
}

#[tokio::test]
async fn who_comes_too_late_to_own_a_blob_makes_it_last_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = open(folder.path());
    for owner in (0..8).map(|_| Keys::generate().public_key()) {
        put(&shelf, owner, b"bytes", at(0)).await;
    }
    let [late, _] = keys();
    put(&shelf, late, b"bytes", at(100)).await;
    let hash = Digest::of(b"bytes");
    let kept = shelf.find(&hash).unwrap();
    assert_eq!((kept.owners.len(), kept.uploaded), (8, at(100)));
    assert_eq!(shelf.index().total, 8 * LEAST, "the ninth is not charged");
    assert_eq!(shelf.list(&late), []);
    assert_eq!(shelf.sweep(at(24 * 3_600)), 0);
    assert_eq!(open(folder.path()).find(&hash).unwrap().uploaded, at(100));
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
