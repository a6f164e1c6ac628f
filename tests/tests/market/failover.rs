//! A provider dies, fails, stalls or refuses, and the job goes on.

use std::time::Duration;

use infernet_tests::{Market, Process};

use crate::{SMOLLM2, model, words};

const SOON: Duration = Duration::from_secs(180);

/// Waits until so many bytes of an answer have streamed.
fn streamed(client: &Process, bytes: usize) {
    client
        .wait_stdout(SOON, |said| (said.len() >= bytes).then_some(()))
        .unwrap();
}

#[test]
fn a_killed_providers_answer_is_continued_byte_for_byte() {
    let test = "a_killed_providers_answer_is_continued_byte_for_byte";
    let Some(smollm2) = model(test, SMOLLM2) else {
        return;
    };
    let smollm2 = smollm2.to_str().unwrap();
    let market = Market::open().unwrap();
    let slow = ["--model", smollm2, "--threads", "1", "--max-speed", "10"];
    let doomed = market.provider("doomed", &slow).unwrap();
    let _heir = market
        .provider("heir", &["--model", smollm2, "--threads", "1"])
        .unwrap();
    let buyer = market.client("buyer");
    let question = "Tell me about the sea.";

    for drawn in [&["-t", "0"][..], &["-t", "0.8", "--seed", "11"]] {
        let mut arguments = vec!["submit", "--provider", "heir", "-n", "40"];
        arguments.extend(drawn);
        arguments.push(question);
        let whole = buyer.run(&arguments).unwrap();
        assert!(whole.status.success(), "{}", whole.stderr);
        if drawn[1] == "0" {
            // The doomed one is still alive and says the same.
            continue;
        }
        arguments[2] = "doomed";
        let mut client = buyer.start(&arguments).unwrap();
        streamed(&client, 20);
        doomed.process.signal("KILL").unwrap();
        assert!(client.ended(SOON).unwrap().success(), "{}", client.stderr());
        assert_eq!(client.stdout(), whole.stdout);
        assert!(
            client.stderr().contains("heir takes over"),
            "{}",
            client.stderr()
        );
    }
}

#[test]
fn whoever_fails_stalls_or_refuses_is_replaced() {
    let text = words(30);
    for fault in [
        &["--scripted-fail-after", "7"][..],
        &["--scripted-stall-after", "7"],
        &["--scripted-refuse"],
    ] {
        let market = Market::open().unwrap();
        let mut arguments = vec!["--scripted-text", &text];
        let _good = market.scripted_provider("good", &arguments).unwrap();
        arguments.extend(fault);
        let _bad = market.scripted_provider("bad", &arguments).unwrap();
        let done = market
            .client("buyer")
            .json(&["submit", "--json", "--provider", "bad", "hello"])
            .unwrap();
        assert_eq!(done["text"], text.as_str(), "{fault:?}");
        assert_eq!(done["attempts"], 2, "{fault:?}");
        assert_eq!(done["provider_name"], "good", "{fault:?}");
    }
}

#[test]
fn if_nobody_can_take_over_the_job_fails_honestly() {
    let market = Market::open().unwrap();
    let _bad = market
        .scripted_provider("bad", &["--scripted-fail-after", "3"])
        .unwrap();
    let failed = market.client("buyer").run(&["submit", "hello"]).unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.stderr.contains("error: "), "{}", failed.stderr);
}

#[test]
fn a_provider_killed_in_a_job_says_so_when_it_is_back() {
    let market = Market::open().unwrap();
    let text = words(200);
    let slow = ["--scripted-text", &text, "--scripted-speed", "5"];
    let victim = market.scripted_provider("victim", &slow).unwrap();
    let buyer = market.client("buyer");
    let mut client = buyer
        .start(&["submit", "--only", "--provider", "victim", "hi"])
        .unwrap();
    streamed(&client, 10);
    victim.process.signal("KILL").unwrap();
    drop(victim);
    let _again = market.scripted_provider("victim", &slow).unwrap();
    let status = client.ended(SOON).unwrap();
    assert_eq!(status.code(), Some(1), "{}", client.stderr());

    let jobs = buyer.json(&["jobs", "--json"]).unwrap();
    let job = jobs[0]["id"].as_str().unwrap();
    let events = buyer.json(&["show", "--json", job]).unwrap();
    let restarted = events.as_array().unwrap().iter().any(|event| {
        event["kind"] == 8607 && event["content"].as_str().unwrap().contains("restarted")
    });
    assert!(restarted, "nobody says that the provider was restarted");
}
