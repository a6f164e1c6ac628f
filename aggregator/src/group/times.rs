//! When a group must be how far.

use std::time::Duration;

use infernet_node::clock;
use infernet_protocol::job::Millis;
use nostr::Timestamp;

use super::machine::Terms;
use crate::house::House;
use crate::open::Open;

/// How long the invoice of a hold can be paid.
const PAY_WITHIN_MS: u64 = 10 * 60 * 1_000;

/// Seconds by which a group ends before its money could no longer be held.
const HELD_LESS_S: u64 = 1_800;

/// Seconds that money is held beyond a group's end: a claim at the last moment must not
/// cross the money on its way back.
const HELD_MORE_S: u64 = 60;

/// When a group that was opened then must be done: with its order, and while its money
/// can be held.
fn deadline(house: &House, order: &Open, opened: Timestamp) -> Timestamp {
    let held_s = house.money.longest_hold_s().saturating_sub(HELD_LESS_S);
    let held = Timestamp::from_secs(opened.as_secs().saturating_add(held_s));
    match order.is_paid() {
        true => order.deadline().min(held),
        false => order.deadline(),
    }
}

/// Until when money is held for a group that was opened then.
pub(super) fn held_until(house: &House, order: &Open, opened: Timestamp) -> Timestamp {
    let deadline = deadline(house, order, opened).as_secs();
    Timestamp::from_secs(deadline.saturating_add(HELD_MORE_S))
}

/// How long there is from now until a group that was opened then must be done.
pub(super) fn left(house: &House, order: &Open, opened: Timestamp) -> Duration {
    let deadline_ms = millis(deadline(house, order, opened));
    Duration::from_millis(deadline_ms.since(Millis(clock::unix_ms())))
}

/// What the life of a group that was opened then rests on.
pub(super) fn terms(house: &House, order: &Open, opened: Timestamp) -> Terms {
    let limits = &house.options.limits;
    let now = Millis(clock::unix_ms());
    let deadline = millis(deadline(house, order, opened));
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    // Of a short order, no more than a quarter is kept for handing over.
    let whole = deadline.since(millis(opened));
    let margin = ms(limits.margin).min(whole / 4);
    let before = |ms| Millis(deadline.0.saturating_sub(ms));
    Terms {
        is_paid: order.is_paid(),
        pay_until: now.plus(PAY_WITHIN_MS).min(before(margin)),
        work_until: before(margin),
        wait_until: before(margin / 2),
        deadline,
        fetch_ms: ms(limits.fetch_patience),
    }
}

const fn millis(at: Timestamp) -> Millis {
    Millis(at.as_secs().saturating_mul(1_000))
}
