//! Settlements: what came of a group, and the end of an order, for anybody to audit.

use std::sync::Arc;

use infernet_node::clock;
use infernet_protocol::batch::BlobKey;
use infernet_protocol::bounds::MAX_GROUP_RESULTS;
use infernet_protocol::event::{SettledGroup, Settlement, V1};
use infernet_protocol::money::Msat;
use infernet_protocol::seal::{Domain, Salt, salted_hash};
use nostr::{Event, EventId};
use sha2::{Digest as _, Sha256};

use crate::house::House;
use crate::open::Open;
use crate::store::{self, GroupRow};
use crate::trouble::Trouble;

/// What came of a group, signed, for anybody to audit.
///
/// # Errors
/// Books that cannot be read; a key that signs nothing.
pub(super) async fn settlement(
    house: &Arc<House>,
    order: &Open,
    row: &GroupRow,
    opens_with: BlobKey,
) -> Result<Event, Trouble> {
    let tally = row.tally.clone().unwrap_or_default();
    let count = |lines: u64| u32::try_from(lines).unwrap_or(u32::MAX);
    let taken = match tally.charge.total() {
        Msat::ZERO => Msat::ZERO,
        _ => house.money.taken(&order.id, row.asked.number).await?,
    };
    let payment = (taken > Msat::ZERO).then(|| {
        // The salt is the key of the output, which the two alone know.
        let key = BlobKey::of_delivery(opens_with.as_bytes());
        let salt = Salt::from_bytes(*key.as_bytes());
        let hash: [u8; 32] = Sha256::digest(opens_with.as_bytes()).into();
        salted_hash(
            Domain::Payment,
            &salt,
            &order.id,
            &house.public_key(),
            &hash,
        )
    });
    let mut results = tally.results.clone();
    results.truncate(MAX_GROUP_RESULTS);
    let settlement = Settlement {
        v: V1,
        order: order.id,
        buyer: order.buyer,
        group: Some(SettledGroup {
            number: row.asked.number,
            lines: count(tally.lines),
            accepted: count(tally.accepted),
            inconclusive: count(tally.inconclusive),
            failed: count(tally.failed),
            charge: tally.charge,
            taken_msat: taken,
            payment,
            results,
        }),
        secret: None,
    };
    let unsigned = store::Error::Damaged("a settlement that cannot be signed");
    house.sign(&settlement).ok_or(Trouble::Store(unsigned))
}

/// Closes an order if nothing more can come of it.
pub(crate) async fn look(house: &Arc<House>, order: &EventId) {
    if let Err(error) = close_if_done(house, order).await {
        tracing::error!(%order, %error, "an order cannot be closed yet");
    }
}

async fn close_if_done(house: &Arc<House>, id: &EventId) -> Result<(), Trouble> {
    let Some(row) = house.store.order(id).await? else {
        return Ok(());
    };
    let Some(order) = Open::of(&row).filter(|order| !order.is_closed) else {
        return Ok(());
    };
    if !house.store.open_groups(id).await?.is_empty() {
        return Ok(());
    }
    let settled = house.store.settled(id).await?;
    let is_late = order.deadline() <= clock::now();
    if !(order.is_stopped || is_late || settled.lines >= order.quote.size.lines) {
        return Ok(());
    }
    let settlement = Settlement {
        v: V1,
        order: *id,
        buyer: order.buyer,
        group: None,
        secret: Some(order.secret),
    };
    let Some(event) = house.sign(&settlement) else {
        return Ok(());
    };
    if house.store.close_order(id, &event, clock::now()).await? {
        tracing::info!(order = %id, lines = settled.lines, "an order is closed");
        house.publish(event);
    }
    Ok(())
}
