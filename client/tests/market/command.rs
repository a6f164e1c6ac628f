//! The program itself, as its user runs it.

use std::path::Path;
use std::process::Stdio;

use infernet_protocol::bounds::MAX_BLOB_PAYLOAD_BYTES;
use infernet_protocol::kinds;
use nostr::RelayUrl;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::fake::{Conduct, Script, answer, embedding_model};
use crate::{DEADLINE, Market};

/// What a run left.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A user with a home folder, on a market.
pub struct User {
    home: TempDir,
    relay: String,
    /// More of the environment.
    pub environment: Vec<(&'static str, String)>,
}

impl User {
    fn on(market: &Market) -> Self {
        Self::at(&market.url)
    }

    pub fn at(relay: &RelayUrl) -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            relay: relay.to_string(),
            environment: Vec::new(),
        }
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infernet-client"));
        command
            .args(arguments)
            .env_clear()
            .env("INFERNET_HOME", self.home())
            .env("INFERNET_RELAYS", &self.relay)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "").await
    }

    async fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self.start(arguments);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output());
        let output = output.await.expect("it never ended").unwrap();
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub async fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(arguments).await;
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        serde_json::from_str(&ran.out).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_submit_makes_a_key_streams_and_is_shown_and_audited() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let user = User::on(&market);
    let ran = user
        .run(&["submit", "--model", "tiny", "Say", "words"])
        .await;
    assert_eq!(
        (ran.code, ran.out),
        (Some(0), format!("{}\n", answer())),
        "{}",
        ran.err
    );
    let key = user.home().join("client/client.key");
    assert!(
        key.exists() && ran.err.contains(&key.display().to_string()),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("ada serves it with tiny") && ran.err.contains("12 tokens"),
        "{}",
        ran.err
    );

    let jobs = user.json(&["jobs", "--json"]).await;
    let job = jobs[0]["id"].as_str().unwrap();
    assert_eq!(
        (jobs[0]["status"].as_str(), jobs[0]["tokens"].as_u64()),
        (Some("done"), Some(12))
    );

    let shown = user.run(&["show", &job[..6]]).await;
    let kinds: Vec<_> = shown
        .out
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(3))
        .collect();
    assert_eq!(
        kinds,
        ["announcement*", "award", "result", "attestation"],
        "{}",
        shown.out
    );
    assert!(!shown.err.contains("Made a key"), "the key was made twice");

    let audit = user.json(&["audit", job, "--json"]).await;
    let findings = audit["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["finding"].as_str().unwrap());
    assert!(
        findings.clone().all(|finding| finding == "proven"),
        "{audit:#}"
    );
    let audited = user.run(&["audit", job]).await;
    assert!(
        audited.out.ends_with(&format!(
            "{} proven, 0 not proven, 0 wrong\n",
            findings.count()
        )),
        "{}",
        audited.out
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_told_beside_the_answer_and_audited() {
    let scripts = [
        Script::new("first", Conduct::GivesUp(5)).speed(500.0),
        Script::new("second", Conduct::Honest),
    ];
    let market = Market::of(scripts).await;
    let user = User::on(&market);
    let ran = user.run(&["submit", "Say words", "--model=tiny"]).await;
    assert_eq!(ran.out, format!("{}\n", answer()));
    assert!(ran.err.contains("first gave up."), "{}", ran.err);
    assert!(
        ran.err
            .contains("second takes over behind 5 tokens (attempt 2)."),
        "{}",
        ran.err
    );
    let jobs = user.json(&["jobs", "--json"]).await;
    let audit = user.run(&["audit", jobs[0]["id"].as_str().unwrap()]).await;
    assert_eq!(audit.code, Some(0), "{}", audit.out);
    assert!(
        audit.out.contains("2 attempts, each awarded once"),
        "{}",
        audit.out
    );
    let open = |line: &&str| line.starts_with("not proven");
    let open: Vec<_> = audit.out.lines().filter(open).collect();
    assert_eq!(
        open.len(),
        3,
        "result, attestation and continuation rest on one side's word: {}",
        audit.out
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_result_is_wrong_in_the_audit() {
    let market = Market::of([Script::new("liar", Conduct::WrongHash)]).await;
    let user = User::on(&market);
    let ran = user.run(&["submit", "Say words", "--model=tiny"]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(
        ran.err.contains("liar sent what is not valid."),
        "{}",
        ran.err
    );
    let jobs = user.json(&["jobs", "--json"]).await;
    assert_eq!(jobs[0]["status"], "failed");
    let audit = user.run(&["audit", jobs[0]["id"].as_str().unwrap()]).await;
    assert_eq!(audit.code, Some(1), "{}", audit.out);
    assert!(audit.out.contains("WRONG"), "{}", audit.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prompt_comes_from_a_file_or_from_standard_input() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let user = User::on(&market);
    let file = user.home().join("prompt.txt");
    std::fs::write(&file, "Say words").unwrap();
    let from_file = user
        .run(&["submit", "--file", file.to_str().unwrap()])
        .await;
    let from_input = user.run_with(&["submit"], "Say words").await;
    let from_dash = user.run_with(&["submit", "-"], "Say words").await;
    for ran in [from_file, from_input, from_dash] {
        assert_eq!(
            (ran.code, ran.out),
            (Some(0), format!("{}\n", answer())),
            "{}",
            ran.err
        );
    }
    let inputs = market.providers[0].seen.lock().unwrap().inputs.len();
    assert_eq!(inputs, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_object_at_the_end() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let user = User::on(&market);
    let done = user
        .json(&[
            "submit",
            "--json",
            "--auction",
            "--model",
            "tiny",
            "Say words",
        ])
        .await;
    assert_eq!(done["status"], "done");
    assert_eq!(done["text"], answer());
    assert_eq!(done["provider_name"], "ada");
    let failed = user
        .run(&["submit", "--json", "--model", "gpt-9", "Say words"])
        .await;
    assert_eq!(failed.code, Some(1));
    let failed: Value = serde_json::from_str(&failed.out).unwrap();
    assert_eq!(failed["status"], "failed");
    assert!(
        failed["error"]
            .as_str()
            .unwrap()
            .contains("nobody sells gpt-9; on sale for text-generation: tiny")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_embedded_one_array_a_line() {
    let mut script = Script::new("ada", Conduct::Honest);
    script.model = embedding_model();
    let market = Market::of([script]).await;
    let user = User::on(&market);
    let ran = user.run(&["embed", "one", "two"]).await;
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (Some(0), "[0.6,0.8]\n[0.6,0.8]\n"),
        "{}",
        ran.err
    );
    let ran = user.run_with(&["embed"], "one\n\ntwo\nthree\n").await;
    assert_eq!(ran.out.lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_listed_with_what_their_score_rests_on() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let (user, stranger) = (User::on(&market), User::on(&market));
    let before = user.run(&["providers"]).await;
    assert!(
        before.out.contains("ada") && before.out.contains("0.25 (no ratings)"),
        "{}",
        before.out
    );
    for user in [&user, &stranger] {
        assert_eq!(user.run(&["submit", "Say words"]).await.code, Some(0));
    }
    market.eventually(kinds::ATTESTATION, 2).await;
    let providers = user.json(&["providers", "--json"]).await;
    assert_eq!(providers[0]["ratings_counted"], 1);
    assert_eq!(providers[0]["ratings_ignored"], 1);
    assert!(providers[0]["score"].as_f64().unwrap() > 0.3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_stops_the_job_and_tells_the_provider() {
    let market = Market::of([Script::new("slow", Conduct::Slow)]).await;
    let user = User::on(&market);
    let mut child = user.start(&["submit", "Say words"]);
    let mut out = child.stdout.take().unwrap();
    let mut first = [0];
    tokio::time::timeout(DEADLINE, out.read_exact(&mut first))
        .await
        .unwrap()
        .unwrap();
    let pid = child.id().unwrap().to_string();
    let sent = Command::new("sh")
        .args(["-c", "kill -INT \"$0\"", &pid])
        .status();
    assert!(sent.await.unwrap().success());
    let status = tokio::time::timeout(DEADLINE, child.wait()).await;
    assert_eq!(status.unwrap().unwrap().code(), Some(130));
    market.eventually(kinds::CANCEL, 1).await;
    assert_eq!(user.json(&["jobs", "--json"]).await[0]["status"], "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_is_usage() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let user = User::on(&market);
    let wrong: [&[&str]; 9] = [
        &["submit", "--seed", "-1", "x"],
        &["submit", "--temperature", "-1", "x"],
        &["jobs", "-n", "0"],
        &["submit", "--temprature", "1", "x"],
        &["submit", "--temperature", "9", "x"],
        &["submit", "--auction", "--provider", "ada", "x"],
        &["submit", "--relay", "here", "x"],
        &["submit", "  "],
        &["show", "xyz"],
    ];
    for arguments in wrong {
        let ran = user.run(arguments).await;
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains("error: "), "{arguments:?}: {}", ran.err);
    }
    let ran = user.run(&["submit", "--seed", "-1", "x"]).await;
    assert!(ran.err.contains("invalid value '-1'"), "{}", ran.err);
    std::fs::write(user.home().join("client/client.toml"), "relay = []\n").unwrap();
    let ran = user.run(&["jobs"]).await;
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.err.contains("client.toml:1: relay: unknown field"),
        "{}",
        ran.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn init_writes_what_it_says_and_keeps_what_is_there() {
    let market = Market::of([]).await;
    let user = User::on(&market);
    let first = user.run(&["init"]).await;
    assert_eq!(first.code, Some(0));
    let settings = user.home().join("client/client.toml");
    assert!(first.out.contains(&settings.display().to_string()) && first.out.contains("npub1"));
    std::fs::write(&settings, "# mine\n").unwrap();
    let again = user.run(&["init"]).await;
    assert!(again.out.contains("kept as it is"), "{}", again.out);
    assert_eq!(std::fs::read_to_string(settings).unwrap(), "# mine\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_ends_it() {
    let market = Market::of([Script::new("slow", Conduct::Slow)]).await;
    let user = User::on(&market);
    let mut child = user.start(&["submit", "Say words"]);
    let mut out = child.stdout.take().unwrap();
    let mut first = [0];
    tokio::time::timeout(DEADLINE, out.read_exact(&mut first))
        .await
        .unwrap()
        .unwrap();
    drop(out);
    let status = tokio::time::timeout(DEADLINE, child.wait()).await;
    assert_eq!(status.unwrap().unwrap().code(), Some(130));
    market.eventually(kinds::CANCEL, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_name_the_subcommands() {
    let market = Market::of([]).await;
    let ran = User::on(&market).run(&["completions", "bash"]).await;
    assert!(ran.code == Some(0) && ran.out.contains("audit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_too_long_or_no_text_is_called_that() {
    let market = Market::of([]).await;
    let user = User::on(&market);
    let file = user.home().join("prompt");
    let path = file.to_str().unwrap();
    // What is read ends within a character. Behind it lies more, in a hole of the file, than fits into memory.
    let text = "x".repeat(MAX_BLOB_PAYLOAD_BYTES) + "é";
    std::fs::write(&file, text).unwrap();
    let opened = std::fs::File::options().write(true).open(&file).unwrap();
    opened.set_len(1 << 40).unwrap();
    let long = user.run(&["submit", "--file", path]).await;
    let says = format!("more than the {MAX_BLOB_PAYLOAD_BYTES} bytes that one job carries");
    assert!(
        long.code == Some(1) && long.err.contains(&says),
        "{}",
        long.err
    );
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    let binary = user.run(&["submit", "--file", path]).await;
    assert!(
        binary.code == Some(1) && binary.err.contains("not UTF-8"),
        "{}",
        binary.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_away_is_waited_for_and_then_named() {
    let market = Market::of([]).await;
    let user = User::on(&market);
    let nowhere = "ws://127.0.0.1:1";
    let ran = user.run(&["providers", "--relay", nowhere]).await;
    assert_eq!(ran.code, Some(1));
    let (waiting, error) = ran.err.split_once("error: ").unwrap();
    assert!(
        waiting.ends_with(&format!("Waiting for {nowhere} …\n")),
        "{waiting}"
    );
    assert!(
        error.starts_with(&format!("no relay can be reached: {nowhere}")),
        "{error}"
    );
    assert!(error.contains("--relay"), "{error}");

    let ran = user.run(&["providers", "--relay", "nonsense"]).await;
    assert!(
        ran.err
            .contains("error: \"nonsense\" is no relay's address"),
        "{}",
        ran.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_settings_file_that_is_used_and_says_its_cause_once() {
    let market = Market::of([]).await;
    let user = User::on(&market);
    let missing = user.run(&["jobs", "--config", "/nonexistent.toml"]).await;
    assert_eq!(
        missing.err.matches("No such file").count(),
        1,
        "{}",
        missing.err
    );
    let file = user.home().join("other.toml");
    std::fs::write(&file, "trust = [\"x\"]").unwrap();
    let trust = user
        .run(&["providers", "--config", file.to_str().unwrap()])
        .await;
    assert!(
        trust.err.contains("other.toml") && trust.code == Some(2),
        "{}",
        trust.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_written_says_why() {
    let market = Market::of([Script::new("ada", Conduct::Slow)]).await;
    let user = User::on(&market);
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let child = user.command(&["submit", "Say words"]).stdout(full).spawn();
    let output = child.unwrap().wait_with_output();
    let output = tokio::time::timeout(DEADLINE, output)
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write to standard output"), "{said}");
    assert_eq!(user.json(&["jobs", "--json"]).await[0]["status"], "stopped");
}
