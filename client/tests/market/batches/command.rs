//! The command: what its user sees, and that it goes on after it was killed.

use std::process::Stdio;

use tokio::process::Command;

use super::*;

/// What a run left.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    async fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let home = self.path("home");
        std::fs::create_dir_all(home.join("client")).unwrap();
        let settings = format!("blossom = [\"{}\"]\n", self.blobs.url);
        std::fs::write(home.join("client/client.toml"), settings).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_infernet-client"));
        command
            .current_dir(self.folder.path())
            .args(arguments)
            .env_clear()
            .env("INFERNET_HOME", &home)
            .env("INFERNET_RELAYS", self.url.to_string())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(DEADLINE, command.output()).await;
        let output = output.expect("it never ended").unwrap();
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

const BATCH: [&str; 4] = ["batch", "in.jsonl", "-o", "out.jsonl"];

#[tokio::test(flavor = "multi_thread")]
async fn the_quote_is_shown_and_taken_only_by_who_says_so() {
    let place = Place::free(Manner::Honest).await;
    place.write(&chats(2));
    let ran = place.command(&BATCH, &[]).await;
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(
        ran.err.contains("broker quotes") && ran.err.contains("--yes"),
        "{}",
        ran.err
    );
    assert!(place.broker.books().orders.is_empty());
    let ran = place
        .command(&[&BATCH[..], &["--yes", "--json"]].concat(), &[])
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(place.said(), expected(2));
    let object: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(object["totals"]["done"], 2);
    let order = object["order"].as_str().unwrap();
    let jobs = place.command(&["jobs", "--json"], &[]).await;
    assert!(jobs.out.contains(order), "{}", jobs.out);
    let audit = place.command(&["audit", &order[..8]], &[]).await;
    assert_eq!(audit.code, Some(0), "{}{}", audit.out, audit.err);
    assert!(
        audit.out.contains("7 proven, 0 not proven, 0 wrong"),
        "{}",
        audit.out
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_said() {
    let place = Place::free(Manner::Honest).await;
    place.write(&chats(2));
    let more = |more: &[&'static str]| [&BATCH[..], more].concat();
    let ran = place.command(&more(&["--checkers", "nobody"]), &[]).await;
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    let ran = place
        .command(&more(&["--aggregator", "somebody"]), &[])
        .await;
    assert!(ran.err.contains("there is: broker"), "{}", ran.err);
    place.write(&[chat("a", "b"), chat("b", "c").replace("tiny", "large")]);
    let ran = place.command(&BATCH, &[]).await;
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("split the file"), "{}", ran.err);
}

/// Points at which it dies, and how often it passes them alive.
const DEATHS: [&str; 10] = [
    "batch-ordered",
    "batch-taken",
    "group-cut",
    "group-cut:2",
    "group-given",
    "group-given:2",
    "group-delivered",
    "group-opened",
    "group-appended",
    "group-appended:2",
];

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_it_goes_on_where_it_was() {
    for death in DEATHS {
        let place = Place::free(Manner::Honest).await;
        place.write(&chats(1_100));
        let batch = [&BATCH[..], &["--yes"]].concat();
        let dead = place
            .command(&batch, &[("INFERNET_CLIENT_DIES_AT", death)])
            .await;
        assert_eq!(dead.code, None, "{death}: {}", dead.err);
        let ran = place.command(&batch, &[]).await;
        assert_eq!(ran.code, Some(0), "{death}: {}", ran.err);
        assert_eq!(place.said(), expected(1_100), "{death}");
        let books = place.broker.books();
        assert_eq!(books.orders.len(), 1, "{death}");
        let one = |given: &Vec<infernet_protocol::batch::Group>| given.len() == 1;
        assert!(
            books.given.values().all(one),
            "{death}: a group was given twice"
        );
    }
}
