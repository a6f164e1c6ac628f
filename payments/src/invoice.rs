//! A BOLT-11 invoice that has been read and checked.

use std::fmt;
use std::str::FromStr;

use infernet_protocol::bounds::MAX_TIMESTAMP;
use infernet_protocol::money::Msat;
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescriptionRef, Currency};
use nostr::Timestamp;
use nostr::secp256k1::PublicKey;

use crate::PaymentHash;

/// Bytes of an invoice: ours have under 500, others' route hints some more. The protocol's messages take as many.
pub const MAX_INVOICE_BYTES: usize = 4_096;

/// Why a text is no invoice that can be paid here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInvoice {
    /// It is longer than any sane invoice.
    #[error("the invoice is over {MAX_INVOICE_BYTES} bytes long")]
    TooLong,
    /// It cannot be read, or its signature is wrong.
    #[error("the invoice cannot be read, or is not signed properly")]
    Unreadable,
    /// It leaves the amount to the payer: nobody could say later whether it was the right one.
    #[error("the invoice names no amount")]
    NoAmount,
    /// Its amount or its time is beyond all bounds.
    #[error("the invoice's {0} is out of bounds")]
    OutOfBounds(&'static str),
}

/// An invoice with an amount. Its text is shown nowhere: whoever reads it can pay it, and see who is paid.
#[derive(Clone, PartialEq, Eq)]
pub struct Invoice {
    text: String,
    inner: Bolt11Invoice,
    amount: Msat,
    expires_at: Timestamp,
}

impl Invoice {
    /// The invoice as it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The payment's hash.
    pub fn hash(&self) -> PaymentHash {
        PaymentHash::from_bytes(*self.inner.payment_hash().as_ref())
    }

    /// What it asks for.
    pub const fn amount(&self) -> Msat {
        self.amount
    }

    /// The node that signed it.
    pub fn payee(&self) -> PublicKey {
        self.inner.get_payee_pub_key()
    }

    /// Which chain's money it asks for.
    pub fn currency(&self) -> Currency {
        self.inner.currency()
    }

    /// What it is for, where it says so in words.
    pub fn description(&self) -> Option<String> {
        match self.inner.description() {
            Bolt11InvoiceDescriptionRef::Direct(text) => Some(text.as_inner().0.clone()),
            Bolt11InvoiceDescriptionRef::Hash(_) => None,
        }
    }

    /// When it was made.
    pub fn created_at(&self) -> Timestamp {
        Timestamp::from_secs(self.inner.duration_since_epoch().as_secs())
    }

    /// When it can no longer be paid.
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Whether it can no longer be paid.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }

    /// How many blocks before its deadline the last hop must have the payment: what bounds a hold.
    pub fn min_cltv_expiry_delta(&self) -> u64 {
        self.inner.min_final_cltv_expiry_delta()
    }
}

impl FromStr for Invoice {
    type Err = InvalidInvoice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_INVOICE_BYTES {
            return Err(InvalidInvoice::TooLong);
        }
        let inner: Bolt11Invoice = text.parse().map_err(|_| InvalidInvoice::Unreadable)?;
        let amount = inner.amount_milli_satoshis().map(Msat);
        let amount = amount.ok_or(InvalidInvoice::NoAmount)?;
        if amount == Msat::ZERO || amount > Msat::MAX {
            return Err(InvalidInvoice::OutOfBounds("amount"));
        }
        let expires_at = inner.expires_at().map(|at| at.as_secs());
        let expires_at = expires_at.filter(|at| *at <= MAX_TIMESTAMP);
        let expires_at = expires_at.ok_or(InvalidInvoice::OutOfBounds("expiry"))?;
        Ok(Self {
            text: text.to_owned(),
            inner,
            amount,
            expires_at: Timestamp::from_secs(expires_at),
        })
    }
}

impl fmt::Debug for Invoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invoice({}, {})", self.hash(), self.amount)
    }
}
