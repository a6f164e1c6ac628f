//! Buying one shard of one provider.

use std::time::Duration;

use infernet_client::{Client, Error, Request, Route, Step, Summary};
use infernet_node::mortality;
use infernet_protocol::event::{Checkers, Experience};
use infernet_protocol::inference::EndReason;
use infernet_protocol::money::Price;
use infernet_protocol::payload::{Decline, Product, Work};
use nostr::EventId;

use crate::Bought;
use crate::dispatch::Seat;
use crate::late::{self, Terms};
use crate::store::Store;

/// What is bought, for whom, and under which conditions.
#[derive(Debug, Clone)]
pub struct Purchase {
    /// The order.
    pub order: EventId,
    /// Its buyer.
    pub buyer: nostr::PublicKey,
    /// The group.
    pub group: u32,
    /// The shard.
    pub shard: u32,
    /// The work: a shard of texts, or texts to embed.
    pub work: Work,
    /// Whether the result is to carry proofs.
    pub prove: bool,
    /// Who may see it to check it.
    pub checkers: Checkers,
    /// When it must be done.
    pub within: Duration,
}

/// Why a provider brought nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    /// It did not take the work on; this says nothing against it.
    #[error("{0}")]
    Declined(String),
    /// It cannot do this work, now or later: it is too long for it, or none.
    #[error("{0}")]
    Unfit(String),
    /// It failed, fell silent, or sent something invalid.
    #[error("{0}")]
    Failed(String),
    /// The work cannot be asked for at all.
    #[error("{0}")]
    Unaskable(String),
    /// We were told to stop.
    #[error("stopped")]
    Stopped,
}

/// Buys a shard at this seat; the award is written down in the store. Dropping the future stops the provider.
///
/// # Errors
/// Why nothing came.
pub async fn buy(
    client: &Client,
    store: &Store,
    seat: &Seat,
    purchase: Purchase,
) -> Result<Bought, Failure> {
    let offer = &seat.offer;
    let (mut is_declined, mut is_failed) = (false, false);
    let mut unfit = None;
    let request = request(seat, &purchase);
    let terms = Terms {
        shard: Some((purchase.order, purchase.group, purchase.shard)),
        is_paid: !offer.is_free,
        within: purchase.within,
    };
    let mut answer = client
        .submit(request)
        .await
        .map_err(|error| refused(&error))?;
    while let Some(step) = answer.step().await {
        late::note(store.pool(), &step, &terms).await;
        match step {
            Step::Awarded { .. } => mortality::point("shard-placed"),
            Step::Accepted { .. } => mortality::point("shard-accepted"),
            Step::Declined { reason, detail, .. } => {
                is_declined = true;
                unfit = matches!(reason, Decline::TooLong | Decline::Input).then_some(detail);
            }
            Step::Failed { blame, .. } => {
                is_failed |= blame.is_some_and(|blame| blame != Experience::Completed);
            }
            _ => {}
        }
    }
    let summary = match answer.finish().await {
        Ok(summary) => summary,
        Err(Error::Stopped | Error::Closed) => return Err(Failure::Stopped),
        Err(error) if is_declined && !is_failed => {
            return Err(match unfit {
                Some(why) => Failure::Unfit(why),
                None => Failure::Declined(error.to_string()),
            });
        }
        Err(error) => return Err(Failure::Failed(error.to_string())),
    };
    // We stop nobody whose work we then wait for.
    if matches!(summary.ended, EndReason::Failed | EndReason::Cancelled) {
        return Err(Failure::Failed("the provider failed".into()));
    }
    let product = product(&summary);
    let evidence = summary.evidence;
    Ok(Bought {
        order: purchase.order,
        buyer: purchase.buyer,
        group: purchase.group,
        provider: offer.provider,
        model: summary.model,
        model_name: summary.model_name,
        award: evidence.award,
        result: evidence.result,
        input_key: evidence.input_key,
        output_key: evidence.output_key,
        work: purchase.work,
        product,
        cost: summary.due_msat,
    })
}

fn request(seat: &Seat, purchase: &Purchase) -> Request {
    let offer = &seat.offer;
    let model = offer.model.model.to_string();
    let base = match &purchase.work {
        Work::Embedding { texts } => Request::embedding(Some(model), texts),
        Work::Shard { requests } => Request::shard(model, requests.iter().cloned()),
        Work::TextGeneration(generate) => Request::shard(model, [generate.clone()]),
        Work::Tensors { inputs } => Request::tensors(model, inputs.iter().cloned()),
        Work::Verify { checks, thresholds } => {
            Request::verify(model, checks.iter().cloned(), *thresholds)
        }
    };
    let request = base
        .max_price(match offer.is_free {
            true => Price::FREE,
            false => offer.model.price,
        })
        .route(Route::To {
            provider: offer.provider.to_hex(),
            only: true,
        })
        .deadline(purchase.within)
        .checkers(purchase.checkers);
    Request {
        prove: purchase.prove,
        // We attest after the check.
        attest: false,
        ..request
    }
}

/// Why a request was not even published.
fn refused(error: &Error) -> Failure {
    match error {
        Error::Invalid(_) | Error::TooLarge { .. } => Failure::Unaskable(error.to_string()),
        Error::Closed | Error::Stopped => Failure::Stopped,
        // What was announced a moment ago is not any more.
        _ => Failure::Declined(error.to_string()),
    }
}

fn product(summary: &Summary) -> Product {
    match summary.vectors.is_empty() {
        true => Product::Shard {
            answers: summary.texts.clone(),
        },
        false => Product::Embedding {
            vectors: summary.vectors.clone(),
        },
    }
}
