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
        paid: Msat(10_000),
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
                tab_due_msat: Msat(1_101),
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
