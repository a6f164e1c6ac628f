//! Amounts and prices: exact, checked, rounded once.

use infernet_protocol::money::{Msat, Price};
use proptest::collection::vec;
use proptest::prelude::*;

fn price() -> impl Strategy<Value = Price> {
    (any::<u64>(), any::<u64>()).prop_map(|(input_msat, output_msat)| Price {
        input_msat,
        output_msat,
    })
}

proptest! {
    #![proptest_config(crate::cases(1_000))]

    #[test]
    fn a_cost_is_exact_and_rounded_up_once(price in price(), input: u64, output: u64) {
        let exact = u128::from(price.input_msat)
            .checked_mul(input.into())
            .zip(u128::from(price.output_msat).checked_mul(output.into()))
            .and_then(|(i, o)| i.checked_add(o));
        match (price.cost(input, output), exact) {
            (Some(cost), Some(exact)) => {
                let paid = u128::from(cost.0) * 1_000_000;
                prop_assert!(paid >= exact && paid - exact < 1_000_000);
                prop_assert!(cost <= Msat::MAX);
            }
            (None, Some(exact)) => prop_assert!(exact > u128::from(Msat::MAX.0) * 1_000_000),
            (cost, None) => prop_assert_eq!(cost, None),
        }
    }

    /// However an answer is cut into pieces, the running total is never more than
    /// one millisatoshi over the exact sum, and never falls.
    #[test]
    fn rounding_does_not_add_up(
        per_million in 0..10_000_000_u64,
        pieces in vec(0..50_u64, 1..100),
    ) {
        let price = Price { input_msat: 0, output_msat: per_million };
        let (mut tokens, mut due) = (0, Msat::ZERO);
        for piece in pieces {
            tokens += piece;
            let total = price.cost(0, tokens).unwrap();
            prop_assert!(total >= due);
            due = total;
            let exact = u128::from(per_million) * u128::from(tokens);
            prop_assert!(u128::from(due.0) * 1_000_000 < exact + 1_000_000);
        }
    }

    #[test]
    fn amounts_never_wrap(a: u64, b: u64) {
        let (a, b) = (Msat(a), Msat(b));
        if let Some(sum) = a.checked_add(b) {
            prop_assert_eq!(u128::from(sum.0), u128::from(a.0) + u128::from(b.0));
            prop_assert!(sum <= Msat::MAX);
            prop_assert_eq!(sum.checked_sub(b), Some(a));
        }
        prop_assert_eq!(a.checked_sub(b).is_none(), a < b);
        let sats = Msat::from_sat(a.0);
        prop_assert_eq!(sats.is_some(), a.0 <= Msat::MAX.0 / 1_000);
    }

    #[test]
    fn within_is_within_in_both_parts(a in price(), b in price()) {
        let within = a.input_msat <= b.input_msat && a.output_msat <= b.output_msat;
        prop_assert_eq!(a.is_within(&b), within);
        prop_assert!(Price::FREE.is_within(&a));
    }
}

#[test]
fn worked_examples() {
    let price = Price {
        input_msat: 20_000,
        output_msat: 100_000,
    };
    // 40 tokens in, 12 out: 0.8 + 1.2 msat.
    assert_eq!(price.cost(40, 12), Some(Msat(2)));
    assert_eq!(price.cost(40, 13), Some(Msat(3)));
    assert_eq!(price.cost(0, 0), Some(Msat::ZERO));
    assert_eq!(Price::FREE.cost(u64::MAX, u64::MAX), Some(Msat::ZERO));
    assert_eq!(Msat::MAX.checked_add(Msat(1)), None);
}

#[test]
fn amounts_are_shown_in_satoshis() {
    let shown = [
        (0, "0 sat"),
        (1, "0.001 sat"),
        (1_500, "1.5 sat"),
        (21_000, "21 sat"),
    ];
    for (msat, text) in shown {
        assert_eq!(Msat(msat).to_string(), text);
    }
}
