//! Who takes batches.

use infernet_node::clock;
use infernet_protocol::event::{Aggregator, Signed};
use infernet_protocol::kinds;
use nostr::{Filter, Kind, PublicKey, ToBech32};

use crate::{Client, Error};

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
        let mut seen = std::collections::HashSet::new();
        all.retain(|announced| seen.insert(announced.author()));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The aggregator of this name or public key; without one, the only one there is.
    ///
    /// # Errors
    /// [`Error::NoAggregator`] if there is none, or more than one could be meant.
    pub async fn aggregator(&self, who: Option<&str>) -> Result<Signed<Aggregator>, Error> {
        let mut all = self.aggregators().await?;
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
            (None, _, None) => Err(Error::NoAggregator(
                "no aggregator takes batches on these relays".into(),
            )),
            (None, _, Some(who)) => Err(Error::NoAggregator(format!(
                "no aggregator {who:?} takes batches on these relays; there is: {there_is}"
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
