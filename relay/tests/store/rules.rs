//! Single rules, each with the case that it is there for.

use std::sync::Arc;

use infernet_protocol::kinds;
use infernet_relay::store::{Error, Saved, Store};
use nostr::{Event, EventBuilder, Filter, JsonUtil, Keys, Kind, Tag, Timestamp};

use super::{ids, save};

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn note(keys: &Keys, kind: u16, created_at: u64, tags: Vec<Tag>) -> Event {
    EventBuilder::new(Kind::from(kind), "")
        .tags(tags)
        .custom_created_at(Timestamp::from_secs(created_at))
        .sign_with_keys(keys)
        .unwrap()
}

#[tokio::test]
async fn two_stores_do_not_share_a_folder() {
    let (folder, store) = open();
    let refused = Store::open(folder.path()).unwrap_err();
    assert!(matches!(refused, Error::Folder(_)), "{refused}");
    drop(store);
    Store::open(folder.path()).unwrap();
}

#[tokio::test]
async fn what_was_saved_is_found_at_once() {
    let (_folder, store) = open();
    let keys = Keys::generate();
    for second in 0..200 {
        let event = note(&keys, 1, second, vec![]);
        assert_eq!(save(&store, &event).await, Saved::New);
        assert!(store.has(&event.id).unwrap());
        let newest = ids(&store, Filter::new().author(keys.public_key()).limit(1)).await;
        assert_eq!(newest, [event.id]);
    }
}

#[tokio::test]
async fn events_are_judged_in_the_order_in_which_save_is_called() {
    let (_folder, store) = open();
    let keys = Keys::generate();
    let versions: Vec<Event> = (0..500).map(|at| note(&keys, 0, at, vec![])).collect();
    let saves: Vec<_> = versions
        .iter()
        .map(|event| store.save(Arc::new(event.clone()), event.as_json().into()))
        .collect();
    // Polled the other way round.
    for outcome in saves.into_iter().rev() {
        assert_eq!(outcome.await.unwrap(), Saved::New);
    }
    assert_eq!(ids(&store, Filter::new()).await, [versions[499].id]);
    let old = Saved::Superseded(versions[499].id);
    assert_eq!(save(&store, &versions[0]).await, old);
}

#[tokio::test]
async fn the_same_event_at_once_is_saved_once() {
    let (_folder, store) = open();
    let event = note(&Keys::generate(), 1, 1, vec![]);
    let saves = (0..3).map(|_| store.save(Arc::new(event.clone()), event.as_json().into()));
    let outcomes = futures::future::join_all(saves.collect::<Vec<_>>()).await;
    let outcomes: Vec<Saved> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [Saved::New, Saved::Duplicate, Saved::Duplicate]);
    assert_eq!(ids(&store, Filter::new()).await, [event.id]);
}

#[tokio::test]
async fn a_save_that_nobody_waits_for_is_done() {
    let (folder, store) = open();
    let event = note(&Keys::generate(), 1, 1, vec![]);
    drop(store.save(Arc::new(event.clone()), event.as_json().into()));
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert!(store.has(&event.id).unwrap());
}

#[tokio::test]
async fn evidence_outlives_a_deletion_that_came_before_it() {
    let (_folder, store) = open();
    let keys = Keys::generate();
    for kind in (0..=u16::MAX).filter(|kind| kinds::is_evidence(*kind)) {
        let evidence = note(&keys, kind, 1, vec![]);
        let deletion = note(&keys, 5, 2, vec![Tag::event(evidence.id)]);
        assert_eq!(save(&store, &deletion).await, Saved::New);
        assert_eq!(save(&store, &evidence).await, Saved::New);
        let again = note(&keys, 5, 3, vec![Tag::event(evidence.id)]);
        assert!(matches!(save(&store, &again).await, Saved::Refused(_)));
        assert!(store.check(&again).await.is_err());
        assert_eq!(
            ids(&store, Filter::new().id(evidence.id)).await,
            [evidence.id]
        );
    }
}

#[tokio::test]
async fn nobody_deletes_what_others_will_write() {
    let (_folder, store) = open();
    let (victim, attacker) = (Keys::generate(), Keys::generate());
    let event = note(&victim, 1, 1, vec![]);
    let deletion = note(&attacker, 5, 2, vec![Tag::event(event.id)]);
    assert_eq!(save(&store, &deletion).await, Saved::New);
    assert_eq!(save(&store, &event).await, Saved::New);
    let own = note(&victim, 5, 2, vec![Tag::event(event.id)]);
    assert_eq!(save(&store, &own).await, Saved::New);
    assert_eq!(save(&store, &event).await, Saved::Deleted);
}

#[tokio::test]
async fn what_expired_is_not_answered_and_is_purged() {
    let (_folder, store) = open();
    let keys = Keys::generate();
    let expires = |at| vec![Tag::expiration(Timestamp::from_secs(at))];
    let events: Vec<Event> = (1..=3).map(|at| note(&keys, 1, at, expires(at))).collect();
    let kept = note(&keys, 1, 4, expires(u64::MAX / 2));
    for event in events.iter().chain([&kept]) {
        save(&store, event).await;
    }
    assert_eq!(ids(&store, Filter::new()).await, [kept.id]);
    assert_eq!(ids(&store, Filter::new().id(events[0].id)).await, []);
    assert_eq!(store.purge(Timestamp::from_secs(3)).await.unwrap(), 2);
    assert_eq!(store.purge(Timestamp::from_secs(3)).await.unwrap(), 0);
    assert!(!store.has(&events[0].id).unwrap());
    assert!(store.has(&events[2].id).unwrap());
}

#[tokio::test]
async fn what_the_operator_removes_is_gone_for_good() {
    let (folder, store) = open();
    let evidence = note(&Keys::generate(), kinds::AWARD, 1, vec![]);
    save(&store, &evidence).await;
    store.remove(vec![evidence.id]).await.unwrap();
    assert_eq!(ids(&store, Filter::new()).await, []);
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert!(!store.has(&evidence.id).unwrap());
}

#[tokio::test]
async fn more_items_than_asked_for_are_refused() {
    let (_folder, store) = open();
    let keys = Keys::generate();
    for at in 0..3 {
        save(&store, &note(&keys, 1, at, vec![])).await;
    }
    assert_eq!(store.items(Filter::new(), 3).await.unwrap().len(), 3);
    let refused = store.items(Filter::new(), 2).await.unwrap_err();
    assert!(matches!(refused, Error::TooMany));
    let searched = store.query(Filter::new().search("a"), 1).await.unwrap_err();
    assert!(matches!(searched, Error::Search));
}

#[tokio::test]
async fn many_authors_and_kinds_are_merged_in_order() {
    let (_folder, store) = open();
    let authors: Vec<Keys> = (0..40).map(|_| Keys::generate()).collect();
    let mut expected = Vec::new();
    for at in 0..400_u64 {
        let keys = &authors[at as usize % authors.len()];
        let event = note(
            keys,
            1_000 + (at % 7) as u16,
            at,
            vec![Tag::hashtag(format!("{}", at % 5))],
        );
        save(&store, &event).await;
        expected.insert(0, event.id);
    }
    let everybody = Filter::new().authors(authors.iter().map(Keys::public_key));
    let kinds = (1_000..1_007).map(Kind::from);
    let tags = (0..5).map(|tag| tag.to_string());
    for filter in [
        everybody.clone(),
        everybody.clone().kinds(kinds.clone()),
        // Too many pairs to look each of them up.
        everybody.clone().kinds((1_000..1_060).map(Kind::from)),
        Filter::new().hashtags(tags.clone()),
        everybody.hashtags(tags).kinds(kinds),
    ] {
        assert_eq!(ids(&store, filter.clone()).await, expected, "{filter:?}");
        assert_eq!(ids(&store, filter.limit(9)).await, expected[..9]);
    }
}
