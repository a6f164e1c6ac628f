//! The rules, one by one.

use infernet_payments::PaymentHash;
use infernet_payments::tab::{Carried, Disagreement, Totals, buyer, provider};
use infernet_protocol::job::Millis;
use infernet_protocol::money::{Msat, Price};
use nostr::EventId;

const PRICE: Price = Price {
    input_msat: 1_000_000,
    output_msat: 10_000_000,
};
const NOW: Millis = Millis(1_000);

fn award() -> EventId {
    EventId::from_byte_array([7; 32])
}

fn hash(number: u8) -> PaymentHash {
    PaymentHash::from_bytes([number; 32])
}

fn provider_with(carried: Carried) -> provider::Tab {
    provider::Tab::new(provider::Terms::default(), carried, None)
}

fn opened() -> provider::Input {
    provider::Input::Opened {
        award: award(),
        price: PRICE,
        input_tokens: 100,
        max_output_tokens: 1_000,
    }
}

fn buyer_with(carried: Carried) -> buyer::Tab {
    let mut tab = buyer::Tab::new(buyer::Limits::default(), carried, []);
    let opened = buyer::Input::Opened {
        award: award(),
        price: PRICE,
        max_input_tokens: 100,
        max_output_tokens: 1_000,
        budget: Msat(10_100),
    };
    assert_eq!(tab.step(opened).unwrap(), []);
    tab
}

fn totals(output_tokens: u64) -> Totals {
    let due_msat = PRICE.cost(100, output_tokens).unwrap();
    Totals {
        input_tokens: 100,
        output_tokens,
        due_msat,
        tab_due_msat: due_msat,
        tab_paid_msat: Msat(10_000),
    }
}

#[test]
fn a_stranger_pays_before_anything_is_computed() {
    let mut tab = provider_with(Carried::default());
    let asked = tab.step(NOW, opened()).unwrap();
    let ten_sat = Msat(10_000);
    assert_eq!(asked, [provider::Effect::Ask { amount: ten_sat }]);
    let paid = provider::Input::Paid { amount: ten_sat };
    let allowed = tab.step(NOW, paid).unwrap();
    let first = provider::Effect::Allow {
        award: award(),
        output_tokens: 64,
    };
    assert!(allowed.contains(&first), "{allowed:?}");
}

#[test]
fn who_has_paid_and_used_much_begins_at_once() {
    let carried = Carried {
        paid: Msat(1_000_000),
        due: Msat(1_000_000),
    };
    let mut tab = provider_with(carried);
    assert_eq!(tab.credit(), Msat(100_000));
    let effects = tab.step(NOW, opened()).unwrap();
    assert!(matches!(effects[..], [provider::Effect::Allow { .. }]));
}

#[test]
fn credit_does_not_come_from_money_that_was_not_used() {
    let tab = provider_with(Carried {
        paid: Msat(1_000_000),
        due: Msat::ZERO,
    });
    assert_eq!(tab.credit(), Msat::ZERO);
}

#[test]
fn what_is_left_carries_on() {
    let mut tab = provider_with(Carried {
        paid: Msat(30_000),
        due: Msat(10_000),
    });
    let effects = tab.step(NOW, opened()).unwrap();
    assert!(matches!(effects[..], [provider::Effect::Allow { .. }]));
    assert_eq!(tab.balance_msat(), 19_900);
}

#[test]
fn a_job_that_nobody_pays_is_stopped_in_time() {
    let mut tab = provider_with(Carried::default());
    tab.step(NOW, opened()).unwrap();
    let deadline = tab.next_deadline().unwrap();
    assert_eq!(deadline, NOW.plus(60_000));
    assert_eq!(
        tab.step(Millis(deadline.0 - 1), provider::Input::Tick),
        Ok(vec![])
    );
    let stop = provider::Effect::Stop {
        award: award(),
        why: provider::Why::Unpaid,
    };
    assert_eq!(tab.step(deadline, provider::Input::Tick), Ok(vec![stop]));
    let charge = provider::Effect::Charge {
        award: award(),
        amount: Msat::ZERO,
    };
    let ended = provider::Input::Ended { award: award() };
    assert_eq!(tab.step(deadline, ended), Ok(vec![charge]));
}

#[test]
fn a_buyer_that_acknowledges_nothing_is_stopped() {
    let mut tab = provider_with(Carried {
        paid: Msat(1_000_000),
        due: Msat::ZERO,
    });
    let opened = provider::Input::Opened {
        award: award(),
        price: PRICE,
        input_tokens: 100,
        max_output_tokens: 5_000,
    };
    let mut effects = tab.step(NOW, opened).unwrap();
    let mut allowed = 0;
    while let Some(provider::Effect::Allow { output_tokens, .. }) = effects.first() {
        allowed = *output_tokens;
        let drawn = provider::Input::Drawn {
            award: award(),
            output_tokens: allowed,
        };
        effects = tab.step(NOW, drawn).unwrap();
    }
    assert_eq!(allowed, 1_024);
    let deadline = tab.next_deadline().unwrap();
    let stop = provider::Effect::Stop {
        award: award(),
        why: provider::Why::Silent,
    };
    assert_eq!(tab.step(deadline, provider::Input::Tick), Ok(vec![stop]));
}

#[test]
fn free_work_needs_no_tab() {
    let mut tab = provider_with(Carried::default());
    let opened = provider::Input::Opened {
        award: award(),
        price: Price::FREE,
        input_tokens: 100,
        max_output_tokens: 10,
    };
    let effects = tab.step(NOW, opened).unwrap();
    assert!(matches!(effects[..], [provider::Effect::Allow { .. }]));
}

#[test]
fn an_embedding_that_comes_to_nothing_costs_nothing() {
    let mut tab = provider_with(Carried {
        paid: Msat(10_000),
        due: Msat::ZERO,
    });
    let opened = provider::Input::Opened {
        award: award(),
        price: PRICE,
        input_tokens: 100,
        max_output_tokens: 0,
    };
    tab.step(NOW, opened).unwrap();
    let dropped = provider::Input::Dropped { award: award() };
    assert_eq!(tab.step(NOW, dropped), Ok(vec![]));
    assert_eq!(tab.balance_msat(), 10_000);
    tab.step(NOW, opened).unwrap();
    let ended = provider::Input::Ended { award: award() };
    let amount = PRICE.cost(100, 0).unwrap();
    let award = award();
    let charge = provider::Effect::Charge { award, amount };
    assert_eq!(tab.step(NOW, ended), Ok(vec![charge]));
}

#[test]
fn a_refund_is_what_is_left_and_only_once() {
    let mut tab = provider_with(Carried {
        paid: Msat(30_000),
        due: Msat(10_000),
    });
    let ask = |amount| provider::Input::RefundAsked { amount };
    let refused = [provider::Effect::RefuseRefund];
    assert_eq!(tab.step(NOW, ask(Msat(20_001))).unwrap(), refused);
    let amount = Msat(20_000);
    let refund = [provider::Effect::Refund { amount }];
    assert_eq!(tab.step(NOW, ask(amount)).unwrap(), refund);
    assert_eq!(tab.step(NOW, ask(amount)).unwrap(), refused);
    tab.step(NOW, provider::Input::RefundFailed { amount })
        .unwrap();
    assert_eq!(tab.step(NOW, ask(amount)).unwrap(), refund);
}

#[test]
fn a_provider_hears_what_does_not_add_up() {
    let wrong = [
        (
            Totals {
                input_tokens: 99,
                ..totals(0)
            },
            Disagreement::Input,
        ),
        (totals(1), Disagreement::Output),
        (
            Totals {
                due_msat: Msat(99),
                ..totals(0)
            },
            Disagreement::Cost,
        ),
    ];
    for (totals, why) in wrong {
        let mut tab = provider_with(Carried {
            paid: Msat(100_000),
            due: Msat::ZERO,
        });
        tab.step(NOW, opened()).unwrap();
        let said = provider::Input::Acknowledged {
            award: award(),
            totals,
        };
        let stop = provider::Effect::Stop {
            award: award(),
            why: provider::Why::Disagreement(why),
        };
        assert_eq!(tab.step(NOW, said), Ok(vec![stop]));
    }
}

#[test]
fn a_buyer_hears_what_does_not_add_up() {
    let carried = Carried {
        paid: Msat(60_000),
        due: Msat::ZERO,
    };
    let wrong = [
        (
            Totals {
                input_tokens: 101,
                ..totals(0)
            },
            Disagreement::Input,
        ),
        (
            Totals {
                output_tokens: 1_001,
                ..totals(0)
            },
            Disagreement::Output,
        ),
        (
            Totals {
                due_msat: Msat(101),
                ..totals(0)
            },
            Disagreement::Cost,
        ),
        (
            Totals {
                tab_paid_msat: Msat(9_999),
                ..totals(0)
            },
            Disagreement::PaymentMissing,
        ),
        (
            Totals {
                tab_due_msat: Msat(25_101),
                ..totals(0)
            },
            Disagreement::Earlier,
        ),
    ];
    for (totals, why) in wrong {
        let mut tab = buyer_with(carried);
        let said = buyer::Input::Claimed {
            award: award(),
            totals,
        };
        let stop = buyer::Effect::Stop {
            award: award(),
            why,
        };
        assert_eq!(tab.step(said), Ok(vec![stop]));
    }
}

#[test]
fn a_buyer_signs_what_it_has_counted_and_no_more() {
    let mut tab = buyer_with(Carried {
        paid: Msat(10_000),
        due: Msat::ZERO,
    });
    let said = buyer::Input::Claimed {
        award: award(),
        totals: totals(50),
    };
    let effects = tab.step(said).unwrap();
    let [buyer::Effect::Acknowledge { totals: signed, .. }] = effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((signed.output_tokens, signed.due_msat), (0, Msat(100)));
    let counted = buyer::Input::Counted {
        award: award(),
        output_tokens: 50,
    };
    let effects = tab.step(counted).unwrap();
    let [buyer::Effect::Acknowledge { totals: signed, .. }] = effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((signed.output_tokens, signed.due_msat), (50, Msat(600)));
}

#[test]
fn claims_for_what_never_came_end_the_job() {
    let mut tab = buyer_with(Carried {
        paid: Msat(10_000),
        due: Msat::ZERO,
    });
    let said = buyer::Input::Claimed {
        award: award(),
        totals: totals(50),
    };
    tab.step(said).unwrap();
    let ended = buyer::Input::Ended {
        award: award(),
        is_delivered: true,
    };
    let expected = [
        buyer::Effect::Stop {
            award: award(),
            why: Disagreement::Output,
        },
        buyer::Effect::Charge {
            award: award(),
            amount: Msat::ZERO,
        },
    ];
    assert_eq!(tab.step(ended).unwrap(), expected);
}

#[test]
fn a_buyer_pays_once_within_its_limit_and_only_what_it_needs() {
    let mut tab = buyer_with(Carried::default());
    let invoiced = |number, amount| buyer::Input::Invoiced {
        hash: hash(number),
        amount: Msat(amount),
    };
    let pay = |number| buyer::Effect::Pay { hash: hash(number) };
    let refuse = |number, why| buyer::Effect::Refuse {
        hash: hash(number),
        why,
    };
    let too_large = refuse(1, buyer::Refusal::TooLarge);
    assert_eq!(tab.step(invoiced(1, 50_001)).unwrap(), [too_large]);
    assert_eq!(tab.step(invoiced(2, 10_000)).unwrap(), [pay(2)]);
    assert_eq!(
        tab.step(invoiced(2, 10_000)).unwrap(),
        [],
        "the same one again"
    );
    assert_eq!(
        tab.step(invoiced(3, 10_000)).unwrap(),
        [pay(3)],
        "100 msat are missing"
    );
    let needless = refuse(4, buyer::Refusal::Needless);
    assert_eq!(tab.step(invoiced(4, 10_000)).unwrap(), [needless]);
    assert_eq!(tab.at_risk_msat(), 20_000);
    tab.step(buyer::Input::Failed { hash: hash(2) }).unwrap();
    assert_eq!(tab.at_risk_msat(), 10_000);
    // Told that it failed, and done all the same.
    tab.step(buyer::Input::Settled { hash: hash(2) }).unwrap();
    tab.step(buyer::Input::Settled { hash: hash(2) }).unwrap();
    assert_eq!(tab.at_risk_msat(), 20_000);
}

#[test]
fn an_invoice_waits_until_it_fits() {
    let limits = buyer::Limits {
        risk: Msat(10_000),
        ..buyer::Limits::default()
    };
    let carried = Carried {
        paid: Msat(5_000),
        due: Msat::ZERO,
    };
    let mut tab = buyer::Tab::new(limits, carried, []);
    let opened = buyer::Input::Opened {
        award: award(),
        price: PRICE,
        max_input_tokens: 100,
        max_output_tokens: 1_000,
        budget: Msat(10_100),
    };
    tab.step(opened).unwrap();
    let invoiced = buyer::Input::Invoiced {
        hash: hash(1),
        amount: Msat(10_000),
    };
    assert_eq!(tab.step(invoiced).unwrap(), []);
    assert_eq!(tab.waiting(), Some(hash(1)));
    let counted = |output_tokens| buyer::Input::Counted {
        award: award(),
        output_tokens,
    };
    assert_eq!(tab.step(counted(499)).unwrap(), []);
    let paid = buyer::Effect::Pay { hash: hash(1) };
    assert_eq!(tab.step(counted(500)).unwrap(), [paid]);
}

fn award_of(number: u8) -> EventId {
    EventId::from_byte_array([number; 32])
}

/// A stranger's tab with so many jobs, each of 1,100 msat before it begins, and what came of opening them.
fn provider_with_jobs(jobs: u8) -> (provider::Tab, Vec<provider::Effect>) {
    let mut tab = provider_with(Carried::default());
    let mut effects = Vec::new();
    // The last has the smallest id.
    for number in (1..=jobs).rev() {
        let opened = provider::Input::Opened {
            award: award_of(number),
            price: PRICE,
            input_tokens: 460,
            max_output_tokens: 1_000,
        };
        effects.extend(tab.step(NOW, opened).unwrap());
    }
    (tab, effects)
}

fn asked(effects: &[provider::Effect]) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        provider::Effect::Ask { amount } => Some(amount.0),
        _ => None,
    })
}

#[test]
fn a_hundred_jobs_are_paid_in_parts_that_their_buyer_risks() {
    let (mut tab, opened) = provider_with_jobs(100);
    let risk = buyer::Limits::default().risk.0;
    let mut amount = asked(&opened).unwrap();
    let mut begun = 0;
    for _ in 0..10 {
        assert!(amount <= risk, "{amount} msat are asked for at once");
        let amount_paid = Msat(amount);
        let paid = provider::Input::Paid {
            amount: amount_paid,
        };
        let effects = tab.step(NOW, paid).unwrap();
        let allowed = |effect: &&provider::Effect| matches!(effect, provider::Effect::Allow { .. });
        begun += effects.iter().filter(allowed).count();
        amount = asked(&effects).unwrap();
    }
    assert!(begun >= 90, "only {begun} jobs have begun");
}

#[test]
fn who_came_first_begins_first() {
    let (mut tab, _) = provider_with_jobs(20);
    let amount = Msat(10_000);
    let effects = tab.step(NOW, provider::Input::Paid { amount }).unwrap();
    let begun: Vec<u8> = effects
        .iter()
        .filter_map(|effect| match effect {
            provider::Effect::Allow { award, .. } => Some(award.as_bytes()[0]),
            _ => None,
        })
        .collect();
    assert_eq!(begun, (12..=20).rev().collect::<Vec<u8>>());
}

#[test]
fn who_pays_promptly_is_not_late() {
    let (mut tab, _) = provider_with_jobs(100);
    let amount = Msat(10_000);
    for seconds in (30..=300).step_by(30) {
        let now = NOW.plus(seconds * 1_000);
        let effects = tab.step(now, provider::Input::Paid { amount }).unwrap();
        let stops = |effect: &provider::Effect| matches!(effect, provider::Effect::Stop { .. });
        assert!(!effects.iter().any(stops), "stopped after {seconds} s");
    }
    // Dribs are no payment.
    let drib = provider::Input::Paid { amount: Msat(1) };
    let effects = tab.step(NOW.plus(360_000), drib).unwrap();
    let unpaid = |effect: &provider::Effect| {
        matches!(
            effect,
            provider::Effect::Stop {
                why: provider::Why::Unpaid,
                ..
            }
        )
    };
    assert!(effects.iter().any(unpaid));
}

#[test]
fn a_stream_that_runs_dry_is_paid_earlier_and_more() {
    let mut tab = provider_with(Carried::default());
    let award = award_of(1);
    let opened = provider::Input::Opened {
        award,
        price: PRICE,
        input_tokens: 460,
        max_output_tokens: 100_000,
    };
    let mut amount = asked(&tab.step(NOW, opened).unwrap()).unwrap();
    let mut amounts = Vec::new();
    for _ in 0..6 {
        amounts.push(amount);
        let amount_paid = Msat(amount);
        let paid = provider::Input::Paid {
            amount: amount_paid,
        };
        let mut effects = tab.step(NOW, paid).unwrap();
        // Everything that was allowed is drawn before the next top-up comes.
        while let Some(output_tokens) = allowed_to(&effects) {
            let drawn = provider::Input::Drawn {
                award,
                output_tokens,
            };
            effects.extend(tab.step(NOW, drawn).unwrap());
            let totals = tab.totals(&award).unwrap();
            let agreed = provider::Input::Acknowledged { award, totals };
            effects.extend(tab.step(NOW, agreed).unwrap());
            amount = asked(&effects).unwrap_or(amount);
            effects.retain(|effect| {
                matches!(effect, provider::Effect::Allow { output_tokens: further, .. } if *further > output_tokens)
            });
        }
    }
    let risk = buyer::Limits::default().risk.0;
    assert_eq!(amounts, [10_000, 10_000, 10_000, 20_000, 20_000, 20_000]);
    assert!(2 * 20_000 <= risk);
}

fn allowed_to(effects: &[provider::Effect]) -> Option<u64> {
    let allowed = effects.iter().filter_map(|effect| match effect {
        provider::Effect::Allow { output_tokens, .. } => Some(*output_tokens),
        _ => None,
    });
    allowed.max()
}

#[test]
fn a_buyer_says_how_much_it_pays_at_a_time() {
    let (mut tab, _) = provider_with_jobs(100);
    let limited = |most| provider::Input::Limited { most: Msat(most) };
    let effects = tab.step(NOW, limited(45_000)).unwrap();
    assert_eq!(asked(&effects), Some(45_000));
    let effects = tab.step(NOW, limited(9_999)).unwrap();
    assert_eq!(asked(&effects), None, "less than the smallest top-up");
}

#[test]
fn what_a_buyer_has_said_that_it_pays_holds_for_whatever_is_asked_later() {
    let (mut tab, opened) = provider_with_jobs(1);
    assert_eq!(asked(&opened), Some(10_000));
    let most = Msat(15_000);
    let bounded = provider::Input::Bounded { most };
    assert_eq!(asked(&tab.step(NOW, bounded).unwrap()), None, "it stands");
    // After it, one that needs far more than that to begin.
    let award = award_of(1);
    tab.step(NOW, provider::Input::Dropped { award }).unwrap();
    let opened = provider::Input::Opened {
        award: award_of(2),
        price: PRICE,
        input_tokens: 40_000,
        max_output_tokens: 1_000,
    };
    tab.step(NOW, opened).unwrap();
    let mut amounts = Vec::new();
    let mut amount = Msat(10_000);
    for _ in 0..3 {
        let effects = tab.step(NOW, provider::Input::Paid { amount }).unwrap();
        amount = Msat(asked(&effects).unwrap());
        amounts.push(amount.0);
    }
    assert_eq!(amounts, [15_000, 15_000, 10_000]);
    // Less than the smallest top-up cannot be asked for.
    let bounded = provider::Input::Bounded { most: Msat(9_999) };
    tab.step(NOW, bounded).unwrap();
    assert_eq!(tab.ceiling(), most);
}

#[test]
fn what_is_set_aside_for_others_covers_a_job_in_its_turn() {
    let mut tab = provider_with(Carried {
        paid: Msat(2_000),
        due: Msat::ZERO,
    });
    for number in [1, 2] {
        let opened = provider::Input::Opened {
            award: award_of(number),
            price: PRICE,
            input_tokens: 460,
            max_output_tokens: 1_000,
        };
        tab.step(NOW, opened).unwrap();
    }
    assert!(tab.covers(&award_of(1)) && tab.covers(&award_of(2)));
    // The first has begun, and uses what it was allowed.
    let award = award_of(1);
    let drawn = provider::Input::Drawn {
        award,
        output_tokens: 64,
    };
    tab.step(NOW, drawn).unwrap();
    assert!(!tab.covers(&award_of(2)));
    let dropped = provider::Input::Dropped { award };
    let effects = tab.step(NOW, dropped).unwrap();
    assert_eq!(allowed_to(&effects), Some(64));
}

#[test]
fn a_debt_is_paid_even_where_it_is_more_than_a_top_up() {
    let carried = Carried {
        paid: Msat(1_000_000),
        due: Msat(1_080_000),
    };
    let mut tab = buyer::Tab::new(buyer::Limits::default(), carried, []);
    let invoiced = |number, amount| buyer::Input::Invoiced {
        hash: hash(number),
        amount: Msat(amount),
    };
    let too_large = buyer::Effect::Refuse {
        hash: hash(1),
        why: buyer::Refusal::TooLarge,
    };
    assert_eq!(tab.step(invoiced(1, 130_001)).unwrap(), [too_large]);
    let pay = buyer::Effect::Pay { hash: hash(2) };
    assert_eq!(tab.step(invoiced(2, 80_000)).unwrap(), [pay]);
    assert_eq!(tab.at_risk_msat(), 0);
}

#[test]
fn a_provider_may_repeat_itself_but_not_take_back_what_it_signed() {
    let mut tab = buyer_with(Carried {
        paid: Msat(20_000),
        due: Msat::ZERO,
    });
    let said = |output_tokens, paid| buyer::Input::Claimed {
        award: award(),
        totals: Totals {
            tab_paid_msat: Msat(paid),
            ..totals(output_tokens)
        },
    };
    for (output_tokens, paid) in [(1, 10_000), (2, 20_000), (1, 10_000), (2, 10_000)] {
        let effects = tab.step(said(output_tokens, paid)).unwrap();
        let stops = |effect: &buyer::Effect| matches!(effect, buyer::Effect::Stop { .. });
        assert!(!effects.iter().any(stops), "{output_tokens} came again");
    }
    let stop = buyer::Effect::Stop {
        award: award(),
        why: Disagreement::PaymentMissing,
    };
    assert_eq!(tab.step(said(3, 10_000)).unwrap(), [stop]);
}

#[test]
fn a_provider_may_hear_of_a_payment_first() {
    let mut tab = buyer_with(Carried {
        paid: Msat(10_000),
        due: Msat::ZERO,
    });
    for (output_tokens, paid) in [(1, 20_000), (2, 10_000)] {
        let said = buyer::Input::Claimed {
            award: award(),
            totals: Totals {
                tab_paid_msat: Msat(paid),
                ..totals(output_tokens)
            },
        };
        let effects = tab.step(said).unwrap();
        let stops = |effect: &buyer::Effect| matches!(effect, buyer::Effect::Stop { .. });
        assert!(!effects.iter().any(stops));
    }
}

#[test]
fn a_provider_that_hears_late_of_a_payment_or_was_cut_short_may_go_on() {
    let mut tab = buyer_with(Carried {
        paid: Msat(60_000),
        due: Msat(20_000),
    });
    // One payment is missing, and an earlier job cost it 3,000 msat more.
    let late = Totals {
        tab_due_msat: Msat(23_100),
        tab_paid_msat: Msat(50_000),
        ..totals(0)
    };
    let said = buyer::Input::Claimed {
        award: award(),
        totals: late,
    };
    let effects = tab.step(said).unwrap();
    assert!(matches!(effects[..], [buyer::Effect::Acknowledge { .. }]));
}

#[test]
fn what_an_earlier_process_left_under_way_is_at_risk_and_not_relied_on() {
    let limits = buyer::Limits {
        risk: Msat(25_000),
        ..buyer::Limits::default()
    };
    let left = [(hash(9), Msat(12_000))];
    let mut tab = buyer::Tab::new(limits, Carried::default(), left);
    let opened = buyer::Input::Opened {
        award: award(),
        price: PRICE,
        max_input_tokens: 100,
        max_output_tokens: 1_000,
        budget: Msat(10_100),
    };
    tab.step(opened).unwrap();
    let invoiced = |number| buyer::Input::Invoiced {
        hash: hash(number),
        amount: Msat(10_000),
    };
    let pay = buyer::Effect::Pay { hash: hash(1) };
    assert_eq!(tab.step(invoiced(1)).unwrap(), [pay]);
    assert_eq!(tab.at_risk_msat(), 22_000);
    assert_eq!(tab.step(invoiced(2)).unwrap(), [], "over the limit");
}
