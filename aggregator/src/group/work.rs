//! The work on a group: its shards are bought, checked, and bought again where that
//! came to nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use infernet_client::{Brought, Found};
use infernet_node::{clock, mortality};
use infernet_protocol::batch::{LineOutcome, Lines};
use infernet_protocol::bounds::MAX_GROUP_RESULTS;
use nostr::PublicKey;
use tokio::sync::Mutex;
use tokio::time::{Instant, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::progress::Gauge;
use super::results::{self, Purchased, Verdict};
use crate::Bought;
use crate::buying::{self, Failure, Purchase};
use crate::dispatch::{Need, Seat};
use crate::house::House;
use crate::late;
use crate::open::Open;
use crate::outcomes::{Folder, Outcomes, of_product, tokens};
use crate::shards::{self, Measure, weight};
use crate::store::{self, Dealing, Placed, ShardRow};
use crate::tally::{Done, Ended};

/// Purchases of one shard that may come to nothing.
const MAX_TRIES: u32 = 8;

/// How long another seller is waited for when one cannot do it, now or later.
const SECOND_PATIENCE: Duration = Duration::from_secs(10);

/// Providers that may say of a line that it cannot be done, before it is believed.
const MAX_LINE_TRIES: u32 = 2;

/// The longest that one purchase may take, as a multiple of what is expected.
const PATIENCE: u32 = 20;

/// What a purchase has at least, whatever is expected: a provider says every few
/// seconds that it is alive, and falls silent long before this.
const LEAST_PATIENCE: Duration = Duration::from_secs(120);

/// How long a shard that was at a provider when an earlier process died is waited for
/// before another is asked too, ...
const PRECEDENCE: Duration = Duration::from_secs(10);

/// ... and in all. What comes later is paid at our loss ([`late`]).
const TAKEN_UP_FOR: Duration = Duration::from_secs(60);

/// How often it is looked whether it has come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The work on one group.
#[derive(Clone)]
pub(super) struct Work {
    pub house: Arc<House>,
    pub order: Arc<Open>,
    pub group: u32,
    pub lines: Arc<Lines>,
    pub measures: Arc<Vec<Option<Measure>>>,
    pub folder: Folder,
    pub gauge: Arc<Gauge>,
    /// No more is begun.
    pub winding_up: CancellationToken,
    /// What runs is given up.
    pub abandoned: CancellationToken,
    /// By when all of it must have ended.
    pub until: Instant,
    /// One shard at a time looks for its first place, so that they are begun in order,
    /// and a place that becomes free wakes one and not all.
    pub turn: Arc<Mutex<()>>,
}

impl Work {
    /// Sees to the shards that have not ended. Ends when every one has.
    ///
    /// # Errors
    /// A store or a disk that refuses.
    pub async fn run(self, rows: Vec<ShardRow>) -> Result<(), store::Error> {
        let mut running = FuturesUnordered::new();
        for row in rows.into_iter().filter(|row| row.ended.is_none()) {
            running.push(self.clone().shard(row));
        }
        while let Some(more) = running.next().await {
            if let Some(row) = more? {
                running.push(self.clone().shard(row));
            }
        }
        Ok(())
    }

    fn store(&self) -> &store::Store {
        &self.house.store
    }

    /// What a purchase that brought something came to.
    async fn judged(&self, bought: Bought, purchased: &Purchased) -> Bid {
        let judged = results::judge(&self.house, &self.order, &bought, purchased).await;
        mortality::point("shard-judged");
        match judged {
            Ok(Some(verdict)) => Bid::Good(Box::new(bought), verdict),
            Ok(None) => Bid::Rejected,
            Err(error) => Bid::Broken(error),
        }
    }

    /// Waits for what a provider brings for an award; none if that is nothing.
    async fn found(&self, placed: &Placed) -> Option<Found> {
        let mut ticks = interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            match self.house.client.brought(placed.award).await {
                Ok(Some(Brought::Work(found))) => return Some(*found),
                Ok(Some(Brought::CalledOff | Brought::Nothing | Brought::Bad(_))) => return None,
                // The relays may have it in a moment.
                Ok(None) | Err(_) => {}
            }
        }
    }

    /// Sees to one shard; answers the shard of its lines that are tried again.
    fn shard(self, row: ShardRow) -> BoxFuture<'static, Result<Option<ShardRow>, store::Error>> {
        Box::pin(async move {
            let measures = row.lines.iter();
            let measures = measures.filter_map(|n| self.measures.get(*n as usize)?.as_ref());
            let need = self.order.need(measures);
            let shard = Shard {
                avoid: BTreeSet::new(),
                tries: row.tries,
                unfit: 0,
                last: "it was not done in time".to_owned(),
                work: self,
                row,
                need,
            };
            shard.run().await
        })
    }
}

/// One shard on its way.
struct Shard {
    work: Work,
    row: ShardRow,
    need: Need,
    /// Who is not asked again: they were rejected, or failed at it.
    avoid: BTreeSet<PublicKey>,
    tries: u32,
    /// How many said that they cannot do it, now or later.
    unfit: u32,
    /// Why the last purchase came to nothing.
    last: String,
}

/// What a purchase came to.
enum Bid {
    Good(Box<Bought>, Verdict),
    Rejected,
    Nothing(PublicKey, Failure),
    Broken(store::Error),
}

impl Shard {
    async fn run(mut self) -> Result<Option<ShardRow>, store::Error> {
        let mut bids: FuturesUnordered<BoxFuture<'static, Bid>> = FuturesUnordered::new();
        // When another provider is asked beside those who have it.
        let mut again_at = Instant::now();
        for placed in self.placed().await? {
            self.avoid.insert(placed.provider);
            again_at = Instant::now() + PRECEDENCE;
            bids.push(self.take_up(placed));
        }
        let (winding_up, abandoned) = (self.work.winding_up.clone(), self.work.abandoned.clone());
        let (floor, patience) = (
            self.work.house.floor.clone(),
            self.work.house.options.limits.seller_patience,
        );
        let pausing = self.work.house.shutdown.soft_token();
        loop {
            let may_begin = !winding_up.is_cancelled() && !pausing.is_cancelled();
            if bids.is_empty() && pausing.is_cancelled() {
                // It goes on at the next start.
                std::future::pending::<()>().await;
            }
            if bids.is_empty() && (!may_begin || self.tries >= MAX_TRIES) {
                return self.give_up().await;
            }
            let patience = match self.unfit {
                0 => patience,
                _ => patience.min(SECOND_PATIENCE),
            };
            let (need, avoid) = (self.need.clone(), self.avoid.clone());
            let is_bought = !bids.is_empty();
            let turn = self.work.turn.clone();
            let begin = async {
                // Who has somebody to avoid might wait where others need not.
                let _turn = match avoid.is_empty() {
                    true => Some(turn.lock().await),
                    false => None,
                };
                if is_bought {
                    sleep_until(again_at).await;
                }
                floor.seat(&need, &avoid, patience).await
            };
            tokio::select! {
                biased;
                () = abandoned.cancelled() => return self.give_up().await,
                Some(bid) = bids.next(), if is_bought => match bid {
                    Bid::Good(bought, verdict) => return self.done(*bought, verdict).await,
                    bid => {
                        self.came_to_nothing(bid).await?;
                        again_at = Instant::now();
                    }
                },
                () = winding_up.cancelled(), if !is_bought && may_begin => {}
                () = pausing.cancelled(), if !is_bought && may_begin => {}
                seat = begin, if may_begin && self.tries < MAX_TRIES => match seat {
                    Some(seat) => {
                        // Nobody gets one shard twice at a time.
                        self.avoid.insert(seat.offer.provider);
                        again_at = Instant::now() + self.straggles_after(&seat);
                        bids.push(self.bid(seat));
                    }
                    None if !is_bought => {
                        if self.unfit == 0 {
                            self.last = "nobody sells it any more".into();
                        }
                        return self.give_up().await;
                    }
                    None => again_at = Instant::now() + patience,
                },
            }
        }
    }

    /// After how long a provider is too slow to be waited for alone.
    fn straggles_after(&self, seat: &Seat) -> Duration {
        let limits = &self.work.house.options.limits;
        let expected = seat.expected.as_secs_f64() * limits.straggler;
        let after = Duration::try_from_secs_f64(expected).unwrap_or(Duration::MAX / 4);
        after
            .max(limits.straggler_least)
            .min(Duration::from_secs(24 * 3_600))
    }

    /// Buys and checks it at one provider.
    fn bid(&self, seat: Seat) -> BoxFuture<'static, Bid> {
        let work = self.work.clone();
        let numbers = self.row.lines.clone();
        let purchase = Purchase {
            order: work.order.id,
            buyer: work.order.buyer,
            group: work.group,
            shard: self.row.number,
            work: shards::work(work.order.quote.task, &work.lines, &numbers),
            prove: work.order.proves(),
            checkers: work.order.quote.checkers,
            within: self.within(&seat),
        };
        let weight = weight(&self.need.limits);
        let lines = numbers.len() as u64;
        Box::pin(async move {
            let provider = seat.offer.provider;
            let at_work = work.gauge.begins(lines);
            let bought = buying::buy(&work.house.client, work.store(), &seat, purchase).await;
            drop(at_work);
            match &bought {
                Ok(_) => seat.done(weight),
                Err(Failure::Declined(_)) => seat.declined(),
                Err(Failure::Failed(_)) => {
                    seat.failed();
                    let dealing = Dealing::Failed;
                    work.house.dealt(&provider, &seat.offer.name, dealing).await;
                }
                Err(Failure::Unfit(_) | Failure::Unaskable(_) | Failure::Stopped) => {}
            }
            let purchased = Purchased {
                name: seat.offer.name.clone(),
                promise: seat.offer.model.promise,
                took: seat.began().elapsed(),
                until: work.until,
                is_late: false,
            };
            // The place is free while what came of it is checked.
            drop(seat);
            match bought {
                Ok(bought) => work.judged(bought, &purchased).await,
                Err(failure) => Bid::Nothing(provider, failure),
            }
        })
    }

    /// What an earlier process has placed for it.
    async fn placed(&self) -> Result<Vec<Placed>, store::Error> {
        let (order, group) = (&self.work.order.id, self.work.group);
        let mut placed = self
            .work
            .store()
            .placed(order, group, self.row.number)
            .await?;
        placed.retain(|placed| placed.until > clock::now());
        let mut open = vec![];
        for placed in placed {
            let answered = self.work.house.money.is_answered(&placed.award).await;
            // It was rejected before.
            if !answered.unwrap_or(false) {
                open.push(placed);
            }
        }
        Ok(open)
    }

    /// Waits a while for what an earlier process has bought.
    fn take_up(&self, placed: Placed) -> BoxFuture<'static, Bid> {
        let work = self.work.clone();
        let lines = self.row.lines.len() as u64;
        Box::pin(async move {
            let at_work = work.gauge.begins(lines);
            let found = timeout(TAKEN_UP_FOR, work.found(&placed)).await;
            drop(at_work);
            let provider = placed.provider;
            let came_to = |why: &str| Bid::Nothing(provider, Failure::Declined(why.into()));
            let found = match found {
                Ok(Some(found)) => found,
                Ok(None) => return came_to("nothing good came of it"),
                Err(_) => return came_to("it did not come in time"),
            };
            let purchased = Purchased::found(&found, work.until);
            let bought = late::bought(&work.order, work.group, found);
            work.judged(bought, &purchased).await
        })
    }

    /// How long one purchase may take.
    fn within(&self, seat: &Seat) -> Duration {
        let left = self.work.until.saturating_duration_since(Instant::now());
        let patience = seat.expected.saturating_mul(PATIENCE).max(LEAST_PATIENCE);
        patience.min(left).max(Duration::from_secs(1))
    }

    async fn came_to_nothing(&mut self, bid: Bid) -> Result<(), store::Error> {
        match bid {
            Bid::Good(..) => return Ok(()),
            Bid::Broken(error) => return Err(error),
            Bid::Rejected => self.last = "what came of it was not what the model says".into(),
            Bid::Nothing(provider, Failure::Declined(why)) => {
                // It may have room later; until then it rests.
                self.avoid.remove(&provider);
                self.last = why;
                return Ok(());
            }
            // It is not asked again, and one other is.
            Bid::Nothing(_, Failure::Unfit(why)) => {
                self.last = why;
                self.unfit += 1;
                if self.unfit > 1 {
                    self.tries = MAX_TRIES;
                    return Ok(());
                }
            }
            Bid::Nothing(_, Failure::Stopped) => return Ok(()),
            Bid::Nothing(_, Failure::Unaskable(why)) => {
                self.last = why;
                self.tries = MAX_TRIES;
                return Ok(());
            }
            Bid::Nothing(provider, Failure::Failed(why)) => {
                // It rests; then it may try again, if there is nobody else.
                self.avoid.remove(&provider);
                self.last = why;
            }
        }
        self.tries += 1;
        let (order, group) = (&self.work.order.id, self.work.group);
        self.work.store().tried(order, group, self.row.number).await
    }

    /// Keeps what came of it.
    async fn done(
        self,
        bought: Bought,
        verdict: Verdict,
    ) -> Result<Option<ShardRow>, store::Error> {
        let work = &self.work;
        let numbers = &self.row.lines;
        let input_tokens = bought.result.usage.input_tokens;
        let mut outcomes = of_product(bought.product, &work.lines, numbers, input_tokens);
        outcomes.resize(numbers.len(), None);
        let again = self.tried_again(&mut outcomes).await?;
        let done = self.tallied(&outcomes, bought.provider, bought.cost, verdict);
        let (folder, shard) = (work.folder.clone(), self.row.number);
        let kept = tokio::task::spawn_blocking(move || folder.keep_shard(shard, &outcomes));
        kept.await.map_err(std::io::Error::other)??;
        work.gauge.ended(&done, weight(&self.need.limits));
        let again = (!again.is_empty()).then_some((&again[..], self.row.tries + 1));
        let ended = Ended::Done(Box::new(done));
        let (order, group) = (&work.order.id, work.group);
        work.store()
            .end_shard(order, group, shard, &ended, again)
            .await
    }

    /// Lines that one provider could not do are given to another; their places in this
    /// shard become empty. A settlement has room for so many results only.
    async fn tried_again(&self, outcomes: &mut Outcomes) -> Result<Vec<u32>, store::Error> {
        let work = &self.work;
        let shards = work.store().shards(&work.order.id, work.group).await?.len();
        let is_failed = |outcome: &Option<LineOutcome>| {
            matches!(outcome, None | Some(LineOutcome::Failed { .. }))
        };
        let has_room = shards < MAX_GROUP_RESULTS * 7 / 8;
        let may_try = self.row.tries + 1 < MAX_LINE_TRIES && has_room;
        if !may_try || work.winding_up.is_cancelled() {
            return Ok(vec![]);
        }
        let mut again = vec![];
        for (number, outcome) in self.row.lines.iter().zip(outcomes) {
            if is_failed(outcome) {
                *outcome = None;
                again.push(*number);
            }
        }
        Ok(again)
    }

    fn tallied(
        &self,
        outcomes: &Outcomes,
        provider: PublicKey,
        cost: infernet_protocol::money::Msat,
        verdict: Verdict,
    ) -> Done {
        let (mut answered, mut failed, mut input, mut output) = (0, 0, 0_u64, 0_u64);
        for outcome in outcomes.iter().flatten() {
            match outcome {
                LineOutcome::Failed { .. } => failed += 1,
                LineOutcome::Text(_) | LineOutcome::Vectors { .. } => answered += 1,
            }
            let (read, drawn) = tokens(outcome);
            input = input.saturating_add(read);
            output = output.saturating_add(drawn);
        }
        Done {
            provider,
            award: verdict.award,
            result: verdict.check.result.result,
            cost,
            checked: verdict.checked,
            check: verdict.check,
            answered,
            failed,
            input_tokens: input,
            output_tokens: output,
        }
    }

    /// Ends it with nothing.
    async fn give_up(self) -> Result<Option<ShardRow>, store::Error> {
        let work = &self.work;
        let ended = Ended::Failed {
            reason: self.last.clone(),
        };
        tracing::info!(
            order = %work.order.id, group = work.group, shard = self.row.number,
            tries = self.tries, why = %self.last, "a shard is given up"
        );
        work.gauge.failed(self.row.lines.len() as u64);
        let (order, group) = (&work.order.id, work.group);
        let shard = self.row.number;
        work.store()
            .end_shard(order, group, shard, &ended, None)
            .await
    }
}

impl House {
    /// Remembers how a purchase went; that this fails does no harm.
    pub(crate) async fn dealt(&self, provider: &PublicKey, name: &str, dealing: Dealing) {
        let kept = self
            .store
            .dealt(provider, name, dealing, clock::now())
            .await;
        if let Err(error) = kept {
            tracing::warn!(%error, "a dealing is not remembered");
        }
    }
}
