//! How large a provider's bond is.
//!
//! A provider that cheats in one result gains at most that result's price, and is caught with the probability q = p·d:
//! p, that the result is checked, and d, that the check sees it. So it cheats (1 − q) / q times on average before it is
//! caught. A bond of as many prices makes that worth nothing, and half as much again makes it a loss.
//!
//! p is the least of its latest results': who is checked for certain now and then is not for that checked always.
//!
//! It is held back from at most half of what is owed at a time, so that a newcomer is paid from the beginning. It is
//! released when checks become denser, and when no work has come for some days. Where nothing is checked, no bond
//! could be forfeited, and none is held back.

use std::time::Duration;

use infernet_payments::ledger::Dues;
use infernet_protocol::money::Msat;
use nostr::Timestamp;

/// How probable it is that a check sees a cheat, in thousandths.
const DETECTION_PER_MILLE: u128 = 990;

/// How long after the last accepted work it is held back.
const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// What is certain: millionths times thousandths.
const MILLION_PER_MILLE: u128 = 1_000_000_000;

/// The bond that makes cheating a loss, for results of this mean price that are checked with this chance, in
/// millionths: 1.5 · price · (1 − q) / q, rounded up.
pub fn required(mean: Msat, chance_ppm: u32) -> Msat {
    let caught = u128::from(chance_ppm) * DETECTION_PER_MILLE;
    if caught == 0 {
        return Msat::ZERO;
    }
    let missed = MILLION_PER_MILLE.saturating_sub(caught);
    let bond = (u128::from(mean.0) * 3 * missed).div_ceil(2 * caught);
    Msat(u64::try_from(bond).unwrap_or(Msat::MAX.0)).min(Msat::MAX)
}

/// The bond after the next payout: what is required, but of what is held back newly no more than half of what is owed.
pub fn after_payout(dues: &Dues, now: Timestamp) -> Msat {
    if now >= dues.last_at + KEPT {
        return Msat::ZERO;
    }
    let half = Msat(dues.unpaid().0 / 2);
    required(dues.mean, dues.chance_ppm).min(dues.bond.max(half))
}

#[cfg(test)]
mod tests {
    use nostr::EventId;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn dues(accepted: u64, paid: u64, bond: u64) -> Dues {
        Dues {
            award: EventId::all_zeros(),
            accepted: Msat(accepted),
            bond: Msat(bond),
            forfeited: Msat::ZERO,
            paid: Msat(paid),
            is_being_paid: false,
            rejected: vec![],
            last_at: NOW,
            mean: Msat(1_000),
            chance_ppm: 30_000,
        }
    }

    #[test]
    fn the_rarer_the_checks_the_larger_the_bond() {
        let price = Msat(1_000);
        // 1.5 · 1,000 · 0.01 / 0.99.
        assert_eq!(required(price, 1_000_000), Msat(16));
        assert_eq!(required(price, 500_000), Msat(1_531));
        assert_eq!(required(price, 30_000), Msat(49_006));
        assert_eq!(required(price, 0), Msat::ZERO);
        assert_eq!(required(Msat::MAX, 1), Msat::MAX);
    }

    #[test]
    fn cheating_brings_less_than_it_costs_at_any_chance() {
        let price = Msat(10_000);
        for chance_ppm in [1_000_000, 700_000, 300_000, 100_000, 30_000, 1_000] {
            let caught = f64::from(chance_ppm) / 1e6 * 0.99;
            let gained = 10_000.0 * (1.0 - caught) / caught;
            let bond = required(price, chance_ppm).0;
            assert!(bond as f64 >= 1.5 * gained, "{chance_ppm}: {bond} {gained}");
        }
    }

    #[test]
    fn half_of_what_is_owed_is_paid_at_once_and_a_failed_payment_keeps_no_more() {
        assert_eq!(after_payout(&dues(100, 0, 0), NOW), Msat(50));
        // The payment failed: the same again.
        assert_eq!(after_payout(&dues(100, 0, 50), NOW), Msat(50));
        // It was paid, and nothing has come since.
        assert_eq!(after_payout(&dues(100, 50, 50), NOW), Msat(50));
        // 100 more: 25 of them are held back.
        assert_eq!(after_payout(&dues(200, 50, 50), NOW), Msat(75));
        // Enough is there.
        assert_eq!(after_payout(&dues(1_000_000, 0, 0), NOW), Msat(49_006));
    }

    #[test]
    fn it_is_released_when_checks_become_denser_and_after_some_days() {
        let mut all_checked = dues(100_000, 50_000, 49_006);
        all_checked.chance_ppm = 1_000_000;
        assert_eq!(after_payout(&all_checked, NOW), Msat(16));
        let old = dues(100_000, 50_000, 49_006);
        assert_eq!(after_payout(&old, NOW + KEPT), Msat::ZERO);
    }
}
