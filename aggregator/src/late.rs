//! Nobody's finished work is left unanswered.
//!
//! Each award is written down when it is placed. Most are answered by whoever placed
//! them: accepted with the group's bill, or rejected. Others are not: who was asked
//! second was faster, a group was given up, this process died between a result and its
//! judgement. What their providers have signed all the same is owed, unless it is no
//! honest work; so it is looked for on the relays, judged as any other, and paid at our
//! loss.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use infernet_client::{Answer, Brought, Found, Step, Summary};
use infernet_node::{clock, mortality};
use infernet_protocol::event::{Award, Signed};
use infernet_protocol::kinds;
use infernet_protocol::money::Msat;
use nostr::{EventId, Filter, Kind, PublicKey, Timestamp};
use sqlx::SqlitePool;
use tokio::time::{Instant, interval};

use crate::Bought;
use crate::checks::Hire;
use crate::group::{self, Purchased};
use crate::house::House;
use crate::open::Open;
use crate::store::{self, Placed};
use crate::trouble::Trouble;

/// How often what came late is looked for.
const EVERY: Duration = Duration::from_secs(5);

/// How long after its time a result may come: a provider that was cut off tries to
/// reach a relay for some minutes.
const GRACE_S: u64 = 600;

/// Awards that are looked at side by side.
const AT_ONCE: usize = 8;

/// Awards that are recalled at a start, the newest, and how long the relays have to
/// tell them.
const RECALLED: usize = 100;
const RECALL_PATIENCE: Duration = Duration::from_secs(10);

/// How long judging what came late may take.
const JUDGING: Duration = Duration::from_secs(300);

/// What is written down of the awards of a job.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The order, group and shard that it is for; none for a check, or questions of our
    /// own.
    pub shard: Option<(EventId, u32, u32)>,
    /// Whether its provider is paid in escrow.
    pub is_paid: bool,
    /// How long it may take.
    pub within: Duration,
}

/// Writes an award down, if this step is one. That it cannot be is no reason to stop
/// the work.
pub async fn note(pool: &SqlitePool, step: &Step, terms: &Terms) {
    let Step::Awarded {
        award, provider, ..
    } = step
    else {
        return;
    };
    let placed = Placed {
        award: *award,
        provider: *provider,
        shard: terms.shard,
        is_paid: terms.is_paid,
        until: clock::now() + terms.within,
    };
    if let Err(error) = store::place(pool, &placed).await {
        tracing::error!(%award, %error, "an award is not written down");
    }
}

/// Waits for the end of a job, and writes its awards down.
///
/// # Errors
/// Why nothing came of it.
pub async fn finish(
    pool: &SqlitePool,
    mut answer: Answer,
    terms: &Terms,
) -> Result<Summary, infernet_client::Error> {
    while let Some(step) = answer.step().await {
        note(pool, &step, terms).await;
    }
    answer.finish().await
}

/// Answers what nobody has answered, for ever.
pub(crate) async fn follow(house: &Arc<House>) {
    recall(house).await;
    let mut ticks = interval(EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = round(house).await {
            tracing::error!(%error, "cannot look now for what came late");
        }
    }
}

/// Writes down what went out in the moment before an earlier process died, as the
/// relays have it. What it was for is not known any more.
async fn recall(house: &House) {
    let ours = Filter::new()
        .kind(Kind::from(kinds::AWARD))
        .author(house.public_key())
        .limit(RECALLED);
    let Ok(events) = house.link.fetch(vec![ours], RECALL_PATIENCE).await else {
        return;
    };
    let awards = events.into_iter().map(Signed::<Award>::from_verified);
    for award in awards.filter_map(Result::ok) {
        let placed = Placed {
            award: award.id(),
            provider: award.provider,
            shard: None,
            is_paid: !award.price.is_free(),
            until: award.deadline,
        };
        if let Err(error) = store::place(house.store.pool(), &placed).await {
            tracing::error!(award = %placed.award, %error, "an award is not written down");
        }
    }
}

async fn round(house: &Arc<House>) -> Result<(), store::Error> {
    let now = clock::now();
    house.store.forget_answered(now).await?;
    let unanswered = house.store.unanswered(now).await?;
    let looking = unanswered.into_iter().map(|placed| async move {
        let award = placed.award;
        match answer(house, &placed).await {
            Ok(true) => house.store.answered(&award, clock::now()).await,
            Ok(false) => house.store.looked(&award, clock::now()).await,
            Err(error) => {
                tracing::warn!(%award, %error, "what came late is not answered yet");
                house.store.looked(&award, clock::now()).await
            }
        }
    });
    let mut looking = stream::iter(looking).buffer_unordered(AT_ONCE);
    while let Some(looked) = looking.next().await {
        looked?;
    }
    Ok(())
}

/// Whether an award is answered by now; answers it, if its result is there.
async fn answer(house: &Arc<House>, placed: &Placed) -> Result<bool, Trouble> {
    if !placed.is_paid || house.money.is_answered(&placed.award).await? {
        return Ok(true);
    }
    match house.client.brought(placed.award).await {
        Ok(Some(Brought::Nothing)) => Ok(true),
        Ok(Some(Brought::Bad(flaw))) => {
            let (provider, award) = (placed.provider, placed.award);
            tracing::warn!(%provider, %award, flaw, "late work is not what was asked for");
            house.money.reject(&provider, &award).await;
            Ok(true)
        }
        Ok(Some(Brought::Work(found))) => {
            pay(house, placed, *found).await?;
            Ok(true)
        }
        Ok(None | Some(Brought::CalledOff)) => Ok(is_hopeless(placed, clock::now())),
        Err(error) => {
            tracing::info!(award = %placed.award, %error, "late work cannot be looked for now");
            Ok(is_hopeless(placed, clock::now()))
        }
    }
}

/// Whether nothing comes of an award any more.
fn is_hopeless(placed: &Placed, now: Timestamp) -> bool {
    now.as_secs() > placed.until.as_secs().saturating_add(GRACE_S)
}

/// Owes a provider for what it brought, unless that is no honest work.
async fn pay(house: &Arc<House>, placed: &Placed, found: Found) -> Result<(), Trouble> {
    let result = &found.evidence.result;
    let (cost, result) = (result.due_msat, result.id());
    if cost == Msat::ZERO {
        return Ok(());
    }
    if let Some((order, group, _)) = placed.shard
        && let Some(row) = house.store.order(&order).await?
        && let Some(order) = Open::of(&row)
    {
        let purchased = Purchased::late(&found, Instant::now() + JUDGING);
        let bought = bought(&order, group, found);
        let judged = group::judge(house, &order, &bought, &purchased).await?;
        if judged.is_none() {
            return Ok(());
        }
    }
    if placed.shard.is_none() && is_banned(house, &placed.provider).await? {
        // What it checked was judged with the rest, and it was caught.
        house.money.reject(&placed.provider, &placed.award).await;
        return Ok(());
    }
    let hire = Hire {
        checker: placed.provider,
        award: placed.award,
        result,
        cost,
    };
    tracing::info!(provider = %hire.checker, award = %hire.award, %cost, "late work is paid for");
    house.money.owe(&hire).await;
    mortality::point("late-owed");
    Ok(())
}

async fn is_banned(house: &House, provider: &PublicKey) -> Result<bool, store::Error> {
    let bans = house.store.bans().await?;
    Ok(bans.iter().any(|ban| ban.provider == *provider))
}

/// What was found, as what was bought.
pub(crate) fn bought(order: &Open, group: u32, found: Found) -> Bought {
    let evidence = found.evidence;
    Bought {
        order: order.id,
        buyer: order.buyer,
        group,
        provider: evidence.award.provider,
        model: evidence.award.model,
        model_name: found.model_name,
        cost: evidence.result.due_msat,
        award: evidence.award,
        result: evidence.result,
        input_key: evidence.input_key,
        output_key: evidence.output_key,
        work: found.work,
        product: found.product,
    }
}
