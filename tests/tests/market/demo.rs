//! The README's first command, as a stranger runs it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use infernet_tests::{Process, binary};

use crate::{MINILM, SMOLLM2, model};

#[test]
fn the_demo_shows_a_job_and_a_failover_and_leaves_nothing_behind() {
    let test = "the_demo_shows_a_job_and_a_failover_and_leaves_nothing_behind";
    if model(test, SMOLLM2).is_none() || model(test, MINILM).is_none() {
        return;
    }
    binary("infernet-client"); // built
    let folder = tempfile::TempDir::new().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo");
    let mut command = Command::new(script);
    command
        .env("PROMPT", "What is a \"relay\"? It costs $5.")
        .env("TMPDIR", folder.path());
    let mut demo = Process::start("demo", &mut command).unwrap();
    let status = demo.ended(Duration::from_secs(240)).unwrap();
    let said = demo.stdout();
    assert!(status.success(), "{said}\n{}", demo.stderr());
    for part in [
        "8600 offer",
        "8601 bid",
        "8602 award",
        "8603 result",
        "8606 attestation",
        "the same text",
        " 0 wrong",
    ] {
        assert!(said.contains(part), "\"{part}\" is not in\n{said}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?} is left");
}
