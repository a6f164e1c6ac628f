//! The program `infernet-relay`, as people start it.

use std::path::Path;
use std::process::{Output, Stdio};

use nostr::{Event, Filter, Keys, ToBech32};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::client::{Client, soon};
use crate::events::{attestation, plain, profile};

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infernet-relay"));
    command
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Starts the program on a free port and answers its process and URL.
pub async fn start(data: &Path, more: &[&str]) -> (Child, String) {
    let data = data.to_str().unwrap();
    let mut arguments = vec!["--listen", "127.0.0.1:0", "--data", data];
    arguments.extend(more);
    let mut relay = command(&arguments)
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(relay.stdout.take().unwrap()).lines();
    let line = soon(lines.next_line()).await.unwrap().unwrap();
    let url = line.strip_prefix("listening on ").unwrap().to_owned();
    (relay, url)
}

/// Runs the program to its end, which must be a failure, and answers what it says.
pub async fn failure(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = soon(command(arguments).output()).await.unwrap();
    assert!(!status.success(), "{arguments:?} should have failed");
    let said = String::from_utf8(stderr).unwrap();
    assert!(
        said.starts_with("error: ") && said.lines().count() == 1,
        "{said}"
    );
    said
}

pub async fn signal(relay: &Child, name: &str) {
    let pid = relay.id().unwrap().to_string();
    let kill = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(kill.await.unwrap().success());
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_program_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::generate();
    let mut acknowledged: Vec<Event> = Vec::new();
    for _ in 0..3 {
        let (mut relay, url) = start(folder.path(), &[]).await;
        let mut client = Client::connect(&url).await;
        for _ in 0..20 {
            let event = attestation(&keys);
            client.keep(&event).await;
            acknowledged.push(event);
        }
        signal(&relay, "KILL").await;
        soon(relay.wait()).await.unwrap();
    }
    let (_relay, url) = start(folder.path(), &[]).await;
    let mut client = Client::connect(&url).await;
    let stored = client
        .stored(&Filter::new().author(keys.public_key()))
        .await;
    assert_eq!(stored.len(), acknowledged.len());
    assert!(acknowledged.iter().all(|event| stored.contains(event)));
}

#[tokio::test]
async fn ctrl_c_ends_it_well() {
    let folder = tempfile::tempdir().unwrap();
    let (mut relay, url) = start(folder.path(), &["--log-json"]).await;
    let mut client = Client::connect(&url).await;
    client.keep(&profile(&Keys::generate(), "me", 0)).await;
    signal(&relay, "INT").await;
    client.hear_out().await;
    assert!(soon(relay.wait()).await.unwrap().success());
}

#[tokio::test]
async fn general_is_a_flag_and_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    std::fs::write(&file, "general = true\nlisten = \"127.0.0.1:1\"\n").unwrap();
    let file = file.to_str().unwrap();
    for (name, more) in [("flag", vec!["--general"]), ("key", vec!["--config", file])] {
        let (_relay, url) = start(&folder.path().join(name), &more).await;
        let note = plain(
            &Keys::generate(),
            1,
            "hello",
            [],
            crate::events::from_now(0),
        );
        Client::connect(&url).await.keep(&note).await;
    }
}

#[tokio::test]
async fn two_relays_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, _) = start(folder.path(), &[]).await;
    let data = folder.path().to_str().unwrap();
    let said = failure(&["--listen", "127.0.0.1:0", "--data", data]).await;
    assert!(
        said.contains(data) && said.contains("another relay is using it"),
        "{said}"
    );
    assert!(said.contains("--data"), "{said}");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = folder.path().to_str().unwrap();
    let said = failure(&["--listen", &address, "--data", data]).await;
    assert!(
        said.contains(&address) && said.contains("--listen"),
        "{said}"
    );
    let said = failure(&["--listen", "7777", "--data", data]).await;
    assert!(said.contains("HOST:PORT"), "{said}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    for data in [file.join("below"), file, "/proc/none".into()] {
        let data = data.to_str().unwrap();
        let said = failure(&["--listen", "127.0.0.1:0", "--data", data]).await;
        assert!(
            said.contains(&format!("cannot use the folder {data}: ")),
            "{said}"
        );
    }
}

#[tokio::test]
async fn something_else_in_the_folder_is_not_taken_for_a_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.mdb"), "x".repeat(9_000)).unwrap();
    let data = folder.path().to_str().unwrap();
    let said = failure(&["--listen", "127.0.0.1:0", "--data", data]).await;
    assert!(said.contains("Move its data.mdb away"), "{said}");
}

#[tokio::test]
async fn a_wrong_file_is_named_with_its_fault() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    let path = file.to_str().unwrap();
    for (text, fault) in [
        ("listn = \"127.0.0.1:0\"", "unknown field `listn`"),
        ("[limits]\nconnections = -1", "limits.connections"),
        ("general = ", "relay.toml:1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let said = failure(&["--config", path]).await;
        assert!(said.contains(path) && said.contains(fault), "{said}");
    }
    std::fs::remove_file(&file).unwrap();
    let said = failure(&["--config", path]).await;
    assert!(said.contains(path), "{said}");
}

#[tokio::test]
async fn without_any_folder_it_says_what_to_set() {
    let said = failure(&["--listen", "127.0.0.1:0"]).await;
    assert!(said.contains("HOME") && said.contains("--data"), "{said}");
}

/// Runs a command over a folder, which must do it, and answers what it says.
async fn done(data: &Path, arguments: &[&str]) -> String {
    let arguments = [arguments, &["--data", data.to_str().unwrap()]].concat();
    let output = soon(command(&arguments).output()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_owner_bans_whether_the_relay_runs_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let (early, late) = (Keys::generate(), Keys::generate());
    let npubs = [&early, &late].map(|keys| keys.public_key().to_bech32().unwrap());
    let said = done(data, &["ban", &npubs[0], "before"]).await;
    assert!(said.contains("no relay runs"), "{said}");
    let (_relay, url) = start(data, &[]).await;
    let mut client = Client::connect(&url).await;
    client.refused(&profile(&early, "me", 0), "banned").await;
    let event = profile(&late, "me", 10);
    client.keep(&event).await;

    let said = done(data, &["ban", &npubs[1], "while it runs"]).await;
    assert!(said.starts_with("the relay in "), "{said}");
    client.refused(&profile(&late, "me", 0), "banned").await;
    done(data, &["ban", &event.id.to_bech32().unwrap()]).await;
    assert!(client.stored(&Filter::new().id(event.id)).await.is_empty());
    let listed = done(data, &["lists"]).await;
    for line in [
        format!("banned    {}  before", npubs[0]),
        format!("banned    {}  while it runs", npubs[1]),
        format!("banned    {}", event.id.to_bech32().unwrap()),
    ] {
        assert!(
            listed.lines().any(|said| said == line),
            "{line} in\n{listed}"
        );
    }
    done(data, &["unban", &npubs[0]]).await;
    client.keep(&profile(&early, "me", 0)).await;
    let said = failure(&["ban", "127.0.0.1", "--data", data.to_str().unwrap()]).await;
    assert!(said.contains("this machine"), "{said}");

    let status = done(data, &["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["connections"], 1);
    assert_eq!(url, format!("ws://{}", status["address"].as_str().unwrap()));
    let nobody = tempfile::tempdir().unwrap();
    let said = failure(&["status", "--data", nobody.path().to_str().unwrap()]).await;
    assert!(said.contains("no relay is running"), "{said}");
}

#[tokio::test]
async fn the_configuration_that_it_prints_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    std::fs::write(&file, done(folder.path(), &["config"]).await).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    let (_relay, url) = start(folder.path(), &config).await;
    let mut client = Client::connect(&url).await;
    client.keep(&profile(&Keys::generate(), "me", 0)).await;
}

#[tokio::test]
async fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = soon(command(&["--completions", shell]).output())
            .await
            .unwrap();
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            script.contains("infernet-relay") && script.contains("general"),
            "{script}"
        );
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread = command(&["--completions", "bash"]).stdout(writer).status();
    assert!(soon(unread).await.unwrap().success());
}
