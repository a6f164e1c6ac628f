//! What the aggregator offers, said on the relays again and again (kind 38501).

use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use infernet_protocol::event::{Aggregator, V1};
use infernet_protocol::money::Msat;
use nostr::{RelayUrl, Timestamp};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::house::House;
use crate::ranks;

/// The announcement's name among its author's; one key runs one aggregator.
const IDENTIFIER: &str = "infernet";

/// How long an announcement stands: an aggregator that died is gone after that.
const STANDS_S: u64 = 300;

/// How often it is renewed: two renewals may be lost.
const RENEW_EVERY: Duration = Duration::from_secs(100);

/// How long to wait after no relay took it.
const RETRY: Duration = Duration::from_secs(3);

/// How long a goodbye stands: long enough for relays to take and pass it on.
const GOODBYE_S: u64 = 30;

/// How long a goodbye waits for a relay.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(2);

/// Announces until told to stop; says which relays have taken it.
pub(crate) async fn announce(house: Arc<House>, announced: watch::Sender<Vec<RelayUrl>>) {
    let mut changes = house.link.changes();
    loop {
        changes.mark_unchanged();
        let pause = match said(&house, STANDS_S).await {
            Some(relays) => {
                announced.send_replace(relays);
                RENEW_EVERY
            }
            None => RETRY,
        };
        tokio::select! {
            () = sleep(pause) => {}
            // A relay that came (back) may not know us.
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Says goodbye: an announcement that runs out in a moment.
pub(crate) async fn goodbye(house: &House) {
    let said = tokio::time::timeout(GOODBYE_PATIENCE, said(house, GOODBYE_S)).await;
    if !matches!(said, Ok(Some(_))) {
        tracing::info!("no relay has taken the goodbye; the announcement runs out by itself");
    }
}

async fn said(house: &House, stands_s: u64) -> Option<Vec<RelayUrl>> {
    let event = house.sign(&announcement(house, stands_s, clock::now()))?;
    match house.link.publish(&event).await {
        Ok(published) => Some(published.accepted),
        Err(error) => {
            tracing::warn!(%error, "the announcement was not taken");
            None
        }
    }
}

fn announcement(house: &House, stands_s: u64, now: Timestamp) -> Aggregator {
    let options = &house.options;
    let blobs = options.blobs.iter().map(ToString::to_string);
    Aggregator {
        v: V1,
        id: IDENTIFIER.into(),
        name: options.name.clone(),
        tasks: options.tasks.clone(),
        fee_ppm: options.fee_ppm,
        max_hold_msat: match house.money.takes_money() {
            true => options.max_hold,
            false => Msat::ZERO,
        },
        hold_s: house.money.longest_hold_s(),
        checkers: options.checkers.clone(),
        ranks: Some(ranks::key_of(house.keys())),
        blobs: blobs.collect(),
        relays: options.relays.clone(),
        software: concat!("infernet-aggregator/", env!("CARGO_PKG_VERSION")).into(),
        expires_at: Timestamp::from_secs(now.as_secs() + stands_s),
    }
}
