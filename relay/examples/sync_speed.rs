//! How fast two relays with a million events in common become equal, how much memory that takes, and how many events a
//! second `infernet-relay policy` judges.
//!
//! `cargo run --release -p infernet-relay --example sync_speed -- target/release/infernet-relay /tmp/speed [EVENTS]`
//! makes the two relays in the folder at first, which takes minutes; called again, it measures once more what is
//! left to do: nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use futures::future::join_all;
use infernet_relay::store::Store;
use nostr::{Event, EventBuilder, JsonUtil as _, Keys, Kind, Tag, Timestamp};
use serde_json::json;

/// Events that only one of the two has.
const DIFFERENT: u64 = 20_000;

/// Events that are saved at a time.
const STEP: u64 = 10_000;

/// Events that the policy judges.
const JUDGED: u64 = 50_000;

/// The seconds over which the events are spread: two years.
const SPREAD: u64 = 2 * 365 * 86_400;

fn event(keys: &[Keys], number: u64, common: u64) -> Event {
    let keys = &keys[number as usize % keys.len()];
    let age = (number % common) * SPREAD / common;
    let id = |n: u64| Tag::parse(["e".to_owned(), format!("{n:064x}")]).unwrap();
    EventBuilder::new(Kind::TextNote, format!("{number:0600}"))
        .tags([
            id(number),
            id(number + 1),
            Tag::public_key(keys.public_key()),
        ])
        .custom_created_at(Timestamp::from_secs(1_790_000_000 - age))
        .sign_with_keys(keys)
        .unwrap()
}

/// Fills a folder with events by their numbers.
async fn fill(folder: &Path, keys: &[Keys], numbers: std::ops::Range<u64>, common: u64) {
    let store = Store::open(folder).unwrap();
    for begin in numbers.clone().step_by(STEP as usize) {
        let step = begin..(begin + STEP).min(numbers.end);
        let saves = step.map(|number| {
            let event = event(keys, number, common);
            let json = Bytes::from(event.as_json());
            store.save(Arc::new(event), json)
        });
        let saved = join_all(saves.collect::<Vec<_>>()).await;
        assert!(saved.iter().all(Result::is_ok));
    }
}

/// The memory that a process has of its own, in MiB: what it maps of the store is the system's to drop.
fn memory(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1_024
}

fn program(path: &Path, arguments: &[&str]) -> Child {
    Command::new(path)
        .args(arguments)
        .env("INFERNET_RELAY_GENERAL", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn sync(path: &Path, here: &Path, there: &Path) {
    let there = there.to_str().unwrap();
    let mut relay = program(path, &["--data", there, "--listen", "127.0.0.1:0"]);
    let mut lines = BufReader::new(relay.stdout.take().unwrap()).lines();
    let said = lines.next().unwrap().unwrap();
    let url = said.strip_prefix("listening on ").unwrap();
    for round in ["with what differs", "once more"] {
        let began = Instant::now();
        let here = here.to_str().unwrap();
        let mut syncing = program(path, &["sync", url, "--data", here, "--json"]);
        let (mut most, mut last) = ((0, 0), String::new());
        for line in BufReader::new(syncing.stdout.take().unwrap()).lines() {
            most = (most.0.max(memory(&syncing)), most.1.max(memory(&relay)));
            last = line.unwrap();
        }
        syncing.wait().unwrap();
        let took = began.elapsed().as_secs_f64();
        let (here, there) = most;
        println!(
            "sync {round}: {took:.1} s, at most {here} MiB here and {there} MiB there: {last}"
        );
    }
    relay.kill().unwrap();
    relay.wait().unwrap();
}

fn judge(path: &Path, folder: &Path, keys: &[Keys]) {
    let folder = folder.to_str().unwrap();
    let questions: Vec<_> = (0..JUDGED)
        .map(|number| {
            let event = serde_json::from_str::<serde_json::Value>(
                &event(keys, number + 7_000_000_000, JUDGED).as_json(),
            );
            let question = json!({
                "type": "new", "event": event.unwrap(), "receivedAt": 1_790_000_000, "sourceType": "Stream", "sourceInfo": "",
            });
            question.to_string() + "\n"
        })
        .collect();
    let mut policy = program(path, &["policy", "--data", folder]);
    let mut to = policy.stdin.take().unwrap();
    let mut from = BufReader::new(policy.stdout.take().unwrap());
    let began = Instant::now();
    let (mut line, mut accepted) = (String::new(), 0);
    // One at a time, as strfry asks.
    for question in &questions {
        to.write_all(question.as_bytes()).unwrap();
        line.clear();
        from.read_line(&mut line).unwrap();
        accepted += u64::from(line.contains("accept"));
    }
    let rate = JUDGED as f64 / began.elapsed().as_secs_f64();
    println!("policy: {rate:.0} events a second, one at a time; {accepted} of {JUDGED} accepted");
    drop(to);
    policy.wait().unwrap();
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().expect("the program"));
    let folder = PathBuf::from(arguments.next().expect("a folder"));
    let common: u64 = arguments.next().map_or(1_000_000, |n| n.parse().unwrap());
    let keys: Vec<_> = (0..100).map(|_| Keys::generate()).collect();
    let (here, there) = (folder.join("here"), folder.join("there"));
    if !here.exists() {
        fill(&there, &keys, 0..common, common).await;
        let copied = Command::new("cp").arg("-r").args([&there, &here]).status();
        assert!(copied.unwrap().success());
        fill(&here, &keys, common..common + DIFFERENT, common).await;
        fill(
            &there,
            &keys,
            common + DIFFERENT..common + 2 * DIFFERENT,
            common,
        )
        .await;
    }
    tokio::task::block_in_place(|| {
        judge(&path, &folder.join("policy"), &keys);
        sync(&path, &here, &there);
    });
}
