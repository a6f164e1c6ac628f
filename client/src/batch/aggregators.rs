//! Who takes batches.

use infernet_node::clock;
use std::collections::HashSet;

use infernet_protocol::event::{Aggregator, Order, Settlement, Signed};
use infernet_protocol::kinds;
use nostr::{EventId, Filter, Kind, PublicKey, ToBech32};

use crate::audit::OrderRecord;
use crate::{Client, Error};

/// Settlements that are asked for at a time, and how often. More of one second than a page holds cannot be told apart
/// from the end.
const PAGE: usize = 500;
const MAX_PAGES: usize = 256;

/// Events that are asked for by their ids at a time.
const IDS_AT_ONCE: usize = 100;

/// Announcements that are looked at.
const MAX_ANNOUNCEMENTS: usize = 200;

impl Client {
    /// Who takes batches now, by name; of each the newest word.
    ///
    /// # Errors
    /// Relays that cannot be reached.
    pub async fn aggregators(&self) -> Result<Vec<Signed<Aggregator>>, Error> {
        let filter = Filter::new()
            .kind(Kind::from(kinds::AGGREGATOR))
            .limit(MAX_ANNOUNCEMENTS);
        let events = self.fetch(vec![filter]).await?;
        let now = clock::now();
        let read = events
            .into_iter()
            .filter_map(|event| Signed::<Aggregator>::from_verified(event).ok());
        let mut all: Vec<_> = read
            .filter(|announced| announced.expires_at > now)
            .collect();
        all.sort_by_key(|announced| std::cmp::Reverse(announced.created_at()));
        let mut seen = HashSet::new();
        all.retain(|announced| seen.insert(announced.author()));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The record of a batch, as the relays have it now; nothing if there is no order of this id.
    ///
    /// # Errors
    /// Relays that cannot be reached.
    pub async fn order_record(&self, order: EventId) -> Result<Option<OrderRecord>, Error> {
        let found = self.fetch(vec![Filter::new().id(order).kind(Kind::from(kinds::ORDER))]);
        let mut orders = found.await?.into_iter();
        let order = orders.find_map(|event| Signed::<Order>::from_verified(event).ok());
        let Some(order) = order else {
            return Ok(None);
        };
        let settlements = self.settlements(&order).await?;
        let mut verdicts = Vec::new();
        for ids in OrderRecord::named(&settlements).chunks(IDS_AT_ONCE) {
            let events = self
                .fetch(vec![Filter::new().ids(ids.iter().copied())])
                .await?;
            verdicts.extend(
                events
                    .into_iter()
                    .filter_map(|event| Signed::from_verified(event).ok()),
            );
        }
        Ok(Some(OrderRecord::of(order, settlements, verdicts)))
    }

    /// All settlements of an order, a page after the other, the newest first.
    async fn settlements(&self, order: &Signed<Order>) -> Result<Vec<Signed<Settlement>>, Error> {
        let mut known = HashSet::new();
        let mut settlements = Vec::new();
        let mut until = None;
        for _ in 0..MAX_PAGES {
            let mut filter = Filter::new()
                .kind(Kind::from(kinds::SETTLEMENT))
                .author(order.aggregator)
                .event(order.id())
                .limit(PAGE);
            filter.until = until;
            let events = self.fetch(vec![filter]).await?;
            until = events.iter().map(|event| event.created_at).min();
            let new = events.into_iter().filter(|event| known.insert(event.id));
            let before = settlements.len();
            settlements
                .extend(new.filter_map(|event| Signed::<Settlement>::from_verified(event).ok()));
            if settlements.len() == before {
                break;
            }
        }
        Ok(settlements)
    }

    /// The aggregator of this name or public key; without one, the only one there is.
    ///
    /// # Errors
    /// [`Error::NoAggregator`] if there is none, or more than one could be meant.
    pub async fn aggregator(&self, who: Option<&str>) -> Result<Signed<Aggregator>, Error> {
        let mut all = self.aggregators().await?;
        if all.is_empty() {
            return Err(Error::NoAggregator(
                "no aggregator takes batches on these relays: name another with --relay, or run one \
                 (infernet-aggregator start)"
                    .into(),
            ));
        }
        let there_is = described(&all);
        let key = who.and_then(|who| PublicKey::parse(who).ok());
        all.retain(|announced| match (who, key) {
            (None, _) => true,
            (Some(_), Some(key)) => announced.author() == key,
            (Some(who), None) => announced.name.eq_ignore_ascii_case(who),
        });
        match (all.pop(), all.is_empty(), who) {
            (Some(one), true, _) => Ok(one),
            (Some(_), false, _) => Err(Error::NoAggregator(format!(
                "several aggregators could be meant; say which one with --aggregator: {there_is}"
            ))),
            (None, ..) => Err(Error::NoAggregator(format!(
                "no aggregator {:?} takes batches on these relays; there is: {there_is}",
                who.unwrap_or_default()
            ))),
        }
    }
}

/// Their names, keys and fees.
fn described(all: &[Signed<Aggregator>]) -> String {
    let one = |announced: &Signed<Aggregator>| {
        let Ok(npub) = announced.author().to_bech32();
        let fee = f64::from(announced.fee_ppm) / 10_000.0;
        format!("{} (fee {fee} %, {npub})", announced.name)
    };
    match all {
        [] => "nobody".into(),
        all => all.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}
