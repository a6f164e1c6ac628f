//! A store whose process is killed has what was acknowledged; a damaged log is read as far as it can be.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use infernet_relay::store::{Saved, Store};
use nostr::{Event, EventBuilder, EventId, Filter, JsonUtil, Keys};

use super::{ids, save};

/// Says to a copy of this program that it is the one to be killed, and where its store is.
const VICTIM: &str = "INFERNET_TEST_VICTIM";

fn event(keys: &Keys, text: &str) -> Event {
    EventBuilder::text_note(text).sign_with_keys(keys).unwrap()
}

/// Saves as fast as it can and prints what was acknowledged, until it is killed. Does nothing in a usual run.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(VICTIM) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Store::open(Path::new(&folder)).unwrap());
        let writers = (0..8).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let keys = Keys::generate();
                for number in 0_u32.. {
                    let event = event(&keys, &number.to_string());
                    assert_eq!(save(&store, &event).await, Saved::New);
                    // One write, so that no line is torn.
                    let line = format!("saved {}\n", event.id);
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

/// Lets a victim write until it has acknowledged so much, kills it, and answers what it acknowledged.
fn kill_after(folder: &Path, acknowledged: usize) -> Vec<EventId> {
    let program = std::env::current_exe().unwrap();
    let mut victim = Command::new(program)
        .args(["--exact", "crash::victim", "--nocapture"])
        .env(VICTIM, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut saved = Vec::new();
    for line in BufReader::new(victim.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // What it printed before it died counts, the torn last line does not.
        if let Some(Ok(id)) = line.strip_prefix("saved ").map(EventId::parse) {
            saved.push(id);
        }
        if saved.len() == acknowledged {
            victim.kill().unwrap();
        }
    }
    victim.wait().unwrap();
    assert!(saved.len() >= acknowledged);
    saved
}

#[tokio::test]
async fn what_was_acknowledged_survives_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for acknowledged in [1, 50, 777, 3_000] {
        all.extend(kill_after(folder.path(), acknowledged));
        let store = Store::open(folder.path()).unwrap();
        for id in &all {
            assert!(store.has(id).unwrap(), "{id} is lost");
        }
        let found = store.query(Filter::new(), usize::MAX).await.unwrap();
        assert!(found.len() >= all.len());
        found
            .iter()
            .for_each(|stored| stored.event().unwrap().verify().unwrap());
    }
}

/// The only segment of the log in a store's folder.
fn segment(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder.join("log")).unwrap();
    let segment = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    segment
}

/// A log with events that no index has, as a crash leaves it, and those events.
async fn left_behind(events: usize) -> (Vec<u8>, Vec<Event>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let keys = Keys::generate();
    let mut saved = Vec::new();
    for number in 0..events {
        let event = event(&keys, &number.to_string());
        assert_eq!(save(&store, &event).await, Saved::New);
        saved.push(event);
    }
    (fs::read(segment(folder.path())).unwrap(), saved)
}

/// Opens a new store over this log, and answers it.
fn over(folder: &Path, log: &[u8]) -> Store {
    fs::create_dir_all(folder.join("log")).unwrap();
    fs::write(folder.join("log/00000000000000000001.log"), log).unwrap();
    Store::open(folder).unwrap()
}

#[tokio::test]
async fn a_log_cut_anywhere_in_its_last_frames_gives_the_whole_ones() {
    let (log, events) = left_behind(4).await;
    let frame = log.len() / 4;
    for cut in (log.len() - 2 * frame)..=log.len() {
        let folder = tempfile::tempdir().unwrap();
        let store = over(folder.path(), &log[..cut]);
        // All frames have the same length: the texts have one digit each.
        let whole = cut / frame;
        for (place, event) in events.iter().enumerate() {
            assert_eq!(store.has(&event.id).unwrap(), place < whole, "{cut}");
        }
        // What comes afterwards stands behind nothing torn.
        let next = event(&Keys::generate(), "next");
        assert_eq!(save(&store, &next).await, Saved::New);
        drop(store);
        assert!(Store::open(folder.path()).unwrap().has(&next.id).unwrap());
    }
}

#[tokio::test]
async fn damage_in_the_middle_of_the_log_hides_nothing_behind_it() {
    let (mut log, events) = left_behind(5).await;
    let frame = log.len() / 5;
    log[2 * frame + frame / 2] ^= 1;
    let folder = tempfile::tempdir().unwrap();
    let store = over(folder.path(), &log);
    for (place, event) in events.iter().enumerate() {
        assert_eq!(store.has(&event.id).unwrap(), place != 2);
    }
    let kept = folder.path().join("log/00000000000000000001.damaged");
    assert_eq!(fs::read(kept).unwrap(), log, "the operator can look at it");
}

#[tokio::test]
async fn a_damaged_end_of_the_log_is_kept_for_the_operator() {
    let (whole, events) = left_behind(3).await;
    let frame = whole.len() / 3;
    // In the length, in the text, in the mark.
    for at in [5, frame / 2, 0] {
        let mut log = whole.clone();
        log[2 * frame + at] ^= 1;
        let folder = tempfile::tempdir().unwrap();
        let store = over(folder.path(), &log);
        for (place, event) in events.iter().enumerate() {
            assert_eq!(store.has(&event.id).unwrap(), place != 2);
        }
        let kept = folder.path().join("log/00000000000000000001.damaged");
        assert_eq!(fs::read(kept).unwrap(), log, "{at}");
    }
}

/// A frame with another number.
fn renumbered(frame: &[u8], number: u64) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[12..20].copy_from_slice(&number.to_be_bytes());
    let sum = crc32fast::hash(&frame[12..]);
    frame[8..12].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[tokio::test]
async fn an_event_that_is_twice_in_the_log_is_found_once() {
    // It was refused when the disk failed, left its trace, and came again.
    let (log, events) = left_behind(1).await;
    let folder = tempfile::tempdir().unwrap();
    let store = over(folder.path(), &[log.clone(), renumbered(&log, 2)].concat());
    assert_eq!(ids(&store, Filter::new()).await, [events[0].id]);
    // The operator's removal lets it come again.
    store.remove(vec![events[0].id]).await.unwrap();
    assert_eq!(ids(&store, Filter::new()).await, []);
}

#[tokio::test]
async fn a_log_that_was_indexed_already_is_not_applied_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let event = event(&Keys::generate(), "");
    save(&store, &event).await;
    let log = fs::read(segment(folder.path())).unwrap();
    store.remove(vec![event.id]).await.unwrap();
    drop(store);
    // As if the process had died before it removed the log.
    let store = over(folder.path(), &log);
    assert_eq!(ids(&store, Filter::new()).await, []);
    assert_eq!(save(&store, &event).await, Saved::New);
    assert_eq!(ids(&store, Filter::new()).await, [event.id]);
}

#[test]
fn json_in_the_log_is_the_events_own() {
    let event = event(&Keys::generate(), "a \"text\"\n");
    assert_eq!(Event::from_json(event.as_json()).unwrap(), event);
}
