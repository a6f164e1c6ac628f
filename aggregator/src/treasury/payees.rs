//! Reaching providers that are owed money.

use async_trait::async_trait;
use infernet_client::Client;
use infernet_payments::Invoice;
use infernet_protocol::payload::Payout;
use nostr::{EventId, PublicKey};

/// A provider gives no invoice now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotPayable(pub String);

/// How providers are told what is made of their work, and asked for an invoice.
#[async_trait]
pub trait Payees: Send + Sync {
    /// The provider's invoice for what is paid now. `award` is its latest accepted work.
    async fn invoice(
        &self,
        provider: PublicKey,
        award: EventId,
        payout: &Payout,
    ) -> Result<Invoice, NotPayable>;
}

#[async_trait]
impl Payees for Client {
    async fn invoice(
        &self,
        provider: PublicKey,
        award: EventId,
        payout: &Payout,
    ) -> Result<Invoice, NotPayable> {
        let asked = self.payout(provider, award, payout.clone()).await;
        asked.map_err(|error| NotPayable(error.to_string()))
    }
}
