//! The store of an older version is taken over.

use std::fs;
use std::path::Path;

use infernet_relay::store::{Error, Saved, Store};
use nostr::{Event, EventBuilder, Filter, Keys, Kind, Tag, Timestamp};
use nostr_database::NostrDatabase as _;
use nostr_lmdb::NostrLMDB;

use super::{ids, save};

async fn fill(folder: &Path) -> Vec<Event> {
    // The library never lets go of a folder within one process.
    let own = tempfile::tempdir().unwrap();
    let old = NostrLMDB::open(own.path()).unwrap();
    let keys = Keys::generate();
    let at = |secs| Timestamp::from_secs(secs);
    let mut events: Vec<Event> = (0..5_000_u64)
        .map(|number| {
            let event = EventBuilder::text_note(number.to_string()).tag(Tag::hashtag("t"));
            event
                .custom_created_at(at(number))
                .sign_with_keys(&keys)
                .unwrap()
        })
        .collect();
    for number in 0..3 {
        let list = EventBuilder::new(Kind::MuteList, "").custom_created_at(at(number));
        events.push(list.sign_with_keys(&keys).unwrap());
    }
    let deletion = EventBuilder::new(Kind::EventDeletion, "").tag(Tag::event(events[7].id));
    events.push(
        deletion
            .custom_created_at(at(9_000))
            .sign_with_keys(&keys)
            .unwrap(),
    );
    futures::future::join_all(events.iter().map(|event| old.save_event(event))).await;
    let kept = old.query(Filter::new()).await.unwrap();
    assert_eq!(kept.len(), 5_000 - 1 + 1 + 1);
    fs::copy(own.path().join("data.mdb"), folder.join("data.mdb")).unwrap();
    kept.into_iter().collect()
}

fn sorted(events: &[Event]) -> Vec<nostr::EventId> {
    let mut ids: Vec<_> = events.iter().map(|event| event.id).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn an_older_store_is_taken_over_once() {
    let folder = tempfile::tempdir().unwrap();
    let events = fill(folder.path()).await;
    for _ in 0..2 {
        let store = Store::open(folder.path()).unwrap();
        let found = store.query(Filter::new(), usize::MAX).await.unwrap();
        let found: Vec<Event> = found.iter().map(|stored| stored.event().unwrap()).collect();
        assert_eq!(sorted(&found), sorted(&events));
        assert!(!folder.path().join("data.mdb").exists());
        assert!(folder.path().join("old-data.mdb").exists());
    }
}

#[tokio::test]
async fn a_take_over_that_was_interrupted_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let events = fill(folder.path()).await;
    drop(Store::open(folder.path()).unwrap());
    // As if the process had died just before it renamed the file: everything is there twice.
    fs::rename(
        folder.path().join("old-data.mdb"),
        folder.path().join("data.mdb"),
    )
    .unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut found = store.query(Filter::new(), usize::MAX).await.unwrap();
    found.sort_by_key(|stored| stored.id);
    let found: Vec<_> = found.into_iter().map(|stored| stored.id).collect();
    assert_eq!(found, sorted(&events));
    let tagged = ids(&store, Filter::new().hashtag("t").limit(3)).await;
    assert_eq!(tagged.len(), 3);
}

#[tokio::test]
async fn what_a_crash_left_in_the_log_is_kept_beside_an_older_store() {
    // Killed, then the older version ran for a while, then this one again.
    let folder = tempfile::tempdir().unwrap();
    let note = EventBuilder::text_note("acknowledged");
    let note = note.sign_with_keys(&Keys::generate()).unwrap();
    let own = tempfile::tempdir().unwrap();
    let store = Store::open(own.path()).unwrap();
    assert_eq!(save(&store, &note).await, Saved::New);
    fs::create_dir(folder.path().join("log")).unwrap();
    for segment in fs::read_dir(own.path().join("log")).unwrap() {
        let segment = segment.unwrap();
        let copy = folder.path().join("log").join(segment.file_name());
        fs::copy(segment.path(), copy).unwrap();
    }
    let events = fill(folder.path()).await;
    let store = Store::open(folder.path()).unwrap();
    assert!(store.has(&note.id).unwrap());
    let found = store.query(Filter::new(), usize::MAX).await.unwrap();
    assert_eq!(found.len(), events.len() + 1);
}

#[tokio::test]
async fn what_is_no_store_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.mdb"), b"nothing of the kind").unwrap();
    let refused = Store::open(folder.path()).unwrap_err();
    assert!(matches!(refused, Error::Import(_)), "{refused}");
    assert!(refused.to_string().contains("data.mdb"));
}
