//! What is made of a result: judged, published, attested, and its provider shut out if
//! it was no honest work.

use std::sync::Arc;
use std::time::Duration;

use infernet_client::Found;
use infernet_node::clock;
use infernet_protocol::event::{
    Attestation, BatchShare, CheckedResult, Experience, Measured, Promise, V1,
};
use infernet_protocol::money::Msat;
use infernet_protocol::verification::Secret;
use nostr::EventId;
use tokio::time::Instant;

use crate::Bought;
use crate::checks::{Judged, Outcome, Policy};
use crate::house::House;
use crate::open::Open;
use crate::store::{self, Dealing};
use crate::tally::{CheckOf, Checked, Owed, share};

/// How long before work must have ended a judgement is needed.
const MARGIN: Duration = Duration::from_secs(1);

/// Tokens whose speed is told: of fewer, the way there and back is most of the time.
const TIMED_TOKENS: u64 = 64;

/// What was made of a result that is handed over.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    /// Its award.
    pub award: EventId,
    /// What the check made of it.
    pub checked: Checked,
    /// The check.
    pub check: CheckOf,
}

/// How a purchase went, as we saw it.
#[derive(Debug, Clone)]
pub(crate) struct Purchased {
    /// What the provider is called.
    pub name: String,
    /// What it promised.
    pub promise: Promise,
    /// How long it took.
    pub took: Duration,
    /// By when a judgement is needed.
    pub until: Instant,
    /// Whether nobody waited for it: it is paid at our loss, and rated only if it is no
    /// honest work.
    pub is_late: bool,
}

impl Purchased {
    /// How a purchase went whose result was found on the relays.
    pub fn found(found: &Found, until: Instant) -> Self {
        Self {
            name: found.name.clone(),
            promise: found.promise,
            took: Duration::from_millis(found.evidence.result.timing.total_ms),
            until,
            is_late: false,
        }
    }

    /// The same, where nobody waited for it.
    pub fn late(found: &Found, until: Instant) -> Self {
        Self {
            is_late: true,
            ..Self::found(found, until)
        }
    }
}

/// Judges a result, and sees to all that follows; nothing if it was rejected.
///
/// # Errors
/// A store that refuses.
pub(crate) async fn judge(
    house: &Arc<House>,
    order: &Open,
    bought: &Bought,
    purchased: &Purchased,
) -> Result<Option<Verdict>, store::Error> {
    let policy = Policy {
        checking: order.quote.checking,
        checkers: order.quote.checkers,
        // An order's secret is public once it is closed: by then somebody may have made
        // the result that it does not choose.
        secret: match purchased.is_late {
            true => Secret::from_bytes(rand::random()),
            false => order.secret,
        },
        until: (purchased.until - MARGIN).into_std(),
        most: share(bought.cost, order.quote.checking_ppm),
    };
    let judged = house.checks.judge(bought, &policy).await?;
    for verdict in &judged.verdicts {
        house.post(verdict.event().clone()).await?;
    }
    let check = check(bought, &judged);
    let (provider, name) = (&bought.provider, &purchased.name);
    let checked = match judged.outcome {
        Outcome::Accepted => Checked::Accepted,
        Outcome::Unchecked => Checked::Unchecked,
        Outcome::Inconclusive => Checked::Inconclusive,
        Outcome::Rejected => {
            house.store.reject(&order.id, bought.group, &check).await?;
            attest(house, order, bought, purchased, &judged).await?;
            house.dealt(provider, name, Dealing::Rejected).await;
            house
                .shut_out(provider, bought.award.id(), "its work was rejected")
                .await?;
            return Ok(None);
        }
    };
    let verdict = Verdict {
        award: bought.award.id(),
        checked,
        check,
    };
    if purchased.is_late {
        return Ok(Some(verdict));
    }
    // What is not known is not rated.
    if checked != Checked::Inconclusive {
        attest(house, order, bought, purchased, &judged).await?;
    }
    let usage = &bought.result.usage;
    let dealing = Dealing::Done {
        tokens: usage.input_tokens.saturating_add(usage.output_tokens),
        cost: bought.cost,
    };
    house.dealt(provider, name, dealing).await;
    Ok(Some(verdict))
}

fn check(bought: &Bought, judged: &Judged) -> CheckOf {
    let hired = judged.hired.iter().filter(|hire| hire.cost > Msat::ZERO);
    let owed = hired.map(|hire| Owed {
        award: hire.award,
        provider: hire.checker,
        amount: hire.cost,
        chance_ppm: 0,
        is_checked: false,
    });
    CheckOf {
        result: CheckedResult {
            result: bought.result.id(),
            chance_ppm: judged.chance_ppm,
            verdict: judged.verdict().map(infernet_protocol::event::Signed::id),
        },
        hired: owed.collect(),
    }
}

/// Publishes how it went.
async fn attest(
    house: &Arc<House>,
    order: &Open,
    bought: &Bought,
    purchased: &Purchased,
    judged: &Judged,
) -> Result<(), store::Error> {
    let is_rejected = judged.outcome == Outcome::Rejected;
    let paid = match is_rejected {
        true => Msat::ZERO,
        false => bought.cost,
    };
    let attestation = Attestation {
        v: V1,
        job: bought.award.job_id(),
        award: bought.award.id(),
        result: Some(bought.result.id()),
        receipt: None,
        provider: bought.provider,
        model: bought.model,
        experience: match is_rejected {
            true => Experience::Rejected,
            false => Experience::Completed,
        },
        promised: purchased.promise,
        measured: Some(measured(bought, purchased)),
        paid_msat: paid,
        verdict: judged.verdict().map(infernet_protocol::event::Signed::id),
        batch: Some(BatchShare {
            order: order.id,
            buyer: order.buyer,
            fee_msat: share(paid, order.quote.fee_ppm),
        }),
    };
    match house.sign(&attestation) {
        Some(event) => house.post(event).await,
        None => Ok(()),
    }
}

/// A shard is not streamed: what it took, less what the first token may take, is what
/// its tokens took.
fn measured(bought: &Bought, purchased: &Purchased) -> Measured {
    let tokens = bought.result.usage.output_tokens;
    let took_ms = u64::try_from(purchased.took.as_millis()).unwrap_or(u64::MAX);
    Measured {
        first_token_ms: bought.result.timing.first_token_ms.min(took_ms),
        tokens_per_s: speed(tokens, took_ms, purchased.promise.first_token_ms),
        output_tokens: tokens,
    }
}

/// Tokens a second; 0, which is not measured, of few tokens.
fn speed(tokens: u64, took_ms: u64, first_token_ms: u64) -> f32 {
    let drawing_ms = took_ms.saturating_sub(first_token_ms).max(1);
    match tokens < TIMED_TOKENS {
        true => 0.0,
        false => tokens as f32 * 1_000.0 / drawing_ms as f32,
    }
}

impl House {
    /// Buys nothing more of a provider: it was caught.
    pub(crate) async fn shut_out(
        &self,
        provider: &nostr::PublicKey,
        award: EventId,
        reason: &str,
    ) -> Result<(), store::Error> {
        tracing::warn!(%provider, %award, reason, "a provider is banned");
        self.floor.ban(*provider, true);
        self.store.ban(provider, reason, clock::now()).await?;
        self.money.reject(provider, &award).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_is_kept_is_not_counted_as_slow() {
        // 100 tokens at 50 a second, and half a second for the first one.
        assert!((speed(100, 2_500, 500) - 50.0).abs() < 0.01);
        // Sooner than promised.
        assert!(speed(100, 100, 500) > 50.0);
        // Too few to tell.
        assert!(speed(63, 60_000, 500) == 0.0);
    }
}
