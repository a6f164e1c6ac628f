//! A disk that is full fails what comes in and nothing else.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use infernet_relay::store::{Error, Saved, Store};
use nostr::{Event, EventBuilder, Filter, JsonUtil, Keys, Timestamp};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{ids, save};

/// Says to a copy of this program that it has a small disk, and where its store is.
const CRAMPED: &str = "INFERNET_TEST_CRAMPED";

fn large(keys: &Keys, number: u32) -> Event {
    let text = format!("{number:060000}");
    let note = EventBuilder::text_note(text).custom_created_at(Timestamp::from_secs(1));
    note.sign_with_keys(keys).unwrap()
}

/// Fills a store whose files cannot grow beyond a bound. Does nothing in a usual run.
#[test]
fn cramped() {
    let Some(folder) = std::env::var_os(CRAMPED) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(fill(Path::new(&folder)));
}

async fn fill(folder: &Path) {
    let store = Store::open(folder).unwrap();
    let keys = Keys::generate();
    let event = |number| large(&keys, number);
    let mut saved = Vec::new();
    for number in 0..40 {
        assert_eq!(save(&store, &event(number)).await, Saved::New);
        saved.push(event(number).id);
    }
    for round in 1..4 {
        let pending = event(100 * round + 50);
        assert_eq!(save(&store, &pending).await, Saved::New);
        saved.push(pending.id);
        let room = cramp(true);
        // The index was as quick, or it is said that it cannot have what was acknowledged: nothing is left out.
        let found = store.query(Filter::new(), usize::MAX).await;
        assert!(found.is_err() || found.is_ok_and(|found| found.len() == saved.len()));
        for number in 0..20 {
            let event = event(100 * round + number);
            let json = event.as_json().into();
            let refused = store.save(Arc::new(event.clone()), json).await;
            assert!(matches!(refused, Err(Error::Io(_))), "{refused:?}");
            assert!(!store.has(&event.id).unwrap());
        }
        // What could not be written leaves no files behind.
        assert!(fs::read_dir(folder.join("log")).unwrap().count() <= 2);
        cramp(false);
        assert!(room, "it was not cramped before");
        // With room again it takes events again, also those that it refused.
        let event = event(100 * round);
        assert_eq!(save(&store, &event).await, Saved::New);
        saved.push(event.id);
        assert_eq!(readable(&store).await, saved.len());
    }
    // What the index has can be read without any room.
    cramp(true);
    assert_eq!(ids(&store, Filter::new().limit(5)).await.len(), 5);
    cramp(false);
    for id in &saved {
        assert!(store.has(id).unwrap());
        println!("saved {id}");
    }
}

/// Waits until the index follows again, and answers how many events there are.
async fn readable(store: &Store) -> usize {
    loop {
        match store.query(Filter::new(), usize::MAX).await {
            Ok(found) => return found.len(),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Lets no file grow any more, or all of them. Answers whether they could before.
fn cramp(cramped: bool) -> bool {
    let before = getrlimit(Resource::Fsize);
    let limit = Rlimit {
        current: cramped.then_some(0),
        maximum: before.maximum,
    };
    setrlimit(Resource::Fsize, limit).unwrap();
    before.current.is_none()
}

#[tokio::test]
async fn a_full_disk_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    // Writing to a file that may not grow fails, as the signal is ignored.
    let script = "trap '' XFSZ; exec \"$0\" --exact full::cramped --nocapture";
    let ran = Command::new("bash")
        .args(["-c", script])
        .arg(program)
        .env(CRAMPED, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let why = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success(),
        "{:?} {said} {why}",
        ran.status.signal()
    );
    let store = Store::open(folder.path()).unwrap();
    let saved: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("saved "))
        .collect();
    assert_eq!(saved.len(), 46);
    for id in saved {
        assert!(store.has(&id.parse().unwrap()).unwrap(), "{id} is lost");
    }
}
