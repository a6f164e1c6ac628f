//! What was learned before the relay was started, read out of its store.

use nostr::{Filter, Kind, Timestamp};
use nostr_relay_builder::prelude::{DatabaseError, NostrDatabase as _};

use super::{Admission, trust};
use crate::store::Store;

/// Events read in one step.
const STEP: usize = 500;

impl Admission {
    /// Reads whom the aggregators that are followed ban. It is soon done: call it before anybody is let in.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn recall_bans(&self, store: &Store) -> Result<(), DatabaseError> {
        for author in self.bans.followed() {
            let newest = Filter::new().kind(Kind::MuteList).author(author).limit(1);
            for list in store.query(newest).await? {
                self.bans.take(&list);
            }
        }
        Ok(())
    }

    /// Reads with whom the aggregators that are trusted have done business: their receipts and settlements, of which
    /// there may be very many. Call it beside everything else.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn recall_trust(&self, store: &Store) -> Result<(), DatabaseError> {
        for author in self.trust.authors() {
            let (mut step, mut until) = (STEP, Timestamp::max());
            loop {
                let kinds = trust::KINDS.map(Kind::from);
                let page = Filter::new().author(author).kinds(kinds);
                let events = store.query(page.until(until).limit(step)).await?;
                events.iter().for_each(|event| self.trust.take(event));
                let oldest = events.last().map(|event| event.created_at);
                let Some(oldest) = oldest.filter(|_| events.len() == step) else {
                    break;
                };
                // A page that begins and ends in one second may hide more of that second.
                step = if oldest == until { 2 * step } else { STEP };
                until = oldest;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}
