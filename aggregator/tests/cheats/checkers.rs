//! Checkers that lie, and two who collude.

use infernet_aggregator::checks::{Chances, Outcome};

use super::conduct::{Conduct, Eye};
use super::fake::Role;
use super::house::{House, NEVER, full};
use super::toy::Format;

const HONEST: Role = Role::Writer(Conduct::Honest(Format::Bf16));
const CHEAT: Role = Role::Writer(Conduct::Quantised(Format::Bits4));
const SEES: Role = Role::Checker(Eye::Honest);

/// A second opinion on everything.
const DOUBT: Chances = Chances {
    second_ppm: 1_000_000,
    ..NEVER
};

/// A trap for everybody.
const TRAPS: Chances = Chances {
    trap_ppm: 1_000_000,
    ..NEVER
};

#[tokio::test]
async fn strangers_reject_by_two() {
    let mut house = House::of(&[CHEAT, SEES, SEES], &[], NEVER).await;
    let judged = house.judge(0, 2).await;
    assert_eq!(judged.outcome, Outcome::Rejected);
    assert_eq!((judged.verdicts.len(), judged.hired.len()), (2, 2));
}

#[tokio::test]
async fn one_stranger_alone_rejects_nobody() {
    let mut house = House::of(&[HONEST, Role::Checker(Eye::RejectsAll)], &[], NEVER).await;
    assert_eq!(house.judge(0, 2).await.outcome, Outcome::Inconclusive);
}

#[tokio::test]
async fn who_rejects_honest_work_is_refuted_by_two_and_not_hired_again() {
    let roles = [HONEST, Role::Checker(Eye::RejectsAll), SEES, SEES];
    let mut house = House::of(&roles, &[], DOUBT).await;
    let mut caught = Vec::new();
    for _ in 0..20 {
        let judged = house.judge(0, 1).await;
        assert_eq!(judged.outcome, Outcome::Accepted, "{:?}", judged.verdicts);
        caught.extend(house.caught());
    }
    assert_eq!(caught, [house.key(1)]);
    assert_eq!(house.fakes[1].jobs(), 1);
}

#[tokio::test]
async fn who_accepts_everything_is_refuted_by_two() {
    let roles = [CHEAT, Role::Checker(Eye::AcceptsAll), SEES, SEES];
    let mut house = House::of(&roles, &[], DOUBT).await;
    let mut caught = Vec::new();
    for _ in 0..20 {
        assert_eq!(house.judge(0, 1).await.outcome, Outcome::Rejected);
        caught.extend(house.caught());
    }
    assert_eq!(caught, [house.key(1)]);
}

#[tokio::test]
async fn who_colludes_with_a_cheat_is_refuted_by_two() {
    let keys = [(); 4].map(|()| nostr::Keys::generate());
    let friend = Role::Checker(Eye::Spares(keys[0].public_key()));
    let roles = [CHEAT, friend, SEES, SEES];
    let mut house = House::of_keys(roles.into_iter().zip(keys), &[], DOUBT).await;
    let mut caught = Vec::new();
    for _ in 0..20 {
        assert_eq!(house.judge(0, 1).await.outcome, Outcome::Rejected);
        caught.extend(house.caught());
    }
    assert_eq!(caught, [house.key(1)]);
}

/// Its word alone would fill a pool in a few results.
#[tokio::test]
async fn who_blackens_what_it_accepts_fills_no_pool() {
    for others in [&[][..], &[SEES]] {
        let roles = [&[HONEST, Role::Checker(Eye::Blackens)], others].concat();
        let mut house = House::of(&roles, &[], NEVER).await;
        for _ in 0..8 {
            let judged = house.judge(0, 4).await;
            assert_eq!(judged.outcome, Outcome::Accepted, "{:?}", judged.verdicts);
        }
        assert!(house.fakes[1].jobs() > 0);
    }
}

#[tokio::test]
async fn two_strangers_fill_a_pool() {
    let eight_bits = Role::Writer(Conduct::ProvenGenuinely(Format::Bits8));
    let mut house = House::of(&[eight_bits, SEES, SEES], &[], NEVER).await;
    for _ in 0..40 {
        if house.judge(0, 8).await.outcome == Outcome::Rejected {
            return;
        }
    }
    panic!("the pool never told");
}

/// What our own questions are tried by later must be sure.
#[tokio::test]
async fn what_one_stranger_accepted_is_no_sample() {
    for (checkers, kept) in [(1, 0), (2, 1)] {
        let roles = [&[HONEST][..], &[SEES].repeat(checkers)].concat();
        let mut house = House::of(&roles, &[], NEVER).await;
        let work = house.buy(0, 2).await;
        house.checks.patrol(&work).await.unwrap();
        assert_eq!(house.samples().await, kept);
    }
}

#[tokio::test]
async fn the_owners_checker_refutes_nobody_but_decides() {
    let mut house = House::of(&[CHEAT, SEES, Role::Checker(Eye::AcceptsAll)], &[1], DOUBT).await;
    let judged = house.judge(0, 1).await;
    assert_eq!(judged.outcome, Outcome::Rejected);
    assert_eq!((house.fakes[1].jobs(), house.fakes[2].jobs()), (1, 0));
}

#[tokio::test]
async fn a_checker_that_did_not_look_convicts_itself() {
    let roles = [HONEST, Role::Checker(Eye::Blind)];
    let mut house = House::of(&roles, &[], NEVER).await;
    let work = house.buy(0, 2).await;
    let mut policy = full();
    policy.until = std::time::Instant::now() + std::time::Duration::from_secs(2);
    let judged = house.checks.judge(&work, &policy).await.unwrap();
    assert_eq!(judged.outcome, Outcome::Inconclusive);
    assert!(judged.hired.is_empty(), "it is not paid");
    assert_eq!(house.caught(), [house.key(1)]);
}

/// A house whose aggregator has samples to make traps of.
async fn with_traps(eye: Eye) -> House {
    let roles = [HONEST, SEES, Role::Checker(eye)];
    let mut house = House::of(&roles, &[], TRAPS).await;
    let work = house.buy(0, 4).await;
    // Who checks the first samples is drawn: until one is accepted.
    for _ in 0..4 {
        house.checks.patrol(&work).await.unwrap();
    }
    house
}

#[tokio::test]
async fn traps_catch_who_accepts_everything() {
    let mut house = with_traps(Eye::AcceptsAll).await;
    let mut caught = house.caught();
    for _ in 0..40 {
        if !caught.is_empty() {
            break;
        }
        assert_eq!(house.judge(0, 1).await.outcome, Outcome::Accepted);
        caught.extend(house.caught());
    }
    assert_eq!(caught, [house.key(2)]);
}

#[tokio::test]
async fn traps_catch_nobody_who_looks() {
    let mut house = with_traps(Eye::Honest).await;
    for _ in 0..12 {
        assert_eq!(house.judge(0, 1).await.outcome, Outcome::Accepted);
    }
    assert!(house.caught().is_empty());
    assert!(house.fakes[1].jobs() > 0 && house.fakes[2].jobs() > 0);
}
