//! How much is checked, and what.

use infernet_protocol::event::{Checking, Judgement};
use infernet_protocol::verification::{PROBATION, Secret, Trust};
use nostr::EventId;
use sha2::{Digest as _, Sha256};

const LEAST: Checking = Checking::Adaptive { least_ppm: 30_000 };

fn after(passes: u32) -> Trust {
    (0..passes).fold(Trust::default(), |trust, _| {
        trust.after(Judgement::Accepted)
    })
}

#[test]
fn everything_is_checked_until_ten_in_a_row_have_passed() {
    for passes in 0..PROBATION {
        assert_eq!(after(passes).chance_ppm(LEAST), 1_000_000);
    }
    assert_eq!(after(PROBATION).chance_ppm(LEAST), 100_000);
    assert_eq!(after(20).chance_ppm(LEAST), 50_000);
    assert_eq!(after(1_000).chance_ppm(LEAST), 30_000);
}

#[test]
fn one_failure_begins_anew_and_what_told_nothing_changes_nothing() {
    let trust = after(50);
    assert_eq!(trust.after(Judgement::Inconclusive), trust);
    let fallen = trust.after(Judgement::Rejected);
    assert_eq!(fallen.chance_ppm(LEAST), 1_000_000);
}

#[test]
fn an_order_may_want_all_checked_or_nothing() {
    assert_eq!(after(1_000).chance_ppm(Checking::Full), 1_000_000);
    assert_eq!(after(0).chance_ppm(Checking::None), 0);
}

#[test]
fn the_secret_chooses_the_share_that_was_said() {
    let secret = Secret::from_bytes([7; 32]);
    let result = |n: u32| EventId::from_byte_array(Sha256::digest(n.to_be_bytes()).into());
    for chance_ppm in [0, 30_000, 500_000, 1_000_000] {
        let chosen = (0..20_000).filter(|&n| secret.chooses(&result(n), chance_ppm));
        let share = chosen.count() as f64 / 20_000.0;
        let expected = f64::from(chance_ppm) / 1e6;
        assert!((share - expected).abs() < 0.01, "{share} for {expected}");
    }
    // One that was chosen at a chance is chosen at every higher one.
    let at = |chance| {
        (0..100)
            .filter(|&n| secret.chooses(&result(n), chance))
            .collect::<Vec<_>>()
    };
    let (few, more) = (at(200_000), at(600_000));
    assert!(few.iter().all(|n| more.contains(n)));
}
