//! From a finished attempt to a signed result that a relay has.

use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use infernet_protocol::event::{Cancel, CancelReason, JobResult, Usage, V1};
use infernet_protocol::inference::EndReason;
use infernet_protocol::job::provider::Delivery;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Output, Payload, Product};
use infernet_protocol::seal::{self, Domain, Salt, Sealed, salted_hash};
use nostr::Event;
use nostr::secp256k1::rand::RngCore;
use nostr::secp256k1::rand::rngs::OsRng;
use tokio::time::Instant;

use crate::admission::Admitted;
use crate::shop::{Shop, plain_reason};
use crate::store;

/// How long one process tries to bring an event to a relay. Whoever waits for a
/// result has a deadline of minutes; the next start tries again.
const PUBLISH_FOR: Duration = Duration::from_secs(15 * 60);

/// The signed result of an attempt.
///
/// A product that does not fit in an event is left out, and the attempt has
/// failed.
pub fn result(
    shop: &Shop,
    admitted: &Admitted,
    delivery: Delivery,
    product: Product,
    usage: Usage,
) -> Event {
    match seal_result(shop, admitted, &delivery, &product, usage) {
        Ok(event) => event,
        Err(error) => {
            let empty = empty_like(&product);
            let failed = Delivery {
                ended: EndReason::Failed,
                error: Some(error.to_string()),
                ..delivery
            };
            let usage = Usage {
                output_tokens: 0,
                ..usage
            };
            unfailing(seal_result(shop, admitted, &failed, &empty, usage))
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "an empty product is far below the bound"
)]
fn unfailing(sealed: Result<Event, seal::Error>) -> Event {
    sealed.expect("an empty product fits in an event")
}

const fn empty_like(product: &Product) -> Product {
    match product {
        Product::TextGeneration { .. } => Product::TextGeneration {
            text: String::new(),
            tokens: vec![],
        },
        Product::Embedding { .. } => Product::Embedding { vectors: vec![] },
    }
}

fn seal_result(
    shop: &Shop,
    admitted: &Admitted,
    delivery: &Delivery,
    product: &Product,
    usage: Usage,
) -> Result<Event, seal::Error> {
    let (award, item) = (&admitted.award, &admitted.item);
    let salt = fresh_salt();
    let bytes = Output {
        salt,
        product: product.clone(),
    }
    .to_bytes();
    let author = shop.public_key();
    let output = Sealed::close(
        &bytes,
        shop.keys().secret_key(),
        &award.author(),
        &mut OsRng,
    )?;
    let read = usage.input_tokens.saturating_add(usage.prefix_tokens);
    let body = JobResult {
        v: V1,
        job: award.job_id(),
        award: award.id(),
        attempt: award.attempt,
        buyer: award.author(),
        ended: delivery.ended,
        error: delivery.error.as_deref().map(plain_reason),
        model: item.model.id,
        dtype: item.model.dtype,
        engine: shop.engine_version.clone(),
        usage,
        timing: delivery.timing,
        due_msat: award
            .price
            .cost(read, usage.output_tokens)
            .unwrap_or(Msat::MAX),
        output_hash: salted_hash(Domain::Output, &salt, &award.id(), &author, &bytes),
        output,
    };
    Ok(shop.sign(&body, clock::now()))
}

fn fresh_salt() -> Salt {
    let mut salt = [0; 32];
    OsRng.fill_bytes(&mut salt);
    Salt::from_bytes(salt)
}

/// Publishes events that lie in the store, one after the other, each until a
/// relay has it.
pub fn publish(shop: &Arc<Shop>, events: Vec<Event>) {
    let (shop, publications) = (shop.clone(), shop.publications.clone());
    publications.spawn(async move {
        for event in events {
            publish_one(&shop, &event).await;
        }
    });
}

async fn publish_one(shop: &Shop, event: &Event) {
    let deadline = Instant::now() + PUBLISH_FOR;
    match shop.link.publish_until(event, deadline).await {
        Ok(published) => {
            let relays = published.accepted.len();
            tracing::debug!(event = %event.id, kind = %event.kind, relays, "published");
            if let Err(error) = shop.store.acknowledge(&event.id, clock::now()).await {
                tracing::error!(%error, "cannot write that a relay has an event");
            }
        }
        Err(error) => tracing::error!(
            event = %event.id, kind = %event.kind, %error,
            "not published; it is kept, and the next start tries again"
        ),
    }
}

/// Publishes an event once more for a buyer that missed it.
pub fn publish_again(shop: &Arc<Shop>, event: Event) {
    let (shop, publications) = (shop.clone(), shop.publications.clone());
    publications.spawn(async move {
        if let Err(error) = shop.link.publish(&event).await {
            tracing::debug!(event = %event.id, %error, "not published again");
        }
    });
}

/// Makes good for an earlier process that died: gives up what it had taken on,
/// and publishes what it could not.
///
/// # Errors
/// The store's.
pub async fn recover(shop: &Arc<Shop>) -> Result<(), store::Error> {
    for unfinished in shop.store.unfinished().await? {
        let cancel = Cancel {
            v: V1,
            job: unfinished.job,
            award: Some(unfinished.award),
            counterparty: Some(unfinished.buyer),
            reason: CancelReason::Restarted,
            detail: "the provider was restarted while it worked".into(),
        };
        tracing::warn!(
            job = %unfinished.job, award = %unfinished.award, peer = %unfinished.buyer,
            "this attempt was cut off by a restart; its buyer is told"
        );
        let event = shop.sign(&cancel, clock::now());
        shop.store.abandon(&unfinished.award, &event).await?;
    }
    publish(shop, shop.store.unacknowledged().await?);
    shop.store.purge(clock::now()).await
}
