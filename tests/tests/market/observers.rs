//! Any Nostr client sees the market, and any Blossom client uses its relay.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use infernet_tests::{Market, Process, Relay, skip};
use nostr::{Keys, ToBech32 as _};
use tempfile::TempDir;

/// Held while something is installed.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Installs others' libraries into the cache, once for each lockfile; `None` if this machine cannot.
fn nostr_tools(test: &str) -> Option<PathBuf> {
    let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("nostr-tools");
    let place = source.join("../../.cache/nostr-tools");
    std::fs::create_dir_all(&place).unwrap();
    for file in [
        "package.json",
        "package-lock.json",
        "read-market.mjs",
        "relay.mjs",
        "ndk.mjs",
        "blossom.mjs",
    ] {
        std::fs::copy(source.join(file), place.join(file)).unwrap();
    }
    // Written last: an installation that was broken off, or an older one, is made anew.
    let mark = place.join("installed");
    let lock = std::fs::read(source.join("package-lock.json")).unwrap();
    if std::fs::read(&mark).is_ok_and(|installed| installed == lock) {
        return Some(place);
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--omit=optional", "--no-audit", "--no-fund"])
        .current_dir(&place);
    let Ok(mut install) = Process::start("npm", &mut npm) else {
        skip(test, "there is no npm; install Node.js");
        return None;
    };
    match install.ended(Duration::from_secs(120)) {
        Ok(status) if status.success() => {
            std::fs::write(mark, lock).unwrap();
            Some(place)
        }
        _ => {
            let said = install.stderr();
            let why = said.lines().next().unwrap_or("it did not end in time");
            skip(test, &format!("npm could not install nostr-tools: {why}"));
            None
        }
    }
}

#[test]
fn nostr_tools_reads_and_verifies_the_market() {
    let test = "nostr_tools_reads_and_verifies_the_market";
    let Some(place) = nostr_tools(test) else {
        return;
    };
    let market = Market::open().unwrap();
    let _provider = market.scripted_provider("alpha", &[]).unwrap();
    let buyer = market.client("buyer");
    buyer
        .json(&["submit", "--json", "--auction", "hello"])
        .unwrap();

    let mut node = Command::new("node");
    node.arg("read-market.mjs")
        .arg(&market.relay.url)
        .current_dir(&place);
    let mut reader = Process::start("nostr-tools", &mut node).unwrap();
    let status = reader.ended(Duration::from_secs(90)).unwrap();
    assert!(status.success(), "{}", reader.stderr());

    let lines: Vec<serde_json::Value> = reader
        .stdout()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (summary, events) = lines.split_last().unwrap();
    assert_eq!(summary["invalid"], 0);
    for kind in [0, 31_990, 38_500, 8_600, 8_601, 8_602, 8_603, 8_606] {
        let event = events
            .iter()
            .find(|event| event["kind"] == kind)
            .unwrap_or_else(|| panic!("no event of kind {kind}"));
        assert_eq!(event["verified"], true);
        assert!(event["alt"].is_string(), "kind {kind} has no alt text");
    }
}

#[test]
fn another_blossom_client_puts_gets_lists_and_deletes() {
    let test = "another_blossom_client_puts_gets_lists_and_deletes";
    let Some(place) = nostr_tools(test) else {
        return;
    };
    let market = Market::open().unwrap();
    let mut node = Command::new("node");
    node.arg("blossom.mjs")
        .arg(market.relay.url.replacen("ws", "http", 1))
        .current_dir(&place);
    let mut client = Process::start("blossom-client-sdk", &mut node).unwrap();
    let status = client.ended(Duration::from_secs(90)).unwrap();
    assert!(status.success(), "{}", client.stderr());
}

/// A relay that takes every kind, whose operator is `admin`, in a folder of its own.
fn general_relay(admin: &Keys) -> (Relay, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("general = true\nadmins = [\"{}\"]\n", admin.public_key());
    std::fs::write(folder.path().join("relay.toml"), settings).unwrap();
    let relay = Relay::start(folder.path().to_owned(), "127.0.0.1:0").unwrap();
    (relay, folder)
}

/// Runs a script of others' libraries against a relay whose operator is `admin`.
fn uses_the_relay(test: &str, script: &str, admin: &Keys, arguments: &[&str]) {
    let Some(place) = nostr_tools(test) else {
        return;
    };
    let (relay, _folder) = general_relay(admin);
    let mut node = Command::new("node");
    node.arg(script)
        .arg(&relay.url)
        .args(arguments)
        .current_dir(&place);
    let mut client = Process::start(script, &mut node).unwrap();
    let status = client.ended(Duration::from_secs(90)).unwrap();
    assert!(status.success(), "{}", client.stderr());
}

#[test]
fn nostr_tools_uses_the_relay_and_manages_it() {
    let admin = Keys::generate();
    let secret = admin.secret_key().to_secret_hex();
    let test = "nostr_tools_uses_the_relay_and_manages_it";
    uses_the_relay(test, "relay.mjs", &admin, &[&secret]);
}

#[test]
fn an_application_on_ndk_uses_the_relay() {
    let test = "an_application_on_ndk_uses_the_relay";
    uses_the_relay(test, "ndk.mjs", &Keys::generate(), &[]);
}

/// A Python with aionostr; `None` if this machine cannot have one.
fn aionostr(test: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/python");
    let mut install = Command::new(script);
    let mut install = Process::start("scripts/python", install.arg("aionostr")).unwrap();
    match install.ended(Duration::from_secs(240)) {
        Ok(status) if status.success() => Some(PathBuf::from(install.stdout().trim())),
        _ => {
            let said = install.stderr();
            let why = said.lines().last().unwrap_or("it did not end in time");
            skip(test, &format!("pip could not install aionostr: {why}"));
            None
        }
    }
}

#[test]
fn aionostr_uses_the_relay() {
    let Some(python) = aionostr("aionostr_uses_the_relay") else {
        return;
    };
    let (relay, _folder) = general_relay(&Keys::generate());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("aionostr/relay.py");
    let mut client = Command::new(python);
    let mut client = Process::start("aionostr", client.arg(script).arg(&relay.url)).unwrap();
    let status = client.ended(Duration::from_secs(90)).unwrap();
    assert!(status.success(), "{}", client.stderr());
}

#[test]
fn relay_tester_finds_no_fault() {
    let test = "relay_tester_finds_no_fault";
    let program = std::env::var_os("RELAY_TESTER").unwrap_or_else(|| "relay-tester".into());
    let (relay, _folder) = general_relay(&Keys::generate());
    let mut tester = Command::new(program);
    tester.arg(&relay.url);
    for _ in 0..2 {
        let secret = Keys::generate().secret_key().to_bech32().unwrap();
        tester.arg(secret);
    }
    let Ok(mut tester) = Process::start("relay-tester", &mut tester) else {
        let where_from = "install github.com/mikedilger/relay-tester, or set RELAY_TESTER to it";
        return skip(test, where_from);
    };
    // It waits for a second or two again and again.
    tester.ended(Duration::from_secs(300)).unwrap();
    let said = tester.stderr();
    assert!(said.contains("FAIL: 0,"), "{said}");
}
