//! A buyer and several providers on a virtual clock, over a network that loses,
//! repeats, delays and reorders. What must hold in every run is asserted by the
//! [`world`] as it goes; here are the properties that need the whole run.

mod answer;
mod house;
mod scenario;
mod world;

use infernet_protocol::event::Experience;
use infernet_protocol::job::buyer::{End, Failure, Mode};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use scenario::{Nature, Network, Scenario, any_scenario};
use world::Run;

proptest! {
    #![proptest_config(crate::cases(400))]

    #[test]
    fn a_job_ends_once_and_in_time_whatever_happens(scenario in any_scenario()) {
        let run = Run::of(&scenario);
        let (ended_at, _) = run.end;
        prop_assert!(ended_at <= scenario.deadline());
        prop_assert!(run.awards.len() <= scenario.max_attempts as usize);
    }

    #[test]
    fn what_is_shown_is_the_answer_and_nothing_twice(
        scenario in any_scenario().prop_map(without_false_answers),
    ) {
        let run = Run::of(&scenario);
        let whole = scenario.answer.text();
        prop_assert!(whole.starts_with(&run.shown), "{:?} of {whole:?}", run.shown);
        if let (_, End::Done { .. }) = run.end {
            prop_assert_eq!(&run.shown, &whole);
            prop_assert_eq!(&run.tokens, &scenario.answer.tokens);
        }
    }

    #[test]
    fn one_honest_provider_is_enough_when_nothing_is_lost(
        scenario in any_scenario().prop_map(with_one_who_will_do),
    ) {
        let run = Run::of(&scenario);
        prop_assert!(matches!(run.end, (_, End::Done { .. })), "{:?}", run.end);
    }

    #[test]
    fn the_same_seed_gives_the_same_run(scenario in any_scenario()) {
        prop_assert_eq!(Run::of(&scenario), Run::of(&scenario));
    }

    #[test]
    fn no_network_makes_an_honest_provider_look_like_a_liar(scenario in any_scenario()) {
        let run = Run::of(&scenario);
        for (provider, experience) in &run.attested {
            if scenario.providers[*provider].nature == Nature::Honest {
                prop_assert_ne!(*experience, Experience::Invalid);
            }
        }
    }

    #[test]
    fn a_good_network_gives_an_honest_provider_a_good_name(
        scenario in any_scenario().prop_map(without_loss),
    ) {
        let run = Run::of(&scenario);
        for (provider, experience) in &run.attested {
            if scenario.providers[*provider].nature == Nature::Honest {
                prop_assert_eq!(*experience, Experience::Completed);
            }
        }
    }

    #[test]
    fn whoever_breaks_off_or_lies_never_gets_a_good_name(scenario in any_scenario()) {
        let run = Run::of(&scenario);
        for (provider, experience) in &run.attested {
            if scenario.providers[*provider].nature.never_completes() {
                prop_assert_ne!(*experience, Experience::Completed);
            }
        }
    }
}

/// Without those whose lies nobody can see by looking.
fn without_false_answers(mut scenario: Scenario) -> Scenario {
    for provider in &mut scenario.providers {
        if matches!(provider.nature, Nature::Invents | Nature::AltersResult) {
            provider.nature = Nature::Miscounts;
        }
    }
    scenario
}

fn without_loss(mut scenario: Scenario) -> Scenario {
    scenario.network.loss = 0;
    scenario.deadline_ms = 600_000;
    scenario
}

/// One honest provider at hand, time enough, nothing lost, nobody who holds the
/// job up while pretending to work.
fn with_one_who_will_do(scenario: Scenario) -> Scenario {
    let mut scenario = without_loss(scenario);
    for provider in &mut scenario.providers {
        if matches!(provider.nature, Nature::Stalls { .. }) {
            provider.nature = Nature::Mute;
        }
    }
    let honest = &mut scenario.providers[0];
    honest.nature = Nature::Honest;
    honest.continues = true;
    honest.announced = true;
    scenario.max_attempts = 5;
    scenario.stop_after_ms = None;
    scenario.award_failures = 0;
    scenario
}

type Holds = fn(&Run) -> bool;

/// The properties above are worth nothing if the runs are dull.
#[test]
fn the_runs_meet_everything_worth_meeting() {
    let mut runner = TestRunner::deterministic();
    let runs = std::iter::repeat_with(|| {
        let tree = any_scenario().new_tree(&mut runner).unwrap();
        Run::of(&tree.current())
    });
    let runs: Vec<_> = runs.take(500).collect();
    fn done(run: &Run) -> bool {
        matches!(run.end.1, End::Done { .. })
    }
    fn saw(run: &Run, what: &str) -> bool {
        run.trace.iter().any(|line| line.contains(what))
    }
    let shares: [(&str, Holds); 10] = [
        ("done", done),
        ("done at a later attempt", |run| {
            done(run) && run.awards.len() > 1
        }),
        ("went on behind shown tokens", |run| run.continued),
        ("failed", |run| matches!(run.end.1, End::Failed(_))),
        ("stopped", |run| run.end.1 == End::Stopped),
        ("asked again", |run| saw(run, " Resend")),
        ("looked a result up", |run| saw(run, " LookUp ")),
        ("cancelled", |run| saw(run, " Cancel ")),
        ("dropped late news", |run| run.late > 0),
        ("ended by a bid", |run| {
            done(run) && saw(run, "is_bid: true")
        }),
    ];
    for (name, holds) in shares {
        let count = runs.iter().filter(|run| holds(run)).count();
        assert!(count >= 15, "{name}: {count} of {}", runs.len());
    }
}

#[test]
fn nobody_to_ask_ends_a_direct_job_at_once() {
    let mut scenario = Scenario::quiet(vec![]);
    scenario.mode = Mode::Direct;
    let run = Run::of(&scenario);
    let nobody = End::Failed(Failure::NoProvider);
    assert_eq!(run.end, (scenario.start(), nobody));
}

#[test]
fn each_nature_shows_what_it_is() {
    let seen_as = |nature| {
        let scenario = Scenario::quiet(vec![nature, Nature::Honest]);
        let run = Run::of(&scenario);
        assert!(matches!(run.end, (_, End::Done { .. })), "{nature:?}");
        assert_eq!(run.shown, scenario.answer.text(), "{nature:?}");
        run.attested.first().map(|(who, experience)| {
            assert_eq!(*who, usize::from(nature == Nature::Declines));
            *experience
        })
    };
    let expected = [
        (Nature::Honest, Experience::Completed),
        (Nature::Declines, Experience::Completed), // the next one's
        (Nature::Mute, Experience::Silent),
        (Nature::Quits { after: 5 }, Experience::Failed),
        (Nature::Crashes { after: 5 }, Experience::Silent),
        (Nature::CrashesAtTheEnd, Experience::Silent),
        (Nature::Breaks { after: 5 }, Experience::Failed),
        (
            Nature::Restarts {
                after: 5,
                back_ms: 1_500,
            },
            Experience::Failed,
        ),
        (Nature::AltersPiece { seq: 2 }, Experience::Invalid),
        (Nature::AltersResult, Experience::Invalid),
        (Nature::Miscounts, Experience::Invalid),
        (Nature::WrongHash, Experience::Invalid),
        (Nature::Overlong, Experience::Invalid),
        (Nature::EndsEarly { after: 5 }, Experience::Invalid),
    ];
    for (nature, experience) in expected {
        assert_eq!(seen_as(nature), Some(experience), "{nature:?}");
    }
}

#[test]
fn a_provider_that_pretends_to_work_costs_no_more_than_the_deadline() {
    let scenario = Scenario::quiet(vec![Nature::Stalls { after: 3 }, Nature::Honest]);
    let run = Run::of(&scenario);
    let end = End::Failed(Failure::Deadline);
    assert_eq!(run.end, (scenario.deadline(), end));
}

#[test]
fn a_network_that_loses_everything_ends_in_honest_failure() {
    let mut scenario = Scenario::quiet(vec![Nature::Honest; 3]);
    scenario.network = Network {
        loss: 100,
        ..scenario.network
    };
    let run = Run::of(&scenario);
    assert!(matches!(run.end, (_, End::Failed(Failure::NobodyLeft))));
    assert_eq!(run.awards.len(), 3);
    assert_eq!(run.shown, "");
}
