//! What a group's machine asks for, done.

use infernet_protocol::batch::{BlobKey, GroupStanding, Phase, Reply};
use tokio::sync::mpsc;

use super::driver::{Driver, Finding};
use super::handle::reason;
use super::job::Job;
use super::machine::{Effect, Input, State};
use super::{delivery, times};
use crate::money::Hold;
use crate::store;
use crate::tally::Tally;
use crate::treasury;
use crate::trouble::Trouble;

impl Driver {
    pub fn abandon(&self) {
        self.winding_up.cancel();
        self.abandoned.cancel();
    }

    /// Does one thing.
    ///
    /// # Errors
    /// What stands in the way; it is tried again.
    pub async fn perform(
        &mut self,
        effect: Effect,
        found: &mpsc::Sender<Finding>,
    ) -> Result<(), Trouble> {
        match effect {
            Effect::Hold => self.hold().await?,
            Effect::Work => self.work(found),
            Effect::WindUp => self.winding_up.cancel(),
            Effect::Abandon => self.abandon(),
            Effect::Deliver => self.deliver(found).await?,
            Effect::Claim => self.claim().await?,
            Effect::Release => self.release().await?,
            Effect::Settle => self.tell(),
            Effect::Cancel(_) => {
                self.house
                    .store
                    .forget_shards(&self.order.id, self.row.asked.number)
                    .await?;
                self.folder.remove();
            }
        }
        Ok(())
    }

    /// Has the money held: makes the invoice, or finds how its payment stands.
    async fn hold(&mut self) -> Result<(), Trouble> {
        let most = self.order.most_for(&self.row.asked.size);
        let most = most.ok_or(Trouble::Store(store::Error::Damaged("a group's size")))?;
        let (money, group) = (&self.house.money, self.row.asked.number);
        let until = times::held_until(&self.house, &self.order, self.row.opened);
        let hold = money.hold(&self.order, group, most, until).await?;
        if hold == Hold::Gone {
            // What came to nothing is on its way back; then there is another.
            return Err(treasury::Error::NotHeld.into());
        }
        self.heard_of(hold);
        self.tell();
        Ok(())
    }

    /// How the hold stands, as an input; remembers its invoice.
    fn heard_of(&mut self, hold: Hold) -> Option<Input> {
        let input = match hold {
            Hold::None => None,
            Hold::Invoiced(invoice) => {
                self.invoice = Some(invoice);
                None
            }
            Hold::Held => Some(Input::Held),
            Hold::Taken => Some(Input::Taken),
            Hold::Gone => Some(Input::HoldGone),
        };
        if let Some(input) = input {
            self.hear_again(input);
        }
        input
    }

    /// What the wallet says of the hold, where that would change anything.
    pub async fn look_at_hold(&mut self) -> Option<Input> {
        if !self.order.is_paid() {
            return None;
        }
        let standing = self
            .house
            .money
            .standing(&self.order.id, self.row.asked.number);
        let hold = standing.await.ok()?;
        let input = match (self.machine.state(), hold) {
            (State::Unpaid, Hold::Held) => Input::Held,
            (State::Claiming, Hold::Taken) => Input::Taken,
            // The wallet made no invoice, or that ran out: there is time for another.
            (State::Unpaid, Hold::Gone) => {
                self.do_soon(Effect::Hold);
                return None;
            }
            (_, Hold::Gone) => Input::HoldGone,
            _ => return None,
        };
        Some(input)
    }

    /// Does what is not done of the work, beside.
    fn work(&self, found: &mpsc::Sender<Finding>) {
        let job = Job {
            house: self.house.clone(),
            order: self.order.clone(),
            asked: self.row.asked.clone(),
            folder: self.folder.clone(),
            gauge: self.gauge.clone(),
            winding_up: self.winding_up.clone(),
            abandoned: self.abandoned.clone(),
            left: times::left(&self.house, &self.order, self.row.opened),
        };
        let (found, closing) = (found.clone(), self.house.closing.clone());
        self.house.tasks.spawn(async move {
            let worked = tokio::select! {
                worked = job.run() => worked,
                () = closing.cancelled() => return,
            };
            // Nobody listens any more where the group was cancelled meanwhile.
            let _ = found.send(Finding::Worked(worked)).await;
        });
    }

    /// Merges the answers, closes and uploads them, beside.
    async fn deliver(&mut self, found: &mpsc::Sender<Finding>) -> Result<(), Trouble> {
        let (order, group) = (self.order.id, self.row.asked.number);
        let tally = self.row.tally.as_ref();
        let is_charged = tally.is_some_and(Tally::is_charged);
        let preimage = match is_charged {
            true => self.house.money.preimage(&order, group).await?,
            false => self.row.token,
        };
        self.preimage = Some(preimage);
        let shards = self.house.store.shards(&order, group).await?;
        let (house, folder, found) = (self.house.clone(), self.folder.clone(), found.clone());
        let lines = usize::try_from(self.row.asked.size.lines).unwrap_or(usize::MAX);
        self.house.tasks.spawn(async move {
            let key = BlobKey::of_delivery(preimage.as_bytes());
            let uploaded = tokio::select! {
                uploaded = delivery::deliver(&house, folder, lines, shards, key) => uploaded,
                () = house.closing.cancelled() => return,
            };
            let _ = found.send(Finding::Uploaded(uploaded)).await;
        });
        Ok(())
    }

    /// What opens the answers.
    pub fn opens_with(&self) -> BlobKey {
        self.preimage.unwrap_or(self.row.token)
    }

    async fn claim(&mut self) -> Result<(), Trouble> {
        let (order, group) = (self.order.id, self.row.asked.number);
        if self.preimage.is_none() {
            self.preimage = Some(self.house.money.preimage(&order, group).await?);
        }
        let tally = self.row.tally.clone().unwrap_or_default();
        let hold = self.house.money.claim(&order, group, &tally).await?;
        self.heard_of(hold);
        Ok(())
    }

    pub async fn release(&mut self) -> Result<(), Trouble> {
        if self.row.tally.is_none() {
            self.count().await?;
        }
        let (order, group) = (&self.order.id, self.row.asked.number);
        let tally = self.row.tally.clone().unwrap_or_default();
        Ok(self.house.money.release(order, group, &tally).await?)
    }

    /// How the group stands, as the buyer is told.
    fn phase(&self) -> Option<Phase> {
        let row = &self.row;
        match self.machine.state() {
            State::Unpaid => self
                .invoice
                .clone()
                .map(|invoice| Phase::Unpaid { invoice }),
            State::Working | State::Delivering => Some(Phase::Working),
            State::Delivered | State::Claiming => row.delivery.clone().map(Phase::Delivered),
            State::Settled => row.delivery.clone().map(|delivery| Phase::Settled {
                delivery,
                preimage: self.opens_with(),
            }),
            State::Cancelled => Some(Phase::Cancelled {
                reason: reason(row),
            }),
        }
    }

    /// Tells the buyer how the group stands.
    pub fn tell(&self) {
        let phase = self.phase();
        self.say.send_replace(phase.clone());
        let Some(phase) = phase else { return };
        let standing = GroupStanding {
            number: self.row.asked.number,
            phase,
            progress: self.gauge.read(),
        };
        let voice = &self.house.voice;
        voice.tell(&self.order.buyer, self.order.id, Reply::Group(standing));
    }

    pub fn tell_progress(&self) {
        if self.machine.state() == State::Working {
            self.tell();
        }
    }
}
