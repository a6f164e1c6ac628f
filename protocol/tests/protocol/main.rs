//! Tests of the protocol from outside: what goes over the wire, and the job's
//! life on a virtual clock.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod awards;
mod blobs;
mod bounds;
mod documents;
mod examples;
mod generate;
mod hostile;
mod job;
mod money;
mod parties;
mod reputation;
mod sealing;
mod simulation;
mod verification;
mod wire;

/// So many random cases, or as many as the variable `CASES` says; and no file of failed ones: a failure prints its own
/// smallest case.
fn cases(cases: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        cases: std::env::var("CASES").map_or(cases, |text| text.parse().unwrap()),
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    }
}
