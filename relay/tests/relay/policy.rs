//! `infernet-relay policy`, as strfry runs it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nostr::{Event, JsonUtil as _, Keys, Tag};
use serde_json::{Value, json};

use crate::events::{attestation, bid, from_now, offer, plain, profile};

/// The program, and its ends.
struct Policy {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Policy {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_infernet-relay"))
            .args(["policy", "--data", folder.to_str().unwrap()])
            .args(more)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            questions: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn say(&mut self, line: &str) {
        let questions = self.questions.as_mut().unwrap();
        questions.write_all(line.as_bytes()).unwrap();
        questions.write_all(b"\n").unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Asks about an event, and answers the action and the message.
    fn ask(&mut self, event: &Event, with: Value) -> (String, String) {
        self.say(&question(event, with));
        let answer = self.hear();
        assert_eq!(answer["id"], event.id.to_hex(), "{answer}");
        let text = |of: &str| answer[of].as_str().unwrap().to_owned();
        (text("action"), text("msg"))
    }

    /// Ends it, and answers what it complained of.
    fn end(mut self) -> String {
        drop(self.questions.take());
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

fn question(event: &Event, with: Value) -> String {
    let event: Value = serde_json::from_str(&event.as_json()).unwrap();
    let mut question = json!({
        "type": "new",
        "event": event,
        "receivedAt": from_now(0),
        "sourceType": "IP4",
        "sourceInfo": "192.0.2.7",
    });
    for (key, value) in with.as_object().into_iter().flatten() {
        question[key] = value.clone();
    }
    question.to_string()
}

#[test]
fn it_has_the_relays_rules() {
    let folder = tempfile::tempdir().unwrap();
    let mut policy = Policy::start(folder.path(), &[]);
    let keys = Keys::generate();
    let protected = plain(&keys, 0, "{}", [Tag::protected()], from_now(0));
    let named = plain(
        &keys,
        5,
        "",
        [Tag::event(attestation(&keys).id)],
        from_now(0),
    );
    for (event, with, expected) in [
        (attestation(&keys), json!({}), ""),
        (offer(&keys, 60), json!({}), ""),
        (offer(&keys, -60), json!({}), "invalid: "),
        (
            plain(&keys, 1, "hello", [], from_now(0)),
            json!({}),
            "blocked: ",
        ),
        (
            plain(&keys, 8_600, "hello", [], from_now(0)),
            json!({}),
            "invalid: kind 8600",
        ),
        (profile(&keys, "late", -3_600), json!({}), "invalid: "),
        (protected.clone(), json!({}), "auth-required: "),
        (
            protected.clone(),
            json!({ "authed": keys.public_key().to_hex() }),
            "",
        ),
        (
            protected,
            json!({ "authed": Keys::generate().public_key().to_hex() }),
            "restricted: ",
        ),
        (named, json!({}), "blocked: this relay keeps evidence"),
    ] {
        let (action, said) = policy.ask(&event, with);
        let is_taken = expected.is_empty();
        assert_eq!(action, if is_taken { "accept" } else { "reject" }, "{said}");
        assert!(said.starts_with(expected), "{expected}: {said}");
    }
    assert_eq!(policy.end(), "");
}

#[test]
fn limits_hold_for_clients_and_not_for_what_the_operator_brings_in() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("relay.toml");
    std::fs::write(&config, "[work]\nmin_bits = 28\nmax_bits = 28\n").unwrap();
    let mut policy = Policy::start(folder.path(), &["--config", config.to_str().unwrap()]);
    for (source, is_taken) in [
        ("IP4", false),
        ("IP6", false),
        ("Import", true),
        ("Stream", true),
        ("Sync", true),
        ("Stored", true),
    ] {
        let event = attestation(&Keys::generate());
        let (action, said) = policy.ask(&event, json!({ "sourceType": source }));
        assert_eq!(action == "accept", is_taken, "{source}: {said}");
        assert!(is_taken || said.starts_with("pow: 28 "), "{said}");
    }
    policy.end();
}

#[test]
fn rubbish_is_complained_of_and_the_next_question_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut policy = Policy::start(folder.path(), &[]);
    let event = attestation(&Keys::generate());
    let id = event.id.to_hex();
    policy.say("rubbish");
    policy.say("");
    policy.say("{}");
    policy.say(&"[".repeat(100_000));
    policy.say(&"x".repeat(17 << 20));
    policy.say(r#"{"type":"new"}"#);
    policy
        .questions
        .as_mut()
        .unwrap()
        .write_all(b"\xff\xfe\n")
        .unwrap();
    // Nothing of this has an id, so the first answer is to the first that has.
    policy.say(&question(&event, json!({ "type": "old" })));
    let answer = policy.hear();
    assert_eq!(
        (&answer["id"], &answer["action"]),
        (&json!(id), &json!("reject"))
    );
    policy.say(&json!({ "type": "new", "event": { "id": id } }).to_string());
    let answer = policy.hear();
    assert_eq!(
        (&answer["id"], &answer["action"]),
        (&json!(id), &json!("reject"))
    );
    assert_eq!(policy.ask(&event, json!({})).0, "accept");
    let with = json!({ "authed": "nobody", "sourceInfo": "nowhere", "sourceType": null });
    assert_eq!(
        policy.ask(&attestation(&Keys::generate()), with).0,
        "accept"
    );
    let said = policy.end();
    assert_eq!(said.lines().count(), 8, "{said}");
    assert!(said.contains("\"old\""), "{said}");
}

#[test]
fn lists_are_read_again_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::generate();
    let mut policy = Policy::start(folder.path(), &[]);
    assert_eq!(policy.ask(&attestation(&keys), json!({})).0, "accept");
    let ban = Command::new(env!("CARGO_BIN_EXE_infernet-relay"))
        .args(["ban", &keys.public_key().to_hex(), "--data"])
        .arg(folder.path())
        .env_clear()
        .output()
        .unwrap();
    assert!(ban.status.success(), "{ban:?}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let (action, said) = policy.ask(&attestation(&keys), json!({}));
        if action == "reject" {
            assert!(said.starts_with("blocked: "), "{said}");
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "the ban does not hold"
        );
    }
    policy.end();
}

#[test]
fn whom_to_ban_is_learned_from_what_strfry_has_and_from_what_comes() {
    let folder = tempfile::tempdir().unwrap();
    let (judge, cheat, other) = (Keys::generate(), Keys::generate(), Keys::generate());
    let list = |banned: &[&Keys], seconds| {
        let tags = banned.iter().map(|keys| Tag::public_key(keys.public_key()));
        plain(&judge, 10_000, "", tags, from_now(seconds))
    };
    let (old, new) = (list(&[&other], -20), list(&[&cheat], -10));
    let learned = folder.path().join("learned.jsonl");
    let lines = format!("{}\n{}\n", new.as_json(), old.as_json());
    std::fs::write(&learned, lines).unwrap();
    let follow = judge.public_key().to_hex();
    let more = [
        "--follow-bans",
        &follow,
        "--learn",
        learned.to_str().unwrap(),
    ];
    let mut policy = Policy::start(folder.path(), &more);
    let is_banned = |policy: &mut Policy, keys| policy.ask(&bid(keys), json!({})).0 == "reject";
    assert!(is_banned(&mut policy, &cheat));
    assert!(!is_banned(&mut policy, &other));
    // Strfry asks before it looks whether it has a newer one.
    assert_eq!(policy.ask(&old, json!({})).0, "accept");
    assert!(
        is_banned(&mut policy, &cheat),
        "an old list does not come back"
    );
    assert_eq!(policy.ask(&list(&[], -5), json!({})).0, "accept");
    assert!(!is_banned(&mut policy, &cheat));
    policy.end();

    std::fs::write(
        &learned,
        new.as_json()
            .replace("\"content\":\"\"", "\"content\":\"x\""),
    )
    .unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_infernet-relay"))
        .args(["policy", "--data", folder.path().to_str().unwrap()])
        .args(more)
        .env_clear()
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("learned.jsonl: line 1"), "{said}");
}
