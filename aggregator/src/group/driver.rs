//! Drives a group: does what its machine says, and tells it what came of that.
//!
//! A step is written to the store before anything is done about it. What a state asks
//! for can be done again, so that a process that dies goes on where it was.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use infernet_node::mortality;
use infernet_protocol::batch::{
    Blob, BlobKey, Delivery, GroupStanding, Lines, Phase, Progress, Reply,
};
use infernet_protocol::job::Millis;
use infernet_protocol::payload::Payload;
use infernet_protocol::seal::blob;
use nostr::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::machine::{Effect, Input, Machine, State, Terms};
use super::progress::Gauge;
use super::work::Work;
use super::{delivery, settling};
use crate::home;
use crate::house::House;
use crate::money::Hold;
use crate::open::Open;
use crate::outcomes::Folder;
use crate::shards::{Measure, cut};
use crate::store::{self, Advance, GroupRow};
use crate::tally::Tally;
use crate::trouble::Trouble;

/// Inputs that may wait for a group; each kind of them comes a few times at most.
const MAX_INPUTS: usize = 64;

/// How often the buyer is told how far the work is, and the wallet looked at in case
/// it said something that was not heard.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// How long a failed effect waits to be tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// Seconds by which a group ends before its money could no longer be held.
const HELD_LESS_S: u64 = 1_800;

/// Seconds that money is held beyond a group's end.
const HELD_MORE_S: u64 = 60;

/// How long the invoice of a hold can be paid.
const PAY_WITHIN_MS: u64 = 10 * 60 * 1_000;

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

/// Begins a group that was just opened.
pub(crate) fn begin(house: &Arc<House>, order: Arc<Open>, row: GroupRow) -> Handle {
    drive(house, order, row)
}

/// Goes on with the groups that an earlier process left.
///
/// # Errors
/// [`Trouble`].
pub(crate) async fn recover(house: &Arc<House>) -> Result<(), Trouble> {
    for row in house.store.open_orders().await? {
        let Some(order) = Open::of(&row).map(Arc::new) else {
            tracing::error!(order = %row.order.id(), "an order cannot be read any more");
            continue;
        };
        for row in house.store.open_groups(&order.id).await? {
            tracing::info!(order = %order.id, group = row.asked.number, state = ?row.state, "goes on");
            drive(house, order.clone(), row);
        }
    }
    Ok(())
}

fn drive(house: &Arc<House>, order: Arc<Open>, row: GroupRow) -> Handle {
    let (inputs, heard) = mpsc::channel(MAX_INPUTS);
    let (say, phase) = watch::channel(None);
    let look = Arc::new(Notify::new());
    let gauge = Arc::new(Gauge::new(row.asked.size.lines));
    let handle = Handle {
        inputs: inputs.clone(),
        phase,
        gauge: gauge.clone(),
        number: row.asked.number,
        look: look.clone(),
    };
    let key = (order.id, row.asked.number);
    house.groups().insert(key, handle.clone());
    let terms = terms(house, &order, row.opened);
    let is_charged = row.tally.as_ref().map(|t| t.charge.total().0 > 0);
    let claim_at = row.claim_at.unwrap_or(terms.deadline);
    let (machine, first) = Machine::recovered(
        terms,
        row.state,
        is_charged.unwrap_or(terms.is_paid) && terms.is_paid,
        claim_at,
    );
    let work = home::work(&house.options.home);
    let driver = Driver {
        folder: Folder::of(&work, &order.id, row.asked.number),
        house: house.clone(),
        order,
        row,
        machine,
        gauge,
        say,
        look,
        inputs,
        invoice: None,
        preimage: None,
        winding_up: CancellationToken::new(),
        abandoned: CancellationToken::new(),
    };
    let of = house.clone();
    house.tasks.spawn(async move {
        let (order, group) = key;
        tokio::select! {
            () = driver.run(first, heard) => {}
            () = of.closing.cancelled() => return,
        }
        of.groups().remove(&(order, group));
        settling::look(&of, &order).await;
    });
    handle
}

/// When a group must be done: with its order, and while its money can be held.
fn deadline(house: &House, order: &Open, opened: Timestamp) -> Timestamp {
    let held_s = house.money.longest_hold_s().saturating_sub(HELD_LESS_S);
    match order.is_paid() {
        true => order
            .deadline()
            .min(Timestamp::from_secs(opened.as_secs() + held_s)),
        false => order.deadline(),
    }
}

fn terms(house: &House, order: &Open, opened: Timestamp) -> Terms {
    let limits = &house.options.limits;
    let now = Millis(clock::unix_ms());
    let deadline = Millis(
        deadline(house, order, opened)
            .as_secs()
            .saturating_mul(1_000),
    );
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    // Of a short order, no more than a quarter is kept for handing over.
    let margin = ms(limits.margin).min(deadline.since(now) / 4);
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

struct Driver {
    house: Arc<House>,
    order: Arc<Open>,
    row: GroupRow,
    machine: Machine,
    folder: Folder,
    gauge: Arc<Gauge>,
    say: watch::Sender<Option<Phase>>,
    look: Arc<Notify>,
    inputs: mpsc::Sender<Input>,
    /// The hold's invoice.
    invoice: Option<String>,
    /// The preimage of its payment, or what stands for it.
    preimage: Option<BlobKey>,
    winding_up: CancellationToken,
    abandoned: CancellationToken,
}

/// What runs beside the driver, and what it came to.
enum Finding {
    Worked(Result<(), store::Error>),
    Uploaded(Result<Blob, store::Error>),
}

impl Driver {
    async fn run(mut self, first: Vec<Effect>, mut heard: mpsc::Receiver<Input>) {
        let (found, mut findings) = mpsc::channel(4);
        let look = self.look.clone();
        self.tell();
        let mut effects: VecDeque<Effect> = first.into();
        // When what could not be done is tried again.
        let mut again_at = Instant::now();
        loop {
            while let Some(effect) = effects.pop_front() {
                if let Err(error) = self.perform(effect, &found).await {
                    tracing::error!(
                        order = %self.order.id, group = self.row.asked.number, ?effect, %error,
                        "cannot go on with a group yet"
                    );
                    effects.push_front(effect);
                    again_at = Instant::now() + PAUSE;
                    break;
                }
            }
            if effects.is_empty() && self.machine.state().is_over() {
                return;
            }
            let input = tokio::select! {
                Some(input) = heard.recv() => Some(input),
                Some(finding) = findings.recv() => self.learn(finding).await,
                () = look.notified() => self.look_at_hold().await,
                () = sleep_until(again_at), if !effects.is_empty() => None,
                () = sleep_until(self.wakes_at()) => {
                    self.tell_progress();
                    self.look_at_hold().await.or(Some(Input::Tick))
                }
            };
            let Some(input) = input else { continue };
            match self.step(input).await {
                Ok(more) => {
                    let state = self.machine.state();
                    effects.retain(|effect| effect.is_due_in(state));
                    effects.extend(more);
                }
                Err(error) => {
                    tracing::error!(order = %self.order.id, %error, "a step cannot be kept yet");
                    sleep(PAUSE).await;
                    self.hear_again(input);
                }
            }
        }
    }

    fn hear_again(&self, input: Input) {
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
        let (first, effects): (Vec<_>, Vec<_>) =
            effects.into_iter().partition(|effect| effect.is_before_the_end());
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
        let delivery = || self.row.delivery.clone().ok_or_else(|| missing("a delivery"));
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

    fn abandon(&self) {
        self.winding_up.cancel();
        self.abandoned.cancel();
    }

    async fn perform(
        &mut self,
        effect: Effect,
        found: &mpsc::Sender<Finding>,
    ) -> Result<(), Trouble> {
        match effect {
            Effect::Hold => self.hold().await?,
            Effect::Work => self.work(found).await?,
            Effect::WindUp => self.winding_up.cancel(),
            Effect::Abandon => self.abandon(),
            Effect::Deliver => self.deliver(found).await?,
            Effect::Claim => self.claim().await?,
            Effect::Release => self.release().await?,
            Effect::Settle => self.tell(),
            Effect::Cancel(why) => {
                self.row.reason = Some(why.reason().to_owned());
                self.house
                    .store
                    .forget_shards(&self.order.id, self.row.asked.number)
                    .await?;
                self.folder.remove();
                self.tell();
            }
        }
        Ok(())
    }

    /// Has the money held: makes the invoice, or finds how its payment stands.
    async fn hold(&mut self) -> Result<(), Trouble> {
        let most = self.order.most_for(&self.row.asked.size);
        let most = most.ok_or(Trouble::Store(store::Error::Damaged("a group's size")))?;
        let (money, group) = (&self.house.money, self.row.asked.number);
        let until = deadline(&self.house, &self.order, self.row.opened);
        // A claim at the last moment must not cross the money on its way back.
        let until = Timestamp::from_secs(until.as_secs() + HELD_MORE_S);
        let hold = money.hold(&self.order, group, most, until).await?;
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
    async fn look_at_hold(&mut self) -> Option<Input> {
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
            (_, Hold::Gone) => Input::HoldGone,
            _ => return None,
        };
        Some(input)
    }

    async fn work(&mut self, found: &mpsc::Sender<Finding>) -> Result<(), Trouble> {
        let (house, order) = (self.house.clone(), self.order.clone());
        let group = self.row.asked.number;
        let lines = match self.folder.lines() {
            Some(lines) => lines,
            None => self.fetch().await?,
        };
        let task = order.quote.task;
        let measures: Vec<_> = lines.iter().map(|line| Measure::of(line, task)).collect();
        let need = order.need(measures.iter().flatten());
        let tokens = house.options.limits.shard_tokens;
        let shards = cut(&measures, tokens, house.floor.places(&need));
        house.store.cut(&order.id, group, &shards).await?;
        self.measure(&measures).await?;
        let now = Millis(clock::unix_ms());
        let until = deadline(&house, &order, self.row.opened);
        let until = Millis(until.as_secs().saturating_mul(1_000)).since(now);
        let work = Work {
            house: house.clone(),
            order,
            group,
            lines: Arc::new(lines),
            measures: Arc::new(measures),
            folder: self.folder.clone(),
            gauge: self.gauge.clone(),
            winding_up: self.winding_up.clone(),
            abandoned: self.abandoned.clone(),
            until: Instant::now() + Duration::from_millis(until),
        };
        let found = found.clone();
        let closing = house.closing.clone();
        self.house.tasks.spawn(async move {
            // Lines of so many groups are in memory at a time.
            let worked = tokio::select! {
                worked = work.run() => worked,
                () = closing.cancelled() => return,
            };
            let _ = found.send(Finding::Worked(worked)).await;
        });
        Ok(())
    }

    /// Says how much work there is, and how much of it was done before.
    async fn measure(&self, measures: &[Option<Measure>]) -> Result<(), Trouble> {
        let (order, group) = (&self.order.id, self.row.asked.number);
        let rows = self.house.store.shards(order, group).await?;
        let weight = |lines: &[u32]| -> u64 {
            let measures = lines
                .iter()
                .filter_map(|n| measures.get(*n as usize)?.as_ref());
            measures.map(|measure| measure.weight).sum()
        };
        let left = rows.iter().filter(|row| row.ended.is_none());
        let left = left.map(|row| weight(&row.lines)).sum();
        let before = rows.iter().filter_map(|row| {
            let ended = row.ended.as_ref()?;
            Some((ended, row.lines.len() as u64))
        });
        self.gauge.start(left, before);
        let unfit = measures.iter().filter(|measure| measure.is_none()).count();
        self.gauge.failed(unfit as u64);
        Ok(())
    }

    /// Fetches the lines once more, if their file is gone.
    async fn fetch(&self) -> Result<Lines, Trouble> {
        let asked = &self.row.asked;
        let bytes = self.house.blobs.get(&asked.input).await;
        let bytes = bytes.map_err(std::io::Error::other)?;
        let plain = blob::decrypt(asked.key.as_bytes(), bytes).map_err(std::io::Error::other)?;
        let lines = Lines::from_bytes(&plain).map_err(std::io::Error::other)?;
        self.folder.keep_lines(&plain)?;
        Ok(lines)
    }

    /// What came of what ran beside.
    async fn learn(&mut self, finding: Finding) -> Option<Input> {
        match finding {
            Finding::Worked(Ok(())) => match self.count().await {
                Ok(input) => Some(input),
                Err(error) => {
                    tracing::error!(order = %self.order.id, %error, "the work cannot be counted");
                    Some(Input::Stop)
                }
            },
            Finding::Worked(Err(error)) => {
                tracing::error!(order = %self.order.id, %error, "the work on a group broke off");
                Some(Input::Worked {
                    any_accepted: false,
                    is_charged: false,
                })
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
    async fn count(&mut self) -> Result<Input, Trouble> {
        let (order, asked) = (&self.order, &self.row.asked);
        let store = &self.house.store;
        let shards = store.shards(&order.id, asked.number).await?;
        let rejected = store.rejected(&order.id, asked.number).await?;
        let ended = shards.iter().filter_map(|shard| shard.ended.as_ref());
        let tally = Tally::of(asked.size.lines, ended, rejected, order.rates());
        let most = order.most_for(&asked.size).unwrap_or_default();
        let tally = match order.is_paid() {
            true => tally.capped(most),
            false => tally.capped(infernet_protocol::money::Msat::ZERO),
        };
        let input = Input::Worked {
            any_accepted: tally.handed_over() > 0,
            is_charged: tally.charge.total().0 > 0,
        };
        self.row.tally = Some(tally);
        Ok(input)
    }

    async fn deliver(&mut self, found: &mpsc::Sender<Finding>) -> Result<(), Trouble> {
        let (order, group) = (self.order.id, self.row.asked.number);
        let is_charged = self
            .row
            .tally
            .as_ref()
            .is_some_and(|t| t.charge.total().0 > 0);
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
    fn opens_with(&self) -> BlobKey {
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

    async fn release(&mut self) -> Result<(), Trouble> {
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
                reason: row
                    .reason
                    .clone()
                    .unwrap_or_else(|| "it was cancelled".to_owned()),
            }),
        }
    }

    /// Tells the buyer how the group stands.
    fn tell(&self) {
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

    fn tell_progress(&self) {
        if self.machine.state() == State::Working {
            self.tell();
        }
    }
}

/// The standing of a group that is over, or of one that nobody drives at the moment.
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
            reason: row
                .reason
                .clone()
                .unwrap_or_else(|| "it was cancelled".to_owned()),
        },
        _ => Phase::Working,
    };
    GroupStanding {
        number: row.asked.number,
        phase,
        progress: Progress {
            lines: row.asked.size.lines,
            running: 0,
            done: tally.lines,
            verified: tally.handed_over(),
            failed: tally.failed,
            cost_msat: tally.charge.work_msat,
            seconds_left: None,
        },
    }
}
