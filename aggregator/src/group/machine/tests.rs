#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const NOW: Millis = Millis(1_000_000);

fn terms(is_paid: bool) -> Terms {
    Terms {
        is_paid,
        pay_until: NOW.plus(1_000),
        work_until: NOW.plus(10_000),
        wait_until: NOW.plus(15_000),
        deadline: NOW.plus(20_000),
        fetch_ms: 500,
    }
}

const DONE: Input = Input::Worked {
    any_accepted: true,
    is_charged: true,
};

#[test]
fn a_paid_group_is_worked_on_when_held_and_claimed_when_fetched() {
    let (mut group, first) = Machine::new(terms(true));
    assert_eq!(first, [Effect::Hold]);
    assert_eq!(group.step(NOW, Input::Held), [Effect::Work]);
    assert_eq!(group.step(NOW, DONE), [Effect::Deliver]);
    assert_eq!(group.step(NOW, Input::Uploaded), []);
    assert_eq!(group.next_deadline(), Some(NOW.plus(500)));
    assert_eq!(group.step(NOW, Input::Fetched), [Effect::Claim]);
    assert_eq!(group.step(NOW, Input::Fetched), [], "once");
    assert_eq!(group.step(NOW, Input::Taken), [Effect::Settle]);
    assert_eq!(group.state(), State::Settled);
}

#[test]
fn a_free_group_is_settled_when_it_is_uploaded() {
    let (mut group, first) = Machine::new(terms(false));
    assert_eq!(first, [Effect::Work]);
    assert_eq!(group.step(NOW, DONE), [Effect::Deliver]);
    assert_eq!(group.step(NOW, Input::Uploaded), [Effect::Settle]);
}

#[test]
fn nobody_pays_for_what_costs_nothing() {
    let (mut group, _) = Machine::new(terms(true));
    group.step(NOW, Input::Held);
    let free = Input::Worked {
        any_accepted: true,
        is_charged: false,
    };
    group.step(NOW, free);
    let ended = group.step(NOW, Input::Uploaded);
    assert_eq!(ended, [Effect::Release, Effect::Settle]);
}

#[test]
fn without_an_accepted_line_the_money_goes_back() {
    let (mut group, _) = Machine::new(terms(true));
    group.step(NOW, Input::Held);
    let nothing = Input::Worked {
        any_accepted: false,
        is_charged: false,
    };
    let ended = group.step(NOW, nothing);
    let expected = [
        Effect::Abandon,
        Effect::Release,
        Effect::Cancel(Cancelled::Nothing),
    ];
    assert_eq!(ended, expected);
}

#[test]
fn work_is_wound_up_before_the_deadline() {
    let (mut group, _) = Machine::new(terms(false));
    assert_eq!(group.step(NOW, Input::Tick), []);
    assert_eq!(group.step(NOW.plus(10_000), Input::Tick), [Effect::WindUp]);
    assert_eq!(group.next_deadline(), Some(NOW.plus(15_000)));
    assert_eq!(group.step(NOW.plus(15_000), Input::Tick), [Effect::Abandon]);
    assert_eq!(group.step(NOW.plus(15_000), DONE), [Effect::Deliver]);
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Held),
        Just(Input::HoldGone),
        Just(Input::Taken),
        (any::<bool>(), any::<bool>()).prop_map(|(any_accepted, is_charged)| Input::Worked {
            any_accepted,
            is_charged,
        }),
        Just(Input::Uploaded),
        Just(Input::NotUploaded),
        Just(Input::Fetched),
        Just(Input::Stop),
        Just(Input::Tick),
    ]
}

proptest! {
    #[test]
    fn money_is_claimed_or_released_and_never_both(
        is_paid: bool,
        inputs in prop::collection::vec((0_u64..4_000, input(), any::<bool>()), 0..60),
    ) {
        let (mut group, mut all) = Machine::new(terms(is_paid));
        let mut now = NOW;
        let (mut was_held, mut was_taken, mut was_lost) = (false, false, false);
        for (pause, input, crash) in inputs {
            now = now.plus(pause);
            let before = group.state();
            was_held |= input == Input::Held && before == State::Unpaid;
            was_taken |= input == Input::Taken;
            was_lost |= input == Input::HoldGone && before == State::Claiming;
            all.extend(group.step(now, input));
            if before.is_over() {
                prop_assert_eq!(group.state(), before, "what is over stays");
            }
            if crash && !group.state().is_over() {
                let state = group.state();
                let again = Machine::recovered(terms(is_paid), state, group.is_charged, group.claim_at);
                group = again.0;
                prop_assert_eq!(group.state(), state);
            }
        }
        let count = |wanted: fn(&Effect) -> bool| all.iter().filter(|e| wanted(e)).count();
        let claimed = count(|e| *e == Effect::Claim);
        let released = count(|e| *e == Effect::Release);
        let ended = count(|e| matches!(e, Effect::Settle | Effect::Cancel(_)));
        prop_assert!(claimed == 0 || released == 0 || was_lost);
        prop_assert!(claimed <= 1 && released <= 1);
        prop_assert!(ended <= 1);
        prop_assert_eq!(ended == 1, group.state().is_over());
        if !is_paid {
            prop_assert_eq!(claimed + released, 0);
        }
        if claimed == 1 {
            prop_assert!(was_held);
        }
        if is_paid && group.state() == State::Settled {
            prop_assert!(released == 1 || (claimed == 1 && was_taken));
        }
    }

    #[test]
    fn who_only_waits_comes_to_an_end(is_paid: bool) {
        let (mut group, _) = Machine::new(terms(is_paid));
        while let Some(at) = group.next_deadline() {
            group.step(at, Input::Tick);
        }
        // All that is left to wait for are the work that was given up and the wallet.
        prop_assert!(group.state().is_over() || group.is_abandoned);
    }
}
