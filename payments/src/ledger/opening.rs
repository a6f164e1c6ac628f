//! What a tab's machine begins with.

use infernet_protocol::event::ReceiptSide;
use nostr::PublicKey;

use super::journal::carried;
use super::planning::open_with;
use super::{Error, Intent, Ledger};
use crate::tab::Carried;

/// A tab as the ledger had it at one moment: a payment is either under way in it or counted in, never both and never
/// neither. News of what is counted in may still be on its way to whoever opens the tab; who counts it again doubles
/// it. A buyer's machine takes no word of a payment that was not under way; a provider's is told what more the
/// ledger says than it was told before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// What the tab has seen.
    pub carried: Carried,
    /// What is planned or under way on it, the oldest first: top-ups, refunds, and invoices that may still be paid.
    pub open: Vec<Intent>,
}

impl Ledger {
    /// What a tab's machine begins with, all as of one moment. Subscribe to the cashier's changes before.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn opening(
        &self,
        counterparty: &PublicKey,
        our_side: ReceiptSide,
    ) -> Result<Opening, Error> {
        let mut moment = self.pool.begin().await?;
        let carried = carried(&mut moment, counterparty, our_side).await?;
        let open = open_with(&mut moment, counterparty).await?;
        Ok(Opening { carried, open })
    }
}
