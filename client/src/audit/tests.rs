//! What the audit says of honest jobs, lies and rubbish.

#![allow(clippy::unwrap_used)]

use infernet_protocol::event::{Body, Experience};
use infernet_protocol::inference::{Dtype, EndReason};
use infernet_protocol::money::Msat;
use infernet_protocol::seal::Digest;
use nostr::Event;

use super::story::{Story, result};
use super::*;

fn report(story: &Story, events: Vec<Event>, keys: Option<&Keys>) -> Report {
    audit(&Record::of(story.job(), events), keys, &Evidence::default())
}

/// What was found about one thing of the job, or of the last attempt that has it.
fn found(report: &Report, about: &str) -> Finding {
    let check = report
        .checks
        .iter()
        .rev()
        .find(|check| check.about == about);
    check
        .unwrap_or_else(|| panic!("nothing about {about}: {report:#?}"))
        .finding
}

#[test]
fn buyer_and_provider_can_prove_everything_of_an_honest_job() {
    for story in [Story::auction(), Story::direct()] {
        for keys in [&story.buyer, &story.provider] {
            let report = report(&story, story.events(), Some(keys));
            assert_eq!(
                report.count(Finding::Proven),
                report.checks.len(),
                "{report:#?}"
            );
        }
    }
}

#[test]
fn a_third_party_proves_all_but_what_is_sealed() {
    let story = Story::auction();
    for keys in [None, Some(&Keys::generate())] {
        let report = report(&story, story.events(), keys);
        let open = |check: &&Check| check.finding == Finding::NotProven;
        let open: Vec<_> = report.checks.iter().filter(open).map(|c| c.about).collect();
        assert_eq!(open, ["input hash", "output hash", "usage"]);
        assert!(!report.is_wrong());
    }
}

#[test]
fn nothing_proves_nothing() {
    let story = Story::auction();
    let report = report(&story, vec![], None);
    assert!(!report.is_wrong());
    assert_eq!(found(&report, "signatures"), Finding::NotProven);
    assert_eq!(found(&report, "attempts"), Finding::NotProven);
}

#[test]
fn an_altered_event_is_wrong() {
    let story = Story::auction();
    let mut events = story.events();
    let result = events.iter_mut().find(|e| e.kind.as_u16() == 8603).unwrap();
    result.content = result.content.replace("scripted/1", "scripted/2");
    assert_eq!(
        found(&report(&story, events, None), "signatures"),
        Finding::Wrong
    );
}

/// Spoils the story, and tells what is found wrong with the buyer's key, if anything is.
fn spoilt(spoil: impl Fn(&mut Story)) -> Vec<&'static str> {
    let mut story = Story::auction();
    spoil(&mut story);
    let report = report(&story, story.events(), Some(&story.buyer));
    let wrong = report.checks.iter().filter(|c| c.finding == Finding::Wrong);
    wrong.map(|check| check.about).collect()
}

#[test]
fn every_lie_is_named() {
    let lie = Digest::from_bytes([1; 32]);
    assert_eq!(
        spoilt(|s| s.award.input_hash = lie),
        ["input hash", "output hash"]
    );
    assert_eq!(spoilt(|s| s.result.output_hash = lie), ["output hash"]);
    assert_eq!(spoilt(|s| s.result.usage.output_tokens = 4), ["usage"]);
    assert_eq!(spoilt(|s| s.result.ended = EndReason::Length), ["usage"]);
    assert_eq!(spoilt(|s| s.result.due_msat = Msat(1)), ["price"]);
    assert_eq!(spoilt(|s| s.result.attempt = 2), ["result"]);
    assert_eq!(spoilt(|s| s.result.dtype = Dtype::Int4), ["result"]);
    let too_much = |s: &mut Story| {
        let (award, tokens) = (s.signed_award(), [7; 9]);
        s.result = result(&award, &s.buyer, &s.provider, &tokens);
    };
    assert_eq!(
        spoilt(too_much),
        ["usage"],
        "nine tokens where eight were asked for"
    );
    assert_eq!(
        spoilt(|s| s.result.buyer = s.provider.public_key()),
        ["result"]
    );
    assert_eq!(
        spoilt(|s| s.attestation.provider = s.stranger()),
        ["attestation"]
    );
    let silent = |s: &mut Story| s.attestation.experience = Experience::Silent;
    assert!(spoilt(silent).is_empty(), "a late result refutes nothing");
}

impl Story {
    fn stranger(&self) -> PublicKey {
        Keys::generate().public_key()
    }
}

#[test]
fn two_results_or_two_awards_of_one_attempt_are_wrong() {
    let story = Story::auction();
    let mut other = story.result.clone();
    other.ended = EndReason::Length;
    let unsigned = other.to_unsigned(story.provider.public_key(), story.at(3));
    let again = unsigned.sign_with_keys(&story.provider).unwrap();
    let events = story.events().into_iter().chain([again]).collect();
    assert_eq!(
        found(&report(&story, events, None), "result"),
        Finding::Wrong
    );

    let unsigned = story
        .award
        .to_unsigned(story.buyer.public_key(), story.at(5));
    let again = unsigned.sign_with_keys(&story.buyer).unwrap();
    let events = story.events().into_iter().chain([again]).collect();
    assert_eq!(
        found(&report(&story, events, None), "attempts"),
        Finding::Wrong
    );
}

#[test]
fn what_strangers_sign_refutes_nothing() {
    let (story, mallory) = (Story::auction(), Keys::generate());
    let sign = |unsigned: nostr::UnsignedEvent| unsigned.sign_with_keys(&mallory).unwrap();
    let forged = sign(story.result.to_unsigned(mallory.public_key(), story.at(2)));
    let mut malformed = story.result.to_unsigned(mallory.public_key(), story.at(2));
    malformed.content = "{}".into();
    malformed.id = None;
    let events = story
        .events()
        .into_iter()
        .chain([forged, sign(malformed)])
        .collect();
    let report = report(&story, events, Some(&story.buyer));
    assert_eq!(
        report.count(Finding::Proven),
        report.checks.len(),
        "{report:#?}"
    );
    let form = report.checks.iter().find(|c| c.about == "form").unwrap();
    assert!(form.detail.contains("2 by strangers"), "{}", form.detail);
}

#[test]
fn a_second_attempt_must_go_on_behind_the_first() {
    let story = Story::auction();
    let with = |prefix: &[u32]| {
        let (_, award) = story.second(prefix);
        let events = story
            .events()
            .into_iter()
            .chain([award.into_event()])
            .collect();
        report(&story, events, Some(&story.buyer))
    };
    assert_eq!(found(&with(&[1, 2]), "continuation"), Finding::Proven);
    assert_eq!(found(&with(&[1, 7]), "continuation"), Finding::Wrong);
    assert_eq!(found(&with(&[1, 2]), "attempts"), Finding::Proven);
    let without_result = |prefix: &[u32]| {
        let (_, award) = story.second(prefix);
        let events = story
            .events()
            .into_iter()
            .filter(|e| e.kind.as_u16() != 8603);
        report(
            &story,
            events.chain([award.into_event()]).collect(),
            Some(&story.buyer),
        )
    };
    assert_eq!(
        found(&without_result(&[1, 7]), "continuation"),
        Finding::NotProven
    );
    assert_eq!(found(&without_result(&[]), "continuation"), Finding::Proven);
}

#[test]
fn a_missing_award_is_named() {
    let story = Story::auction();
    let (_, second) = story.second(&[]);
    let events = story
        .before
        .iter()
        .cloned()
        .chain([second.into_event()])
        .collect();
    assert_eq!(
        found(&report(&story, events, None), "attempts"),
        Finding::NotProven
    );
}
