//! What clients ask for, read and bounded.

use std::time::Duration;

use infernet_protocol::money::Msat;
use serde::Deserialize;
use serde_json::Value;

use super::message;
use crate::rail::{Ask, Hold, Order, OrderKey};
use crate::{Invoice, PaymentHash};

/// What an invoice's expiry is if the client names none, in seconds.
const DEFAULT_EXPIRY_S: u64 = 3_600;

/// How long a client's invoice may at most live, in seconds: a week.
const MAX_EXPIRY_S: u64 = 7 * 24 * 3_600;

/// Blocks that a hold is given if the client names none: a day.
const DEFAULT_HOLD_DELTA: u16 = 144;

pub(super) fn read<T: serde::de::DeserializeOwned>(params: Value) -> Result<T, message::Fault> {
    serde_json::from_value(params).map_err(|_| unreadable())
}

pub(super) fn unreadable() -> message::Fault {
    message::Fault::new("OTHER", "the request cannot be read")
}

#[derive(Deserialize)]
pub(super) struct Bill {
    amount: u64,
    #[serde(default)]
    description: String,
    #[serde(default)]
    expiry: Option<u64>,
    #[serde(default)]
    payment_hash: Option<PaymentHash>,
    #[serde(default)]
    min_cltv_expiry_delta: Option<u16>,
}

impl Bill {
    pub(super) fn ask(&self) -> Ask {
        let expiry = self.expiry.unwrap_or(DEFAULT_EXPIRY_S).min(MAX_EXPIRY_S);
        Ask {
            amount: Msat(self.amount),
            description: self.description.clone(),
            expiry: Duration::from_secs(expiry),
        }
    }

    pub(super) fn hold(&self) -> Result<Hold, message::Fault> {
        Ok(Hold {
            hash: self.payment_hash.ok_or_else(unreadable)?,
            min_cltv_expiry_delta: self.min_cltv_expiry_delta.unwrap_or(DEFAULT_HOLD_DELTA),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct Proof {
    pub(super) preimage: String,
}

#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) payment_hash: PaymentHash,
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    pub(super) from: u64,
    #[serde(default)]
    pub(super) limit: Option<usize>,
    #[serde(default)]
    pub(super) offset: usize,
    #[serde(default)]
    pub(super) unpaid: bool,
}

#[derive(Deserialize)]
pub(super) struct Bid {
    #[serde(default)]
    id: Option<String>,
    invoice: String,
    #[serde(default)]
    max_fee: Option<u64>,
}

impl Bid {
    pub(super) fn order(self) -> Result<Order, message::Fault> {
        let invoice: Invoice = self.invoice.parse().map_err(|_| unreadable())?;
        // Who names no order means the invoice.
        let mut key = *invoice.hash().as_bytes();
        if let Some(id) = &self.id {
            hex::decode_to_slice(id, &mut key).map_err(|_| unreadable())?;
        }
        Ok(Order {
            key: OrderKey::from_bytes(key),
            invoice,
            max_fee: self.max_fee.map_or(Msat::MAX, Msat),
        })
    }
}
