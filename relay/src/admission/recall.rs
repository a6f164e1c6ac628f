//! What was learned before the relay was started, read out of its store.

use nostr::{Filter, Kind, Timestamp};

use super::{Admission, trust};
use crate::store::{self, Store};

/// Events read in one step.
const STEP: usize = 500;

impl Admission {
    /// Reads whom the aggregators that are followed ban. It is soon done: call it before anybody is let in.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn recall_bans(&self, store: &Store) -> Result<(), store::Error> {
        for author in self.bans.followed() {
            let newest = Filter::new().kind(Kind::MuteList).author(author);
            for list in store.query(newest, 1).await? {
                self.bans.take(&list.event()?);
            }
        }
        Ok(())
    }

    /// Reads with whom the aggregators that are trusted have done business: their receipts and settlements, of which
    /// there may be very many. Call it beside everything else.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn recall_trust(&self, store: &Store) -> Result<(), store::Error> {
        for author in self.trust.authors() {
            let (mut step, mut until) = (STEP, Timestamp::max());
            loop {
                let kinds = trust::KINDS.map(Kind::from);
                let page = Filter::new().author(author).kinds(kinds);
                let events = store.query(page.until(until), step).await?;
                for event in &events {
                    self.trust.take(&event.event()?);
                }
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
