//! NIP-47's transaction: how an invoice or a payment is told to a client.

use ldk_node::lightning_invoice::Bolt11Invoice;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::{Invoice, InvoiceState, Payment, PaymentState};

/// Which way money goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To us.
    Incoming,
    /// From us.
    Outgoing,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing final has happened.
    Pending,
    /// The money has changed hands.
    Settled,
    /// The money is held.
    Accepted,
    /// Nobody paid in time.
    Expired,
    /// It came to nothing.
    Failed,
}

/// An invoice or a payment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// Which way.
    #[serde(rename = "type")]
    pub direction: Direction,
    /// How it stands.
    pub state: State,
    /// The invoice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoice: Option<String>,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Or the hash of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description_hash: Option<String>,
    /// The preimage, once paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preimage: Option<String>,
    /// The hash.
    pub payment_hash: String,
    /// The amount in msat; of what has come, where something has.
    pub amount: u64,
    /// The fee in msat.
    pub fees_paid: u64,
    /// When it was made, in seconds.
    pub created_at: u64,
    /// When the invoice expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// When the money changed hands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<u64>,
    /// The block by which a hold has to be settled; then it is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle_deadline: Option<u32>,
    /// What the client gave to keep with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// A payer's payment may still be under way for a moment when its invoice expires.
const LATE_S: u64 = 60;

impl Transaction {
    /// An invoice, as of `now`.
    pub fn of_invoice(row: &Invoice, now: u64) -> Self {
        let late = row.expires_at.is_some_and(|at| at + LATE_S < now);
        let state = match row.state {
            InvoiceState::Open if late => State::Expired,
            InvoiceState::Open => State::Pending,
            // Until LDK says that it is ours, it is held.
            InvoiceState::Accepted | InvoiceState::Settling => State::Accepted,
            InvoiceState::Settled => State::Settled,
            InvoiceState::Cancelled => State::Failed,
        };
        Self {
            direction: Direction::Incoming,
            state,
            invoice: row.invoice.clone(),
            description: row.description.clone(),
            description_hash: row.description_hash.clone(),
            preimage: row
                .preimage
                .clone()
                .filter(|_| row.state == InvoiceState::Settled),
            payment_hash: row.payment_hash.clone(),
            amount: row.received_msat.unwrap_or(row.amount_msat),
            fees_paid: 0,
            created_at: row.created_at,
            expires_at: row.expires_at,
            settled_at: row.settled_at,
            settle_deadline: row.claim_deadline.map(crate::hold::last_block),
            metadata: kept(row.metadata.as_deref()),
        }
    }

    /// A payment.
    pub fn of_payment(row: &Payment) -> Self {
        Self {
            direction: Direction::Outgoing,
            state: match row.state {
                PaymentState::Pending => State::Pending,
                PaymentState::Paid => State::Settled,
                PaymentState::Failed => State::Failed,
            },
            invoice: Some(row.invoice.clone()),
            description: row.description.clone(),
            description_hash: row.description_hash.clone(),
            preimage: row.preimage.clone(),
            payment_hash: row.payment_hash.clone(),
            amount: row.amount_msat,
            fees_paid: row.fee_paid_msat.unwrap_or(0),
            created_at: row.created_at,
            expires_at: row.expires_at,
            settled_at: row.settled_at,
            settle_deadline: None,
            metadata: kept(row.metadata.as_deref()),
        }
    }
}

fn kept(metadata: Option<&str>) -> Option<Value> {
    metadata.and_then(|text| serde_json::from_str(text).ok())
}

/// What an invoice says: its text, or the hash of it in hex.
pub(crate) fn description(invoice: &Bolt11Invoice) -> (Option<String>, Option<String>) {
    use ldk_node::lightning_invoice::Bolt11InvoiceDescriptionRef::{Direct, Hash};
    match invoice.description() {
        Direct(text) => (Some(text.to_string()).filter(|text| !text.is_empty()), None),
        Hash(hash) => (None, Some(hash.0.to_string())),
    }
}
