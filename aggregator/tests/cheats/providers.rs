//! Providers that cheat.

use infernet_aggregator::checks::{Judged, Outcome, Subject};
use infernet_protocol::event::{Award, Checkers, Checking, Judgement, Signed};
use infernet_protocol::verification::METHOD_POOLED;

use super::conduct::{Conduct, Eye};
use super::fake::Role;
use super::house::{House, NEVER, full};
use super::toy::Format;

/// A provider that does this, and the owner's checker.
async fn house(conduct: Conduct) -> House {
    let roles = [Role::Writer(conduct), Role::Checker(Eye::Honest)];
    House::of(&roles, &[1], NEVER).await
}

/// What is made of one result of four answers by a provider that does this.
async fn judged(conduct: Conduct) -> Judged {
    house(conduct).await.judge(0, 4).await
}

async fn is_rejected(conduct: Conduct) {
    let judged = judged(conduct).await;
    assert_eq!(judged.outcome, Outcome::Rejected, "{:?}", judged.verdicts);
    let verdict = judged.verdict().unwrap();
    assert_eq!(verdict.judgement, Judgement::Rejected);
}

#[tokio::test]
async fn honest_work_is_accepted() {
    for format in [Format::F32, Format::Bf16] {
        let judged = judged(Conduct::Honest(format)).await;
        assert_eq!(judged.outcome, Outcome::Accepted, "{:?}", judged.verdicts);
        assert_eq!((judged.verdicts.len(), judged.hired.len()), (1, 1));
    }
}

#[tokio::test]
async fn another_model_is_rejected() {
    is_rejected(Conduct::AnotherModel).await;
}

#[tokio::test]
async fn four_bits_are_rejected() {
    is_rejected(Conduct::Quantised(Format::Bits4)).await;
}

#[tokio::test]
async fn eight_bits_are_rejected_by_their_activations() {
    is_rejected(Conduct::Quantised(Format::Bits8)).await;
}

#[tokio::test]
async fn four_bits_with_genuine_proofs_are_rejected_by_their_margins() {
    is_rejected(Conduct::ProvenGenuinely(Format::Bits4)).await;
}

#[tokio::test]
async fn eight_bits_with_genuine_proofs_are_rejected_by_the_pool() {
    let mut house = house(Conduct::ProvenGenuinely(Format::Bits8)).await;
    let first = house.judge(0, 8).await;
    assert_eq!(first.outcome, Outcome::Accepted, "{:?}", first.verdicts);
    for _ in 0..40 {
        let judged = house.judge(0, 8).await;
        if judged.outcome == Outcome::Rejected {
            let verdict = judged.verdict().unwrap();
            assert_eq!(verdict.method, METHOD_POOLED);
            assert_eq!(judged.verdicts[1].judgement, Judgement::Accepted);
            return;
        }
    }
    panic!("the pool never told");
}

#[tokio::test]
async fn honest_rounding_is_never_rejected_by_the_pool() {
    let mut house = house(Conduct::Honest(Format::Bf16)).await;
    for _ in 0..40 {
        let judged = house.judge(0, 8).await;
        assert_eq!(judged.outcome, Outcome::Accepted, "{:?}", judged.verdicts);
    }
}

#[tokio::test]
async fn text_made_up_is_rejected() {
    is_rejected(Conduct::MadeUp).await;
}

#[tokio::test]
async fn text_cut_short_is_rejected() {
    is_rejected(Conduct::CutShort).await;
}

#[tokio::test]
async fn an_old_result_is_rejected() {
    is_rejected(Conduct::OldResult).await;
}

#[tokio::test]
async fn a_shortened_prompt_is_rejected() {
    is_rejected(Conduct::PromptShortened).await;
}

#[tokio::test]
async fn another_seed_is_rejected() {
    is_rejected(Conduct::OtherSeed).await;
}

#[tokio::test]
async fn honest_at_first_is_rejected() {
    is_rejected(Conduct::HonestAtFirst).await;
}

#[tokio::test]
async fn another_text_over_the_tokens_is_rejected() {
    is_rejected(Conduct::OtherText).await;
}

#[tokio::test]
async fn no_proof_is_rejected() {
    is_rejected(Conduct::Unproven).await;
}

#[tokio::test]
async fn who_has_shown_itself_is_checked_less_and_after_a_rejection_always() {
    let mut house = house(Conduct::Honest(Format::F32)).await;
    let policy = super::house::adaptive();
    let mut chances = Vec::new();
    let mut checked = 0;
    for _ in 0..30 {
        let work = house.buy(0, 1).await;
        let judged = house.checks.judge(&work, &policy).await.unwrap();
        chances.push(judged.chance_ppm);
        checked += usize::from(judged.outcome == Outcome::Accepted);
    }
    assert!(chances[..10].iter().all(|chance| *chance == 1_000_000));
    assert_eq!(chances[10], 100_000);
    assert!((10..20).contains(&checked), "{checked}");
    let work = house.buy(0, 1).await;
    let subject = Subject::of(&work);
    let adaptive = Checking::Adaptive { least_ppm: 30_000 };
    let chance = house.checks.chance_ppm(&subject, adaptive).await.unwrap();
    assert!(chance <= 100_000);
}

#[tokio::test]
async fn a_result_is_judged_once() {
    let mut house = house(Conduct::Honest(Format::F32)).await;
    let work = house.buy(0, 2).await;
    let first = house.checks.judge(&work, &full()).await.unwrap();
    let again = house.checks.judge(&work, &full()).await.unwrap();
    assert_eq!(house.fakes[1].jobs(), 1);
    assert_eq!(again.verdicts, first.verdicts);
    assert_eq!(again.outcome, first.outcome);
    assert!(again.hired.is_empty(), "nobody is paid twice");
}

#[tokio::test]
async fn nobody_looks_where_nobody_may() {
    let mut house = house(Conduct::MadeUp).await;
    let work = house.buy(0, 1).await;
    let mut policy = full();
    policy.checkers = Checkers::Nobody;
    let judged = house.checks.judge(&work, &policy).await.unwrap();
    assert_eq!(judged.outcome, Outcome::Unchecked);
    assert_eq!((judged.chance_ppm, house.fakes[1].jobs()), (0, 0));
}

#[tokio::test]
async fn questions_of_our_own_catch_who_is_never_checked() {
    let mut house = house(Conduct::Quantised(Format::Bits4)).await;
    let work = house.buy(0, 4).await;
    house.checks.patrol(&work).await.unwrap();
    assert_eq!(house.caught(), [house.key(0)]);
}

/// Or else it would be honest with those alone.
#[tokio::test]
async fn nothing_in_the_award_tells_them_from_work_that_nobody_checks() {
    let mut house = house(Conduct::MadeUp).await;
    let work = house.buy_unchecked(0, 4).await;
    house.checks.patrol(&work).await.unwrap();
    assert_eq!(house.caught(), [house.key(0)]);
    let awards = house.fakes[0].awards.lock().unwrap().clone();
    let checkers: Vec<_> = awards.iter().map(|award| award.checkers).collect();
    assert_eq!(checkers, [Checkers::Nobody; 2]);
    let given = |award: &Signed<Award>| award.deadline.as_secs() - award.created_at().as_secs();
    assert!(given(&awards[0]).abs_diff(given(&awards[1])) <= 1);
}

#[tokio::test]
async fn known_answers_need_no_check() {
    let honest = Role::Writer(Conduct::Honest(Format::F32));
    let roles = [honest, honest, Role::Checker(Eye::Honest)];
    let mut house = House::of(&roles, &[2], NEVER).await;
    let (first, second) = (house.buy(0, 4).await, house.buy(1, 4).await);
    for _ in 0..4 {
        house.checks.patrol(&first).await.unwrap();
    }
    let checked = house.fakes[2].jobs();
    assert!(checked > 0);
    // Half of the questions to the second are known by now.
    for _ in 0..12 {
        house.checks.patrol(&second).await.unwrap();
    }
    assert!(house.fakes[2].jobs() < checked + 12);
    assert!(house.caught().is_empty());
}

#[tokio::test]
async fn vectors_are_compared_with_anothers_where_nobody_checks() {
    for (turned, outcome) in [(0.001, Outcome::Accepted), (3.0, Outcome::Rejected)] {
        let embedders = [turned, 0.0, 0.0].map(Role::Embedder);
        let mut house = House::of(&embedders, &[], NEVER).await;
        let work = house.buy_vectors(0).await;
        let judged = house.checks.judge(&work, &full()).await.unwrap();
        assert_eq!(judged.outcome, outcome, "{:?}", judged.verdicts);
        assert_eq!(judged.hired.len(), if turned < 1.0 { 1 } else { 2 });
    }
}

/// What a twin says is signed by the aggregator: a lie of one twin is not its word.
#[tokio::test]
async fn what_one_twin_says_against_a_provider_is_not_published() {
    let embedders = [0.0, 3.0].map(Role::Embedder);
    let mut house = House::of(&embedders, &[], NEVER).await;
    let work = house.buy_vectors(0).await;
    let judged = house.checks.judge(&work, &full()).await.unwrap();
    assert_eq!(judged.outcome, Outcome::Inconclusive);
    assert!(judged.verdicts.is_empty(), "{:?}", judged.verdicts);
}
