//! strfry itself, where there is one: INFERNET_STRFRY names it, or it is on PATH.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use infernet_relay::Direction;
use nostr::{Filter, Keys};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio_tungstenite::connect_async;

use crate::Relay;
use crate::client::{Client, soon};
use crate::events::{attestation, deletion, from_now, plain, profile};
use crate::sync::{all, all_by, ids, keep_all, keep_all_by, notes, open, settings, sync, task};

/// The program, if there is one; says so where a test is skipped for want of it.
fn program(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("INFERNET_STRFRY").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut there = named
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join("strfry")))
        .filter(|path| path.is_file());
    let found = there.next();
    if found.is_none() {
        eprintln!(
            "SKIPPED strfry::{test}: there is no strfry here (INFERNET_STRFRY=/path/to/strfry)"
        );
    }
    found
}

/// A strfry that runs, in a folder of its own.
struct Strfry {
    program: PathBuf,
    folder: TempDir,
    url: String,
    _child: Child,
}

impl Strfry {
    /// Starts one whose write policy is `plugin`, and which reconciles so many events at a time.
    async fn start(program: PathBuf, plugin: &str, sync_events: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let db = folder.path().join("db");
        std::fs::create_dir(&db).unwrap();
        let config = format!(
            "db = \"{}\"\ndbParams {{ mapsize = 1073741824 }}\nrelay {{\n bind = \"127.0.0.1\"\n port = {port}\n nofiles = 0\n \
             writePolicy {{ plugin = \"{plugin}\" }}\n negentropy {{ enabled = true\n maxSyncEvents = {sync_events} }}\n}}\n",
            db.display()
        );
        std::fs::write(folder.path().join("strfry.conf"), config).unwrap();
        let child = command(&program, folder.path(), &["relay"])
            .spawn()
            .unwrap();
        let url = format!("ws://127.0.0.1:{port}");
        soon(listening(port)).await;
        Self {
            program,
            folder,
            url,
            _child: child,
        }
    }

    /// A client of it. It greets nobody.
    async fn client(&self) -> Client {
        let (socket, _) = soon(connect_async(&self.url)).await.unwrap();
        Client::over(socket)
    }
}

fn command(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn listening(port: u16) {
    while tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .is_err()
    {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn it_asks_our_policy() {
    let Some(program) = program("it_asks_our_policy") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let relay = env!("CARGO_BIN_EXE_infernet-relay");
    let data = folder.path().to_str().unwrap();
    let strfry = Strfry::start(program, &format!("{relay} policy --data {data}"), 1_000).await;
    let mut client = strfry.client().await;
    let keys = Keys::generate();
    let evidence = attestation(&keys);
    client.keep(&evidence).await;
    let foreign = plain(&keys, 1, "hello", [], from_now(0));
    client
        .refused(&foreign, "blocked: kind 1 is not the market's")
        .await;
    client
        .refused(&deletion(&keys, &[&evidence]), "keeps evidence")
        .await;
    client
        .refused(&profile(&keys, "new", -1_000), "invalid: ")
        .await;
    let ban = ["ban", &keys.public_key().to_hex(), "--data", data];
    let banned = crate::program::command(&ban).status();
    assert!(soon(banned).await.unwrap().success());
    client
        .refused(&attestation(&keys), "has banned this key")
        .await;
    client.keep(&attestation(&Keys::generate())).await;
}

#[tokio::test]
async fn it_and_our_relay_become_equal() {
    let Some(program) = program("it_and_our_relay_become_equal") else {
        return;
    };
    // Few at a time, so that time must be cut into windows.
    let strfry = Strfry::start(program, "", 200).await;
    let here = Relay::start_with(open).await;
    let (only_here, only_there) = (notes(&Keys::generate(), 700), notes(&Keys::generate(), 900));
    let common = notes(&Keys::generate(), 50);
    keep_all(&here, &only_here).await;
    keep_all(&here, &common).await;
    keep_all_by(strfry.client().await, &only_there).await;
    keep_all_by(strfry.client().await, &common).await;
    let (progress, done) = sync(
        &settings(here.folder.path()),
        &task(&strfry.url, Direction::Both),
    )
    .await;
    done.unwrap();
    assert!(!progress.by_pages);
    assert_eq!(
        (progress.received, progress.given),
        (900, 700),
        "{progress:?}"
    );
    let everything = ids(common.iter().chain(&only_here).chain(&only_there));
    let at_strfry = all_by(strfry.client().await, &Filter::new()).await;
    assert_eq!(at_strfry, everything);
    assert_eq!(all(&here, &Filter::new()).await, everything);
}

#[tokio::test]
async fn it_reconciles_with_us_as_the_one_that_leads() {
    let Some(program) = program("it_reconciles_with_us_as_the_one_that_leads") else {
        return;
    };
    let strfry = Strfry::start(program, "", 1_000_000).await;
    let here = Relay::start_with(open).await;
    let (only_here, only_there) = (notes(&Keys::generate(), 700), notes(&Keys::generate(), 900));
    keep_all(&here, &only_here).await;
    keep_all_by(strfry.client().await, &only_there).await;
    let url = here.handle.url();
    let led = command(
        &strfry.program,
        strfry.folder.path(),
        &["sync", &url, "--dir", "both"],
    )
    .status();
    assert!(soon(led).await.unwrap().success());
    let everything = ids(only_here.iter().chain(&only_there));
    let at_strfry = all_by(strfry.client().await, &Filter::new()).await;
    assert_eq!(at_strfry, everything);
    assert_eq!(all(&here, &Filter::new()).await, everything);
}
