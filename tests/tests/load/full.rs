//! A disk without room, under load.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use infernet_tests::load::{Connection, Ready, Said, pipeline};
use infernet_tests::{Relay, skip};
use tempfile::TempDir;

use super::{UNLIMITED, events, look_for, missing};

/// How soon it can be read after there is room again.
const READABLE_WITHIN: Duration = Duration::from_secs(30);

/// A small disk in memory, unmounted at the end.
struct Disk(TempDir);

impl Disk {
    /// None where this user may mount nothing.
    fn mount(size: &str) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mounted = mount(
            &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"],
            folder.path(),
        );
        mounted.then_some(Self(folder))
    }

    fn grow(&self, size: &str) {
        assert!(mount(
            &["-o", &format!("remount,size={size}")],
            self.0.path()
        ));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Whether all of these were found; if not, the relay must have said that it cannot look.
async fn told_or_found(url: &str, events: &[Ready], accepted: &[u64]) -> bool {
    match look_for(url, events, accepted).await {
        Ok(missing) => {
            assert_eq!(missing, 0);
            true
        }
        Err(told) => {
            assert!(told.to_string().contains("error: "), "{told}");
            false
        }
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    let mut command = Command::new("mount");
    let output = command.args(arguments).arg(at).output();
    output.is_ok_and(|output| output.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_loses_nothing() {
    let Some(disk) = Disk::mount("12m") else {
        skip(
            "a_full_disk_is_said_and_loses_nothing",
            "no tmpfs can be mounted here",
        );
        return;
    };
    let folder = disk.0.path().join("relay");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("relay.toml"), UNLIMITED).unwrap();
    let mut relay = Relay::start(folder, "127.0.0.1:0").unwrap();
    let all = events(10, 12_000);

    let outcome = pipeline(&relay.url, &all, 4, 64, Duration::from_secs(60)).await;
    let refused: Vec<&str> = outcome.refused.keys().map(String::as_str).collect();
    assert_eq!(refused, ["error"], "{:?}", outcome.broken);
    assert!(!outcome.accepted.is_empty());

    // What was acknowledged is found, or who asks is told that the store cannot look.
    told_or_found(&relay.url, &all, &outcome.accepted).await;

    disk.grow("200m");
    let refused = all
        .iter()
        .find(|event| !outcome.accepted.contains(&event.number))
        .unwrap();
    let mut connection = Connection::open(&relay.url).await.unwrap();
    let mut tries = 0;
    loop {
        connection.send(refused.message.clone()).await.unwrap();
        let text = connection.next().await.unwrap();
        match Said::read(&text) {
            Said::Ok(_, true, _) => break,
            Said::Ok(_, false, words) => {
                tries += 1;
                assert!(tries < 600, "there is room, and it says {words}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            _ => {}
        }
    }
    let mut accepted = outcome.accepted;
    accepted.push(refused.number);
    let by = Instant::now() + READABLE_WITHIN;
    while !told_or_found(&relay.url, &all, &accepted).await {
        assert!(Instant::now() < by, "there is room, and it cannot be read");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    relay.kill().unwrap();
    relay.restart().unwrap();
    assert_eq!(missing(&relay.url, &all, &accepted).await, 0);
}
