//! What others hold of a group that is under way, and how one is begun.

use std::sync::Arc;

use infernet_protocol::batch::{BlobKey, GroupStanding, Phase, Progress};
use tokio::sync::{Notify, mpsc, watch};

use super::driver::{Driver, MAX_INPUTS, Parts};
use super::machine::{Input, Machine, State};
use super::progress::Gauge;
use super::{settling, times};
use crate::house::House;
use crate::open::Open;
use crate::store::GroupRow;
use crate::trouble::Trouble;

/// A group that is under way. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    inputs: mpsc::Sender<Input>,
    phase: watch::Receiver<Option<Phase>>,
    gauge: Arc<Gauge>,
    number: u32,
    look: Arc<Notify>,
}

impl Handle {
    /// Has it look how its money stands.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Tells it something; whatever does not fit will be asked again.
    pub fn tell(&self, input: Input) {
        let _ = self.inputs.try_send(input);
    }

    /// How far its work is.
    pub fn progress(&self) -> Progress {
        self.gauge.read()
    }

    /// How it stands, as soon as there is something to say.
    pub async fn standing(&self) -> Option<GroupStanding> {
        let mut phase = self.phase.clone();
        let phase = phase.wait_for(Option::is_some).await.ok()?.clone()?;
        Some(GroupStanding {
            number: self.number,
            phase,
            progress: self.progress(),
        })
    }
}

/// Goes on with the groups that an earlier process left.
///
/// # Errors
/// A store that refuses.
pub(crate) async fn recover(house: &Arc<House>) -> Result<(), Trouble> {
    for row in house.store.open_orders().await? {
        let Some(order) = Open::of(&row).map(Arc::new) else {
            tracing::error!(order = %row.order.id(), "an order cannot be read any more");
            continue;
        };
        for row in house.store.open_groups(&order.id).await? {
            tracing::info!(order = %order.id, group = row.asked.number, state = ?row.state, "goes on");
            let handle = drive(house, order.clone(), row);
            if order.is_stopped {
                handle.tell(Input::Stop);
            }
        }
    }
    Ok(())
}

/// Drives a group that was just opened, or goes on with it.
pub(crate) fn drive(house: &Arc<House>, order: Arc<Open>, row: GroupRow) -> Handle {
    let (inputs, heard) = mpsc::channel(MAX_INPUTS);
    let (say, phase) = watch::channel(None);
    let handle = Handle {
        inputs: inputs.clone(),
        phase,
        gauge: Arc::new(Gauge::new(row.asked.size.lines)),
        number: row.asked.number,
        look: Arc::new(Notify::new()),
    };
    let key = (order.id, row.asked.number);
    house.groups().insert(key, handle.clone());
    let terms = times::terms(house, &order, row.opened);
    let is_charged = match &row.tally {
        Some(tally) => tally.is_charged(),
        None => true,
    };
    let claim_at = row.claim_at.unwrap_or(terms.deadline);
    let is_charged = is_charged && terms.is_paid;
    let (machine, first) = Machine::recovered(terms, row.state, is_charged, claim_at);
    let driver = Driver::new(Parts {
        house: house.clone(),
        order,
        row,
        machine,
        gauge: handle.gauge.clone(),
        say,
        look: handle.look.clone(),
        inputs,
    });
    let house = house.clone();
    house.clone().tasks.spawn(async move {
        tokio::select! {
            () = driver.run(first, heard) => {}
            () = house.closing.cancelled() => return,
        }
        house.groups().remove(&key);
        settling::look(&house, &key.0).await;
    });
    handle
}

/// The standing of a group that nobody drives: it is over.
pub(crate) fn standing_of(row: &GroupRow, opens_with: BlobKey) -> GroupStanding {
    let tally = row.tally.clone().unwrap_or_default();
    let delivery = row.delivery.clone();
    let phase = match (row.state, delivery) {
        (State::Settled, Some(delivery)) => Phase::Settled {
            delivery,
            preimage: opens_with,
        },
        (State::Delivered | State::Claiming, Some(delivery)) => Phase::Delivered(delivery),
        (State::Cancelled, _) => Phase::Cancelled {
            reason: reason(row),
        },
        // One that ended this moment is told of with the next question.
        _ => Phase::Working,
    };
    GroupStanding {
        number: row.asked.number,
        phase,
        progress: Progress {
            lines: row.asked.size.lines,
            running: 0,
            done: tally.lines,
            verified: tally.accepted,
            failed: tally.failed,
            cost_msat: tally.charge.work_msat,
            seconds_left: None,
        },
    }
}

/// Why a group was cancelled.
pub(super) fn reason(row: &GroupRow) -> String {
    let reason = row.reason.clone();
    reason.unwrap_or_else(|| "it was cancelled".to_owned())
}
