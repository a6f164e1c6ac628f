//! The program itself: its output, its commands, SIGKILL and Ctrl-C.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use infernet_protocol::event::{CancelReason, Status};
use infernet_protocol::inference::EndReason;
use nostr::{FromBech32, PublicKey};
use tokio::time::Instant;

use super::buyer::{Buyer, Heard};
use super::house::{PATIENCE, Relay};

/// Waits for something that nobody announces.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infernet-provider"));
    command
        .arg("--home")
        .arg(home)
        .env_clear()
        .env("HOME", home);
    command
}

/// A provider in a process of its own, killed when the test is over.
pub struct Process {
    child: Child,
    pub npub: PublicKey,
}

impl Process {
    /// Starts it, and waits for the line that says it is ready.
    fn start(home: &Path, relay: &Relay) -> Self {
        Self::start_with(home, relay, |command| {
            command.args(["--scripted-speed", "5"])
        })
    }

    /// The same, with other arguments.
    pub fn start_with(
        home: &Path,
        relay: &Relay,
        change: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Self {
        let mut command = program(home);
        command.args(["start", "--engine", "scripted"]).args([
            "--relay",
            relay.url().as_str(),
            "--name",
            "mortal",
        ]);
        let mut child = change(&mut command)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[2]), ("ready:", "sells"), "{line}");
        assert!(line.trim_end().ends_with(relay.url().as_str()), "{line}");
        Self {
            child,
            npub: PublicKey::from_bech32(words[1]).unwrap(),
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
            .status();
        assert!(sent.unwrap().success());
    }

    pub async fn has_ended(&mut self) {
        until("the process ends", || {
            self.child.try_wait().unwrap().is_some()
        })
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_starts_again_and_gives_up_what_it_had_taken_on() {
    let relay = Relay::start().await;
    let home = tempfile::tempdir().unwrap();
    let mut process = Process::start(home.path(), &relay);
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(process.npub).await;
    let award = buyer.ask(&word, 100).await;
    buyer.piece(award.id(), 0).await;
    process.signal("KILL");
    process.has_ended().await;

    let mut again = Process::start(home.path(), &relay);
    assert_eq!(again.npub, process.npub, "the key is kept");
    let reason = buyer
        .wait(|heard| match heard {
            Heard::Cancel(cancel) if cancel.award == Some(award.id()) => Some(cancel.reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, CancelReason::Restarted);
    let next = buyer.ask(&word, 2).await;
    assert_eq!(buyer.result(&next).await.0.ended, EndReason::Length);
    again.signal("INT");
    buyer
        .announcement(again.npub, |word| word.status == Status::Offline)
        .await;
    again.has_ended().await;
    assert!(again.child.wait().unwrap().success());
}

/// What a command prints on standard output, and whether it succeeds.
pub fn said(command: &mut Command) -> (bool, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_speak_with_the_running_process() {
    let relay = Relay::start().await;
    let home = tempfile::tempdir().unwrap();
    let (ok, _, error) = said(program(home.path()).arg("status"));
    assert!(!ok && error.contains("no provider is running"), "{error}");
    let mut process = Process::start(home.path(), &relay);
    let (ok, status, _) = said(program(home.path()).args(["status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(
        ok && status["name"] == "mortal" && status["status"] == "online",
        "{status}"
    );
    let (ok, status, _) = said(program(home.path()).arg("status"));
    assert!(
        ok && status.contains("mortal") && status.contains("connected"),
        "{status}"
    );
    let (ok, models, _) = said(program(home.path()).arg("models"));
    assert!(
        ok && models.contains("scripted-embed") && models.contains("free"),
        "{models}"
    );
    let second = program(home.path())
        .args(["start", "--engine", "scripted"])
        .output()
        .unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(
        !second.status.success() && error.contains("another provider is using"),
        "{error}"
    );
    assert!(
        error.contains("NO MODEL RUNS"),
        "a scripted engine says so: {error}"
    );
    let (ok, stopped, _) = said(program(home.path()).arg("stop"));
    assert!(ok && stopped.contains("stopped"), "{stopped}");
    process.has_ended().await;
}

#[test]
fn init_writes_settings_and_a_key_once() {
    let home = tempfile::tempdir().unwrap();
    let (ok, first, error) = said(program(home.path()).arg("init"));
    assert!(
        ok && first.contains("npub1") && error.contains("A key was made"),
        "{first}{error}"
    );
    let settings = home.path().join("provider.toml");
    std::fs::write(&settings, "slots = 3\n").unwrap();
    let (ok, second, error) = said(program(home.path()).arg("init"));
    assert!(
        ok && second.contains("left as it is") && error.is_empty(),
        "{second}{error}"
    );
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), "slots = 3\n");
    std::fs::write(&settings, "slosts = 3\n").unwrap();
    let (ok, _, error) = said(program(home.path()).args(["start", "--engine", "scripted"]));
    assert!(!ok && error.contains("provider.toml:1: slosts"), "{error}");
}

#[test]
fn a_start_without_a_model_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let (ok, _, error) = said(program(home.path()).arg("start"));
    assert!(!ok && error.contains("--model PATH"), "{error}");
    let missing = ["start", "--model", "/nonexistent/model.gguf"];
    let (ok, _, error) = said(program(home.path()).args(missing));
    assert!(!ok && error.contains("/nonexistent/model.gguf"), "{error}");
}

#[test]
fn completions_are_printed() {
    let home = tempfile::tempdir().unwrap();
    let (ok, script, _) = said(program(home.path()).args(["completions", "bash"]));
    assert!(ok && script.contains("infernet-provider"), "{script}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_has_seen_enough_breaks_nothing() {
    let relay = Relay::start().await;
    let home = tempfile::tempdir().unwrap();
    let _process = Process::start(home.path(), &relay);
    let commands: [&[&str]; 5] = [
        &["status"],
        &["status", "--json"],
        &["models"],
        &["init"],
        &["completions", "zsh"],
    ];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = program(home.path())
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {error}");
    }
}

#[test]
fn an_error_says_its_cause_once() {
    let home = tempfile::tempdir().unwrap();
    let missing = ["start", "--model", "/nonexistent/model.gguf"];
    let (_, _, error) = said(program(home.path()).args(missing));
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
}

#[test]
fn settings_without_a_model_are_said_to_have_none() {
    let home = tempfile::tempdir().unwrap();
    let (ok, models, error) = said(program(home.path()).arg("models"));
    assert!(
        ok && models.is_empty() && error.contains("name no model"),
        "{models}{error}"
    );
}
