//! A disk without room, under load.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use infernet_tests::load::{Connection, Said, pipeline};
use infernet_tests::{Relay, skip};
use tempfile::TempDir;

use super::{UNLIMITED, events, missing};

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
    assert_eq!(missing(&relay.url, &all, &accepted).await, 0);
    relay.kill().unwrap();
    relay.restart().unwrap();
    assert_eq!(missing(&relay.url, &all, &accepted).await, 0);
}
