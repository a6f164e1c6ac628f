//! Processes come and go politely.

use std::process::Command;
use std::time::Duration;

use infernet_tests::{Market, Process, Provider, binary};

use crate::words;

const SOON: Duration = Duration::from_secs(180);

fn provider_command(provider: &Provider, arguments: &[&str]) -> Process {
    let mut command = Command::new(binary("infernet-provider"));
    command.args(arguments).env("INFERNET_HOME", &provider.home);
    Process::start("provider command", &mut command).unwrap()
}

#[test]
fn a_provider_that_is_told_to_stop_finishes_what_runs_and_says_goodbye() {
    let market = Market::open().unwrap();
    let text = words(40);
    let mut provider = market
        .scripted_provider(
            "alpha",
            &["--scripted-text", &text, "--scripted-speed", "20"],
        )
        .unwrap();
    let buyer = market.client("buyer");
    let mut client = buyer.start(&["submit", "hello"]).unwrap();
    client
        .wait_stdout(SOON, |said| (said.len() > 20).then_some(()))
        .unwrap();
    provider.process.signal("INT").unwrap();
    assert!(client.ended(SOON).unwrap().success(), "{}", client.stderr());
    assert_eq!(client.stdout().trim_end(), text);
    assert!(provider.process.ended(SOON).unwrap().success());
    let left = buyer.json(&["providers", "--json"]).unwrap();
    assert_eq!(left.as_array().map(Vec::len), Some(0), "{left}");
}

#[test]
fn a_buyer_that_is_interrupted_stops_its_provider() {
    let market = Market::open().unwrap();
    let text = words(400);
    let provider = market
        .scripted_provider(
            "alpha",
            &["--scripted-text", &text, "--scripted-speed", "10"],
        )
        .unwrap();
    let buyer = market.client("buyer");
    let mut client = buyer.start(&["submit", "-n", "400", "hello"]).unwrap();
    client
        .wait_stdout(SOON, |said| (said.len() > 20).then_some(()))
        .unwrap();
    client.signal("INT").unwrap();
    assert_eq!(client.ended(SOON).unwrap().code(), Some(130));

    // Another job of the same provider's one slot is served at once, long before
    // the first could have ended.
    let next = buyer
        .run(&["submit", "--deadline", "20", "-n", "5", "hello"])
        .unwrap();
    assert!(next.status.success(), "{}", next.stderr);
    drop(provider);
}

#[test]
fn status_models_and_stop_speak_with_the_running_provider() {
    let market = Market::open().unwrap();
    let mut provider = market.scripted_provider("alpha", &[]).unwrap();

    let mut status = provider_command(&provider, &["status", "--json"]);
    assert!(status.ended(SOON).unwrap().success());
    let status: serde_json::Value = serde_json::from_str(&status.stdout()).unwrap();
    assert_eq!(status["name"], "alpha");
    assert_eq!(status["pid"], provider.process.id());

    let mut models = provider_command(&provider, &["models"]);
    assert!(models.ended(SOON).unwrap().success());
    assert!(models.stdout().contains("scripted"), "{}", models.stdout());

    let mut second = market
        .launch_provider("alpha", &["--engine", "scripted"])
        .unwrap();
    assert!(!second.process.ended(SOON).unwrap().success());

    let mut stop = provider_command(&provider, &["stop"]);
    assert!(stop.ended(SOON).unwrap().success());
    assert!(provider.process.ended(SOON).unwrap().success());
    let mut status = provider_command(&provider, &["status"]);
    assert!(!status.ended(SOON).unwrap().success());
    assert!(status.stderr().contains("error: "), "{}", status.stderr());
}

#[test]
fn a_damaged_model_is_a_clear_error_and_nothing_is_announced() {
    let market = Market::open().unwrap();
    let damaged = market.folder("damaged.gguf");
    std::fs::write(&damaged, b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f").unwrap();
    let mut provider = market
        .launch_provider("alpha", &["--model", damaged.to_str().unwrap()])
        .unwrap();
    assert_eq!(provider.process.ended(SOON).unwrap().code(), Some(1));
    let said = provider.process.stderr();
    assert!(
        said.contains("damaged.gguf") && !said.contains("panicked"),
        "{said}"
    );
    let none = market
        .client("buyer")
        .json(&["providers", "--json"])
        .unwrap();
    assert_eq!(none.as_array().map(Vec::len), Some(0));
}

#[test]
fn a_full_queue_is_said_and_served_in_turn() {
    let market = Market::open().unwrap();
    let text = words(10);
    let slow = [
        "--scripted-text",
        &text,
        "--scripted-speed",
        "10",
        "--slots",
        "1",
        "--queue",
        "1",
    ];
    let _provider = market.scripted_provider("alpha", &slow).unwrap();
    let buyers: Vec<_> = (0..3)
        .map(|n| market.client(&format!("buyer{n}")))
        .collect();
    let mut jobs: Vec<_> = buyers
        .iter()
        .map(|buyer| buyer.start(&["submit", "--json", "hello"]).unwrap())
        .collect();
    let ends: Vec<_> = jobs
        .iter_mut()
        .map(|job| job.ended(SOON).unwrap())
        .collect();
    let done = ends.iter().filter(|end| end.success()).count();
    assert!(
        done >= 2,
        "only {done} of three were served by slot and queue"
    );
}
