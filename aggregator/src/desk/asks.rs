//! What buyers ask, and what they are answered.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use infernet_node::clock;
use infernet_protocol::batch::{Ask, Group, Progress, Question, Reply, Standing};
use infernet_protocol::event::{Order, Signed};
use nostr::{Event, EventId, PublicKey};
use tokio::time::timeout;

use super::opening;
use crate::group::{self, Input};
use crate::house::House;
use crate::open::Open;
use crate::quoting;
use crate::store::Taken;
use crate::tally::Tally;
use crate::trouble::Trouble;

/// How long the answer about a group waits for something to say.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is said: the order that it is about, if the question did not say, and the reply.
pub(super) type Said = Option<(Option<EventId>, Reply)>;

/// Answers questions.
pub(super) struct Asks {
    pub house: Arc<House>,
    /// Groups whose lines are being fetched.
    opening: Mutex<HashSet<(EventId, u32)>>,
    /// Groups are opened one at a time, once their lines are here.
    turn: tokio::sync::Mutex<()>,
}

pub(super) fn refused(reason: impl Into<String>) -> Reply {
    Reply::Refused {
        reason: reason.into(),
    }
}

impl Asks {
    pub fn new(house: Arc<House>) -> Self {
        Self {
            house,
            opening: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Answers a question; nothing if there is nothing to say yet.
    ///
    /// # Errors
    /// A store that refuses.
    pub async fn answer(&self, buyer: PublicKey, question: Question) -> Result<Said, Trouble> {
        let ask = match question.ask {
            Ask::Quote(wanted) => {
                let reply = match quoting::quote(&self.house, buyer, wanted).await {
                    Ok(event) => Reply::Quoted {
                        event: Box::new(event),
                    },
                    Err(quoting::Error::Refused(reason)) => Reply::Refused { reason },
                    Err(quoting::Error::Store(error)) => return Err(error.into()),
                };
                return Ok(Some((None, reply)));
            }
            Ask::Order { event } => return self.order(buyer, *event).await.map(Some),
            ask => ask,
        };
        let order = match question.order {
            Some(id) => self.house.store.order(&id).await?,
            None => None,
        };
        let order = order.as_ref().and_then(Open::of);
        let Some(order) = order.filter(|order| order.buyer == buyer).map(Arc::new) else {
            return Ok(Some((None, refused("there is no such order of yours"))));
        };
        let reply = match ask {
            Ask::Group(group) => return self.group(order, group).await,
            Ask::Fetched { group } => {
                if let Some(handle) = self.house.group(&order.id, group) {
                    handle.tell(Input::Fetched);
                }
                return self.stands(&order, group).await;
            }
            Ask::Standing => Reply::Standing(standing(&self.house, &order).await?),
            Ask::Stop => self.stop(&order).await?,
            Ask::Refund { invoice } => self.house.money.refund(&order, &invoice).await,
            // Answered above.
            Ask::Quote(_) | Ask::Order { .. } => return Ok(None),
        };
        Ok(Some((None, reply)))
    }

    async fn order(
        &self,
        buyer: PublicKey,
        event: Event,
    ) -> Result<(Option<EventId>, Reply), Trouble> {
        let order = match Signed::<Order>::verify(event) {
            Ok(order) => order,
            Err(refusal) => return Ok((None, refused(format!("the order: {refusal}")))),
        };
        if order.author() != buyer || order.aggregator != self.house.public_key() {
            return Ok((
                None,
                refused("the order is not yours, or not for this aggregator"),
            ));
        }
        let id = order.id();
        let store = &self.house.store;
        if store.order(&id).await?.is_none()
            && let Some(reason) = self.no_room(&buyer).await?
        {
            return Ok((None, refused(reason)));
        }
        let reply = match store.take(&order, clock::now()).await? {
            Taken::Yes => match store.order(&id).await?.as_ref().and_then(Open::of) {
                Some(open) => {
                    tracing::info!(order = %id, %buyer, lines = open.quote.size.lines, "an order is taken");
                    Reply::Standing(standing(&self.house, &open).await?)
                }
                None => refused("the order cannot be read"),
            },
            Taken::UnknownQuote => {
                return Ok((None, refused("the quote has run out: ask for one again")));
            }
            Taken::QuoteGone => return Ok((None, refused("another order has taken that quote"))),
        };
        Ok((Some(id), reply))
    }

    /// Why no order can be taken now.
    async fn no_room(&self, buyer: &PublicKey) -> Result<Option<String>, Trouble> {
        let limits = &self.house.options.limits;
        let (all, own) = self.house.store.count_open(buyer).await?;
        if self.house.shutdown.is_soft() {
            return Ok(Some("this aggregator is stopping".into()));
        }
        if own >= u64::from(limits.orders_of_a_buyer) {
            return Ok(Some(format!(
                "{own} orders of yours are open: finish one of them, or wait for its deadline"
            )));
        }
        let is_full = all >= u64::from(limits.orders);
        Ok(is_full.then(|| "too many orders are open here; ask again later".to_owned()))
    }

    async fn group(&self, order: Arc<Open>, group: Group) -> Result<Said, Trouble> {
        let number = group.number;
        if let Some(row) = self.house.store.group(&order.id, number).await? {
            let is_same =
                row.asked.input.sha256 == group.input.sha256 && row.asked.key == group.key;
            return match is_same {
                true => self.stands(&order, number).await,
                false => Ok(Some((
                    None,
                    refused("this group was given with other lines before"),
                ))),
            };
        }
        let Some(_guard) = Opening::begin(&self.opening, (order.id, number)) else {
            // It is being opened: the buyer is told when it is.
            return Ok(None);
        };
        match opening::open(&self.house, order.clone(), group, &self.turn).await? {
            Ok(()) => self.stands(&order, number).await,
            Err(reason) => Ok(Some((None, refused(reason)))),
        }
    }

    /// How a group stands.
    async fn stands(&self, order: &Open, number: u32) -> Result<Said, Trouble> {
        if let Some(handle) = self.house.group(&order.id, number) {
            let standing = timeout(PATIENCE, handle.standing()).await.ok().flatten();
            return Ok(standing.map(|standing| (None, Reply::Group(standing))));
        }
        let Some(row) = self.house.store.group(&order.id, number).await? else {
            return Ok(Some((None, refused("there is no such group"))));
        };
        let is_charged = row.tally.as_ref().is_some_and(Tally::is_charged);
        let opens_with = match is_charged {
            true => self.house.money.preimage(&order.id, number).await?,
            false => row.token,
        };
        let standing = group::standing_of(&row, opens_with);
        Ok(Some((None, Reply::Group(standing))))
    }

    async fn stop(&self, order: &Open) -> Result<Reply, Trouble> {
        self.house.store.stop_order(&order.id).await?;
        for ((of, _), handle) in self.house.groups().iter() {
            if *of == order.id {
                handle.tell(Input::Stop);
            }
        }
        group::look(&self.house, &order.id).await;
        let mut standing = standing(&self.house, order).await?;
        standing.closed = true;
        Ok(Reply::Standing(standing))
    }
}

/// How an order stands.
///
/// # Errors
/// A store that refuses.
pub(crate) async fn standing(house: &House, order: &Open) -> Result<Standing, Trouble> {
    let limits = &house.options.limits;
    let settled = house.store.settled(&order.id).await?;
    let mut progress = Progress {
        lines: settled.lines,
        done: settled.lines,
        verified: settled.handed_over(),
        failed: settled.failed,
        cost_msat: settled.charge.total(),
        ..Progress::default()
    };
    for ((of, _), handle) in house.groups().iter() {
        if *of == order.id {
            add(&mut progress, &handle.progress());
        }
    }
    Ok(Standing {
        progress,
        credit_msat: house.money.credit(&order.buyer).await,
        groups_at_once: limits.groups_at_once,
        max_hold_msat: house.options.max_hold,
        closed: order.is_closed || order.is_stopped,
    })
}

fn add(sum: &mut Progress, one: &Progress) {
    sum.lines += one.lines;
    sum.running += one.running;
    sum.done += one.done;
    sum.verified += one.verified;
    sum.failed += one.failed;
    sum.cost_msat = sum
        .cost_msat
        .checked_add(one.cost_msat)
        .unwrap_or(sum.cost_msat);
    sum.seconds_left = sum.seconds_left.max(one.seconds_left);
}

/// That a group is being opened, until this is dropped.
struct Opening<'a> {
    of: &'a Mutex<HashSet<(EventId, u32)>>,
    key: (EventId, u32),
}

impl<'a> Opening<'a> {
    fn begin(of: &'a Mutex<HashSet<(EventId, u32)>>, key: (EventId, u32)) -> Option<Self> {
        let is_new = of
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key);
        is_new.then_some(Self { of, key })
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.remove(&self.key);
    }
}
