//! `infernet-relay sync`, as people run it, and what becomes of it when somebody is killed.

use std::path::Path;
use std::process::Stdio;

use nostr::{Filter, JsonUtil as _, Keys};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::Relay;
use crate::client::soon;
use crate::program::{command, failure, signal, start};
use crate::sync::{all, ids, keep_all, notes, open};

/// Starts `infernet-relay sync` with lines of JSON.
fn sync(folder: &Path, url: &str, more: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let folder = folder.to_str().unwrap();
    let mut arguments = vec!["sync", url, "--data", folder, "--general", "--json"];
    arguments.extend(more);
    let mut child = command(&arguments).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// The first line that says that something was received, or that nothing was left to be.
async fn something_came(child: &mut Child, lines: &mut Lines<BufReader<ChildStdout>>) -> Value {
    loop {
        let Some(line) = soon(lines.next_line()).await.unwrap() else {
            let mut complaint = String::new();
            let mut stderr = child.stderr.take().unwrap();
            stderr.read_to_string(&mut complaint).await.unwrap();
            panic!("nothing came: {complaint}");
        };
        let said: Value = serde_json::from_str(&line).unwrap();
        if said["received"] != 0 || is_complete(&said) {
            return said;
        }
    }
}

/// Runs it to its end, and answers its last line.
async fn to_its_end(folder: &Path, url: &str, more: &[&str]) -> Value {
    let (mut child, mut lines) = sync(folder, url, more);
    let mut last = String::new();
    while let Some(line) = soon(lines.next_line()).await.unwrap() {
        last = line;
    }
    assert!(soon(child.wait()).await.unwrap().success(), "{last}");
    serde_json::from_str(&last).unwrap()
}

#[tokio::test]
async fn whoever_is_killed_half_way_the_next_time_goes_on() {
    let notes = notes(&Keys::generate(), 4_000);
    let there = Relay::start_with(open).await;
    keep_all(&there, &notes).await;
    let url = there.handle.url();
    let folder = tempfile::tempdir().unwrap();

    // The command itself, without a relay.
    let (mut child, mut lines) = sync(folder.path(), &url, &["--down"]);
    something_came(&mut child, &mut lines).await;
    signal(&child, "KILL").await;
    soon(child.wait()).await.unwrap();

    // The relay for which it asks.
    let (mut here, _) = start(folder.path(), &["--general"]).await;
    let (mut child, mut lines) = sync(folder.path(), &url, &["--down"]);
    if !is_complete(&something_came(&mut child, &mut lines).await) {
        signal(&here, "KILL").await;
    }
    soon(child.wait()).await.unwrap();
    signal(&here, "KILL").await;
    soon(here.wait()).await.unwrap();

    let last = to_its_end(folder.path(), &url, &["--down"]).await;
    assert!(is_complete(&last), "{last}");
    let here = Relay::start_in(folder, open).await;
    assert_eq!(all(&here, &Filter::new()).await, ids(&notes));
}

fn is_complete(said: &Value) -> bool {
    said["complete"] == true
}

#[tokio::test]
async fn ctrl_c_stops_it_here_and_in_the_relay_that_does_it() {
    let notes = notes(&Keys::generate(), 4_000);
    let there = Relay::start_with(open).await;
    keep_all(&there, &notes).await;
    let url = there.handle.url();
    let here = Relay::start_with(open).await;
    let (mut child, mut lines) = sync(here.folder.path(), &url, &["--down"]);
    let so_far = something_came(&mut child, &mut lines).await;
    signal(&child, "INT").await;
    let ended = soon(child.wait_with_output()).await.unwrap();
    if !ended.status.success() {
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.contains("run it again"), "{said}");
        assert!(!is_complete(&so_far));
    }
    let last = to_its_end(here.folder.path(), &url, &[]).await;
    assert!(is_complete(&last), "{last}");
    assert_eq!(all(&here, &Filter::new()).await, ids(&notes));
}

#[tokio::test]
async fn it_says_what_was_done_and_what_is_wrong() {
    let there = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let url = there.handle.url();
    let filter = Filter::new().kind(nostr::Kind::Metadata).as_json();
    let output = command(&["sync", &url, "--data", data, "--filter", &filter])
        .stdin(Stdio::null())
        .output();
    let output = soon(output).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said,
        format!("equal with {url}: 0 compared, 0 received, 0 given\n")
    );
    for (arguments, why) in [
        (
            vec!["sync", "http://a.example", "--data", data],
            "http://a.example",
        ),
        (
            vec!["sync", &url, "--data", data, "--filter", "{"],
            "for example",
        ),
        (vec!["sync", &url, "--data", data, "--up", "--down"], "--up"),
    ] {
        let output = soon(command(&arguments).output()).await.unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(why), "{said}");
    }
    drop(there.stop().await);
    let said = failure(&["sync", &url, "--data", data]).await;
    assert!(said.contains(&format!("cannot connect to {url}")), "{said}");
}
