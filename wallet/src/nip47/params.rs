//! What requests say. Everything is untrusted: bounded here, checked where it is used.

use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Code, Method, Refusal};

/// The longest text that an invoice or its metadata may carry; both are kept for good. NIP-47 allows 4,096 characters
/// of metadata, BOLT 11 639 bytes of description.
const MAX_METADATA: usize = 4_096;

/// The longest invoice that is read: a long description and several route hints fit.
pub const MAX_INVOICE: usize = 4_096;

/// `{"method": …, "params": …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The method's name.
    pub method: String,
    /// Its parameters.
    #[serde(default)]
    pub params: Value,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// Text that is no such JSON.
    pub fn read(text: &str) -> Result<Self, Refusal> {
        serde_json::from_str(text)
            .map_err(|_| Refusal::other("the request is not {\"method\": …, \"params\": …}"))
    }

    /// The method.
    ///
    /// # Errors
    /// One that the wallet does not know.
    pub fn method(&self) -> Result<Method, Refusal> {
        Method::from_str(&self.method)
            .map_err(|error| Refusal::new(Code::NotImplemented, error.to_string()))
    }

    /// The parameters.
    ///
    /// # Errors
    /// Parameters that do not fit the method.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let params = match &self.params {
            Value::Null => Value::Object(Map::new()),
            params => params.clone(),
        };
        serde_json::from_value(params)
            .map_err(|error| Refusal::other(format!("{}: {error}", self.method_name())))
    }

    fn method_name(&self) -> &'static str {
        Method::from_str(&self.method).map_or("the request", Method::name)
    }
}

/// `pay_invoice`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PayInvoice {
    /// The invoice.
    pub invoice: String,
    /// The amount in msat, where the invoice names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<u64>,
    /// The highest routing fee in msat, if less than the wallet would pay. Not in the NIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fee: Option<u64>,
    /// Kept with the payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// `make_invoice`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MakeInvoice {
    /// The amount in msat.
    pub amount: u64,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Or the sha256 of that, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description_hash: Option<String>,
    /// Seconds until it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<u64>,
    /// Kept with the invoice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// `make_hold_invoice`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MakeHoldInvoice {
    /// As for any invoice.
    #[serde(flatten)]
    pub invoice: MakeInvoice,
    /// The hash whose preimage will settle it, hex.
    pub payment_hash: String,
    /// How many blocks the last hop must leave, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_cltv_expiry_delta: Option<u64>,
}

/// `settle_hold_invoice`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settle {
    /// The preimage, hex.
    pub preimage: String,
}

/// `cancel_hold_invoice`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentHash {
    /// The hash, hex.
    pub payment_hash: String,
}

/// `lookup_invoice`: by either.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LookupInvoice {
    /// The hash, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_hash: Option<String>,
    /// The invoice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoice: Option<String>,
}

/// `list_transactions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GetTransactions {
    /// Not before, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Not after, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// After so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Also what is not paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpaid: Option<bool>,
    /// `incoming` or `outgoing`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub direction: Option<super::Direction>,
}

/// 32 bytes in hex, in lower case.
///
/// # Errors
/// Anything else.
pub fn hash(name: &str, hex: &str) -> Result<[u8; 32], Refusal> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(hex, &mut bytes)
        .map(|()| bytes)
        .map_err(|_| Refusal::other(format!("{name} is not 64 hex digits")))
}

/// Metadata as it is kept.
///
/// # Errors
/// Too much of it.
pub fn metadata(value: Option<&Value>) -> Result<Option<String>, Refusal> {
    match value.filter(|value| !value.is_null()).map(Value::to_string) {
        Some(text) if text.len() > MAX_METADATA => Err(Refusal::other(format!(
            "the metadata is longer than {MAX_METADATA} characters"
        ))),
        kept => Ok(kept),
    }
}

/// The payment hash of a preimage, hex.
pub fn hash_of(preimage: &[u8; 32]) -> String {
    use ldk_node::bitcoin::hashes::{Hash, sha256};
    sha256::Hash::hash(preimage).to_string()
}
