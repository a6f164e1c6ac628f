//! A relay stops in the middle, and what cannot be done is said at once.

use std::time::{Duration, Instant};

use infernet_tests::Market;

use crate::words;

const SOON: Duration = Duration::from_secs(180);

#[test]
fn a_job_outlives_its_relay() {
    let mut market = Market::open().unwrap();
    let text = words(60);
    let _provider = market
        .scripted_provider(
            "alpha",
            &["--scripted-text", &text, "--scripted-speed", "15"],
        )
        .unwrap();
    let buyer = market.client("buyer");
    let mut client = buyer.start(&["submit", "hello"]).unwrap();
    client
        .wait_stdout(SOON, |said| (said.len() > 60).then_some(()))
        .unwrap();
    market.relay.kill().unwrap();
    market.relay.restart().unwrap();
    assert!(client.ended(SOON).unwrap().success(), "{}", client.stderr());
    assert_eq!(client.stdout().trim_end(), text);
}

#[test]
fn providers_come_back_after_their_relay() {
    let mut market = Market::open().unwrap();
    let _provider = market.scripted_provider("alpha", &[]).unwrap();
    market.relay.kill().unwrap();
    market.relay.restart().unwrap();
    // The announcement is on disk, but an answer needs the provider itself: the
    // first award may come before it is back.
    let buyer = market.client("buyer");
    let until = Instant::now() + SOON;
    while !buyer.run(&["submit", "hello"]).unwrap().status.success() {
        assert!(Instant::now() < until, "the provider has not come back");
    }
}

#[test]
fn a_model_that_no_one_has_is_said_within_seconds() {
    let market = Market::open().unwrap();
    let _provider = market
        .scripted_provider("alpha", &["--scripted-name", "parrot"])
        .unwrap();
    let buyer = market.client("buyer");
    for route in [&[][..], &["--auction"]] {
        let mut arguments = vec!["submit", "--model", "gpt-17", "hello"];
        arguments.extend(route);
        let began = Instant::now();
        let failed = buyer.run(&arguments).unwrap();
        assert_eq!(failed.status.code(), Some(1));
        assert!(failed.stderr.contains("gpt-17"), "{}", failed.stderr);
        assert!(failed.stderr.contains("parrot"), "{}", failed.stderr);
        assert!(began.elapsed() < SOON, "it was waited for");
    }
}

#[test]
fn what_does_not_fit_is_refused_before_or_after_it_is_sent() {
    let market = Market::open().unwrap();
    let _provider = market.scripted_provider("alpha", &[]).unwrap();
    let buyer = market.client("buyer");

    // Over a blob's bound: nothing is published.
    let file = market.folder("long.txt");
    std::fs::write(&file, "x".repeat(17 << 20)).unwrap();
    let failed = buyer
        .run(&["submit", "--file", file.to_str().unwrap()])
        .unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}", failed.stderr);
    assert!(failed.stderr.contains("16777172"), "{}", failed.stderr);

    // Over the model's context (a scripted token is a word).
    std::fs::write(&file, "a ".repeat(5_000)).unwrap();
    let failed = buyer
        .run(&["submit", "--file", file.to_str().unwrap()])
        .unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("too long") || failed.stderr.contains("context"),
        "{}",
        failed.stderr
    );
}

#[test]
fn without_a_relay_there_is_a_clear_error() {
    let mut market = Market::open().unwrap();
    market.relay.kill().unwrap();
    let failed = market.client("buyer").run(&["providers"]).unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stderr.contains("relay"), "{}", failed.stderr);
}
