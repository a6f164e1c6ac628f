//! Drives a group: does what its machine says, and tells it what came of that.
//!
//! A step is written to the store before anything is done about it. What a state asks
//! for can be done again, so that a process that dies goes on where it was.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use infernet_node::mortality;
use infernet_protocol::batch::{Blob, BlobKey, Delivery, Phase};
use infernet_protocol::job::Millis;
use infernet_protocol::money::Msat;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::machine::{Effect, Input, Machine, State};
use super::progress::Gauge;
use super::settling;
use crate::home;
use crate::house::House;
use crate::open::Open;
use crate::outcomes::Folder;
use crate::store::{self, Advance, GroupRow};
use crate::tally::Tally;
use crate::trouble::Trouble;

/// Inputs that may wait for a group; each kind of them comes a few times at most.
pub(super) const MAX_INPUTS: usize = 64;

/// How often the buyer is told how far the work is, and the wallet looked at in case
/// it said something that was not heard.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// How long what could not be done waits to be tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// Drives one group.
pub(super) struct Driver {
    pub house: Arc<House>,
    pub order: Arc<Open>,
    pub row: GroupRow,
    pub machine: Machine,
    pub folder: Folder,
    pub gauge: Arc<Gauge>,
    pub say: watch::Sender<Option<Phase>>,
    look: Arc<Notify>,
    inputs: mpsc::Sender<Input>,
    /// The hold's invoice.
    pub invoice: Option<String>,
    /// The preimage of its payment, or what stands for it.
    pub preimage: Option<BlobKey>,
    pub winding_up: CancellationToken,
    pub abandoned: CancellationToken,
    /// What is to be done, and was not yet.
    due: VecDeque<Effect>,
    /// When what could not be done is tried again.
    again_at: Instant,
}

/// What a driver is made of.
pub(super) struct Parts {
    pub house: Arc<House>,
    pub order: Arc<Open>,
    pub row: GroupRow,
    pub machine: Machine,
    pub gauge: Arc<Gauge>,
    pub say: watch::Sender<Option<Phase>>,
    pub look: Arc<Notify>,
    pub inputs: mpsc::Sender<Input>,
}

/// What runs beside the driver, and what it came to.
pub(super) enum Finding {
    Worked(Result<(), store::Error>),
    Uploaded(Result<Blob, store::Error>),
}

impl Driver {
    pub fn new(parts: Parts) -> Self {
        let work = home::work(&parts.house.options.home);
        Self {
            folder: Folder::of(&work, &parts.order.id, parts.row.asked.number),
            house: parts.house,
            order: parts.order,
            row: parts.row,
            machine: parts.machine,
            gauge: parts.gauge,
            say: parts.say,
            look: parts.look,
            inputs: parts.inputs,
            invoice: None,
            preimage: None,
            winding_up: CancellationToken::new(),
            abandoned: CancellationToken::new(),
            due: VecDeque::new(),
            again_at: Instant::now(),
        }
    }

    /// Drives it to its end.
    pub async fn run(mut self, first: Vec<Effect>, mut heard: mpsc::Receiver<Input>) {
        let (found, mut findings) = mpsc::channel(4);
        let look = self.look.clone();
        self.due.extend(first);
        self.tell();
        loop {
            self.do_what_is_due(&found).await;
            if self.due.is_empty() && self.machine.state().is_over() {
                return;
            }
            let input = tokio::select! {
                Some(input) = heard.recv() => Some(input),
                Some(finding) = findings.recv() => self.learn(finding).await,
                () = look.notified() => self.look_at_hold().await,
                () = sleep_until(self.again_at), if !self.due.is_empty() => None,
                () = sleep_until(self.wakes_at()) => {
                    self.tell_progress();
                    self.look_at_hold().await.or(Some(Input::Tick))
                }
            };
            if let Some(input) = input {
                self.take(input).await;
            }
        }
    }

    async fn do_what_is_due(&mut self, found: &mpsc::Sender<Finding>) {
        while Instant::now() >= self.again_at
            && let Some(effect) = self.due.pop_front()
        {
            if let Err(error) = self.perform(effect, found).await {
                tracing::error!(
                    order = %self.order.id, group = self.row.asked.number, ?effect, %error,
                    "cannot go on with a group yet"
                );
                self.again(effect);
            }
        }
    }

    /// Does something once more in a while, before anything else.
    fn again(&mut self, effect: Effect) {
        self.due.push_front(effect);
        self.again_at = Instant::now() + PAUSE;
    }

    /// Does something that is not waiting to be done already.
    pub fn do_soon(&mut self, effect: Effect) {
        if !self.due.contains(&effect) {
            self.due.push_back(effect);
        }
    }

    async fn take(&mut self, input: Input) {
        match self.step(input).await {
            Ok(more) => {
                let state = self.machine.state();
                self.due.retain(|effect| effect.is_due_in(state));
                self.due.extend(more);
            }
            Err(error) => {
                tracing::error!(order = %self.order.id, %error, "a step cannot be kept yet");
                sleep(PAUSE).await;
                self.hear_again(input);
            }
        }
    }

    pub fn hear_again(&self, input: Input) {
        let _ = self.inputs.try_send(input);
    }

    fn wakes_at(&self) -> Instant {
        let now = Millis(clock::unix_ms());
        let due = self.machine.next_deadline();
        let ms = due.map_or(u64::MAX, |due| due.since(now));
        Instant::now() + Duration::from_millis(ms.max(1)).min(TELL_EVERY)
    }

    /// Steps, and writes the step down before it counts.
    async fn step(&mut self, input: Input) -> Result<Vec<Effect>, Trouble> {
        let mut next = self.machine.clone();
        let effects = next.step(Millis(clock::unix_ms()), input);
        // Once the end is written down nobody would do this any more.
        let (first, effects): (Vec<_>, Vec<_>) = effects
            .into_iter()
            .partition(|effect| effect.is_before_the_end());
        for effect in first {
            match effect {
                Effect::Release => self.release().await?,
                _ => self.abandon(),
            }
        }
        if let Some(advance) = self.advance(&next, &effects).await? {
            let (order, group) = (&self.order.id, self.row.asked.number);
            let store = &self.house.store;
            store.advance(order, group, &advance, clock::now()).await?;
            self.row.state = next.state();
            if let Advance::HandedOver(_, event) | Advance::Settled(event) = advance {
                self.house.publish(*event);
            }
        }
        let is_new = next.state() != self.machine.state();
        self.machine = next;
        if is_new {
            if let Some(Effect::Cancel(why)) = effects.last() {
                self.row.reason = Some(why.reason().to_owned());
            }
            tracing::info!(
                order = %self.order.id, group = self.row.asked.number,
                state = self.machine.state().as_str(), "a group goes on"
            );
            mortality::point(match self.machine.state() {
                State::Unpaid => "group-unpaid",
                State::Working => "group-working",
                State::Delivering => "group-delivering",
                State::Delivered => "group-delivered",
                State::Claiming => "group-claiming",
                State::Settled => "group-settled",
                State::Cancelled => "group-cancelled",
            });
            self.tell();
        }
        Ok(effects)
    }

    /// What a step changes in the store, if it changes the state.
    async fn advance(
        &self,
        next: &Machine,
        effects: &[Effect],
    ) -> Result<Option<Advance>, Trouble> {
        let (from, to) = (self.machine.state(), next.state());
        if from == to {
            return Ok(None);
        }
        let missing = |what| Trouble::Store(store::Error::Damaged(what));
        let delivery = || {
            self.row
                .delivery
                .clone()
                .ok_or_else(|| missing("a delivery"))
        };
        let tally = || self.row.tally.clone().ok_or_else(|| missing("a tally"));
        Ok(match to {
            State::Unpaid => None,
            State::Working => Some(Advance::Held),
            State::Delivering => Some(Advance::Worked(tally()?)),
            State::Delivered => Some(Advance::Delivered {
                delivery: delivery()?,
                claim_at: next.claim_at(),
            }),
            State::Claiming => Some(Advance::Claiming),
            State::Settled => {
                let (house, opens_with) = (&self.house, self.opens_with());
                let event = settling::settlement(house, &self.order, &self.row, opens_with);
                let event = Box::new(event.await?);
                Some(match from {
                    State::Delivering => Advance::HandedOver(delivery()?, event),
                    _ => Advance::Settled(event),
                })
            }
            State::Cancelled => effects.iter().find_map(|effect| match effect {
                Effect::Cancel(why) => Some(Advance::Cancelled(why.reason())),
                _ => None,
            }),
        })
    }

    /// What came of what ran beside.
    async fn learn(&mut self, finding: Finding) -> Option<Input> {
        match finding {
            Finding::Worked(Ok(())) => match self.count().await {
                Ok(input) => Some(input),
                Err(error) => {
                    tracing::error!(order = %self.order.id, %error, "the work cannot be counted");
                    self.again(Effect::Work);
                    None
                }
            },
            Finding::Worked(Err(error)) => {
                tracing::error!(order = %self.order.id, %error, "the work on a group broke off");
                self.again(Effect::Work);
                None
            }
            Finding::Uploaded(Ok(output)) => {
                let tally = self.row.tally.clone()?;
                self.row.delivery = Some(Delivery {
                    output,
                    charge: tally.charge,
                });
                Some(Input::Uploaded)
            }
            Finding::Uploaded(Err(error)) => {
                tracing::error!(order = %self.order.id, %error, "a group cannot be handed over");
                Some(Input::NotUploaded)
            }
        }
    }

    /// What the lines came to.
    pub async fn count(&mut self) -> Result<Input, Trouble> {
        let (order, asked) = (&self.order, &self.row.asked);
        let store = &self.house.store;
        let shards = store.shards(&order.id, asked.number).await?;
        let rejected = store.rejected(&order.id, asked.number).await?;
        let ended = shards.iter().filter_map(|shard| shard.ended.as_ref());
        let tally = Tally::of(asked.size.lines, ended, rejected, order.rates());
        let most = order.most_for(&asked.size).unwrap_or_default();
        let tally = match order.is_paid() {
            true => tally.capped(most),
            false => tally.capped(Msat::ZERO),
        };
        let input = Input::Worked {
            any_accepted: tally.handed_over() > 0,
            is_charged: tally.is_charged(),
        };
        self.row.tally = Some(tally);
        Ok(input)
    }
}
