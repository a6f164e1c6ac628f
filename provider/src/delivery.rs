//! From a finished attempt to a signed result that a relay has.

use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use infernet_protocol::bounds::{MAX_PAYLOAD_BYTES, MAX_SEALED_BYTES};
use infernet_protocol::event::{Cancel, CancelReason, JobResult, Usage, V1};
use infernet_protocol::inference::EndReason;
use infernet_protocol::job::provider::Delivery;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Output, Payload, Product, Proof};
use infernet_protocol::seal::{self, Digest, Domain, Salt, Sealed, salted_hash};
use nostr::secp256k1::rand::RngCore;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, PublicKey};
use tokio::time::{Instant, timeout};

use crate::admission::{Admitted, MAX_DEADLINE_S};
use crate::shop::{Shop, plain_reason};
use crate::till::{self, Loan};

/// How long one process tries to bring an event to a relay. Whoever waits for a
/// result has a deadline of minutes; the next start tries again.
const PUBLISH_FOR: Duration = Duration::from_secs(15 * 60);

/// How long an output may take to get to a blob server. Its buyer hears meanwhile that we
/// are alive.
const PUT_WITHIN: Duration = Duration::from_secs(90);

/// An attempt's product, sealed to its buyer.
pub struct Goods {
    sealed: Sealed,
    hash: Digest,
    /// Why there is nothing in it, if it did not fit.
    error: Option<String>,
}

impl Goods {
    /// Whether the product is in it.
    pub const fn are_whole(&self) -> bool {
        self.error.is_none()
    }
}

/// Why a product cannot be delivered.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error(transparent)]
    Seal(#[from] seal::Error),
    #[error("the output is too large for an event, and {0}")]
    Blob(#[from] infernet_blobs::Error),
    #[error("the output is too large for an event, and putting it on a server took too long")]
    Slow,
}

/// Seals a product and its proofs; what is large is put on a server first. A product
/// that cannot be delivered is left out, and the attempt has failed.
pub async fn seal(shop: &Shop, admitted: &Admitted, product: Product, proofs: Vec<Proof>) -> Goods {
    let empty = Product::empty(&admitted.work);
    let plain = Plain::of(shop, admitted, product, proofs);
    match plain.seal(shop, admitted).await {
        Ok(goods) => goods,
        Err(error) => Goods {
            error: Some(error.to_string()),
            ..unfailing(Plain::of(shop, admitted, empty, vec![]).seal_inside(admitted))
        },
    }
}

#[expect(
    clippy::expect_used,
    reason = "an empty product is far below the bound"
)]
fn unfailing(sealed: Result<Goods, seal::Error>) -> Goods {
    sealed.expect("an empty product fits in an event")
}

/// An output before it is sealed.
struct Plain {
    bytes: Vec<u8>,
    hash: Digest,
}

impl Plain {
    fn of(shop: &Shop, admitted: &Admitted, product: Product, proofs: Vec<Proof>) -> Self {
        let award = &admitted.award;
        let salt = fresh_salt();
        let bytes = Output {
            salt,
            product,
            proofs,
        }
        .to_bytes();
        let author = shop.public_key();
        let hash = salted_hash(Domain::Output, &salt, &award.id(), &author, &bytes);
        Self { bytes, hash }
    }

    /// Into a blob if it is large; into the result if it fits there and no server takes it.
    async fn seal(&self, shop: &Shop, admitted: &Admitted) -> Result<Goods, Undelivered> {
        if self.bytes.len() <= MAX_SEALED_BYTES || !shop.blobs.can_put() {
            return Ok(self.seal_inside(admitted)?);
        }
        match self.seal_outside(shop, admitted).await {
            Err(_) if self.bytes.len() <= MAX_PAYLOAD_BYTES => Ok(self.seal_inside(admitted)?),
            sealed => sealed,
        }
    }

    fn seal_inside(&self, admitted: &Admitted) -> Result<Goods, seal::Error> {
        let pair = &admitted.address.conversation;
        let sealed = Sealed::close_between(&self.bytes, pair, &mut OsRng)?;
        Ok(self.goods(sealed))
    }

    async fn seal_outside(&self, shop: &Shop, admitted: &Admitted) -> Result<Goods, Undelivered> {
        let (secret, reader) = (shop.keys().secret_key(), admitted.award.author());
        let outsized = Sealed::close_outsized(&self.bytes, secret, &reader, &mut OsRng)?;
        let putting = shop.blobs.put(outsized.bytes().to_vec());
        let put = timeout(PUT_WITHIN, putting).await;
        let blob = put.map_err(|_| Undelivered::Slow)??;
        Ok(self.goods(outsized.lies_in(blob)))
    }

    const fn goods(&self, sealed: Sealed) -> Goods {
        Goods {
            sealed,
            hash: self.hash,
            error: None,
        }
    }
}

/// The signed result of an attempt, which costs `due`.
pub fn result(
    shop: &Shop,
    admitted: &Admitted,
    delivery: &Delivery,
    goods: Goods,
    usage: Usage,
    due: Msat,
) -> Event {
    let (award, item) = (&admitted.award, &admitted.item);
    let (ended, error) = match &goods.error {
        Some(error) => (EndReason::Failed, Some(error)),
        None => (delivery.ended, delivery.error.as_ref()),
    };
    let body = JobResult {
        v: V1,
        job: award.job_id(),
        award: award.id(),
        attempt: award.attempt,
        buyer: award.author(),
        ended,
        error: error.map(|error| plain_reason(error)),
        model: item.model.id,
        dtype: item.model.dtype,
        engine: shop.engine_version.clone(),
        usage,
        timing: delivery.timing,
        due_msat: due,
        output_hash: goods.hash,
        output: goods.sealed,
    };
    shop.sign(&body, clock::now())
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

/// Charges a paid attempt whose outcome is in the store, and publishes its
/// receipt.
pub fn settle(shop: &Arc<Shop>, award: EventId, buyer: PublicKey) {
    let Some(till) = shop.till.clone() else {
        return;
    };
    publish_made(shop, async move { till.settle(&award, &buyer).await });
}

/// Charges an attempt in escrow whose outcome is in the store.
pub fn settle_loan(shop: &Arc<Shop>, award: EventId, loan: Loan) {
    let Some(till) = shop.till.clone() else {
        return;
    };
    shop.publications
        .spawn(async move { till.settle_lent(&award, loan).await });
}

/// Publishes a receipt over what was paid for an attempt that never began, if
/// anything was.
pub fn leave(shop: &Arc<Shop>, award: EventId) {
    let Some(till) = shop.till.clone() else {
        return;
    };
    publish_made(shop, async move { till.leave(&award).await });
}

fn publish_made(shop: &Arc<Shop>, made: impl Future<Output = Option<Event>> + Send + 'static) {
    let (shop, publications) = (shop.clone(), shop.publications.clone());
    publications.spawn(async move {
        if let Some(event) = made.await {
            publish_one(&shop, &event).await;
        }
    });
}

/// Makes good for an earlier process that died: gives up what it had taken on,
/// charges what it had done, and publishes what it could not.
///
/// # Errors
/// The store's, the till's.
pub async fn recover(shop: &Arc<Shop>) -> Result<(), till::Error> {
    let forget = clock::now() + Duration::from_secs(MAX_DEADLINE_S);
    shop.store.take_on_guests(forget).await?;
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
    if let Some(till) = &shop.till {
        till.recover().await?;
    }
    publish(shop, shop.store.unacknowledged().await?);
    Ok(shop.store.purge(clock::now()).await?)
}
