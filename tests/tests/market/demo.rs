//! The README's first command, as a stranger runs it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use infernet_tests::{Process, binary, wallet};

use crate::{MINILM, SMOLLM2, model};

/// What it has to show, whatever the money.
const SHOWN: &[&str] = &[
    "8600 offer",
    "8601 bid",
    "8602 award",
    "8603 result",
    "8604 receipt",
    "8606 attestation",
    "the same text",
    " 0 wrong",
    "buyer    to alpha",
    "buyer    to beta",
    "left on the tab",
    "They agree",
    "to the last msat",
];

/// Runs it; answers what it said.
fn demo(test: &str, bitcoind: &Path) -> Option<String> {
    if model(test, SMOLLM2).is_none() || model(test, MINILM).is_none() {
        return None;
    }
    binary("infernet-client"); // built
    wallet();
    let folder = tempfile::TempDir::new().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo");
    let mut command = Command::new(script);
    command
        .env("PROMPT", "What is a \"relay\"? It costs $5.")
        .env("TMPDIR", folder.path())
        .env("BITCOIND_EXE", bitcoind);
    let mut demo = Process::start("demo", &mut command).unwrap();
    let status = demo.ended(Duration::from_secs(600)).unwrap();
    let said = demo.stdout();
    assert!(status.success(), "{said}\n{}", demo.stderr());
    for part in SHOWN {
        assert!(said.contains(part), "\"{part}\" is not in\n{said}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?} is left");
    Some(said)
}

#[test]
fn the_demo_shows_paid_jobs_and_a_failover_and_leaves_nothing_behind() {
    let test = "the_demo_shows_paid_jobs_and_a_failover_and_leaves_nothing_behind";
    match infernet_regtest::find() {
        Ok(bitcoind) => {
            let said = demo(test, &bitcoind);
            assert!(said.is_none_or(|said| !said.contains("play money")));
        }
        Err(why) => infernet_tests::skip(test, &why.to_string()),
    }
}

#[test]
fn the_demo_says_that_it_has_play_money_where_no_bitcoind_can_be_had() {
    let test = "the_demo_says_that_it_has_play_money_where_no_bitcoind_can_be_had";
    let said = demo(test, Path::new("/nowhere/bitcoind"));
    assert!(said.is_none_or(|said| said.contains("NO BITCOIND")));
}
