//! Why a request is not done, in NIP-47's codes.

use serde::{Deserialize, Serialize};

/// NIP-47's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// Too much at once: try again in a few seconds.
    RateLimited,
    /// The wallet does not know that.
    NotImplemented,
    /// The wallet cannot send that much.
    InsufficientBalance,
    /// The connection's budget is used up.
    QuotaExceeded,
    /// The connection may not do that.
    Restricted,
    /// There is no such connection any more.
    Unauthorized,
    /// The wallet is at fault.
    Internal,
    /// The payment failed for good: nothing was paid.
    PaymentFailed,
    /// There is no such invoice or payment.
    NotFound,
    /// The wallet does not speak that encryption.
    UnsupportedEncryption,
    /// Something else; mostly a request that makes no sense.
    Other,
}

/// A refusal with its reason in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A request that makes no sense, or cannot be done as things stand.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Code::Other, message)
    }

    /// Nothing is known under that hash.
    pub fn not_found() -> Self {
        Self::new(
            Code::NotFound,
            "this connection knows no such invoice or payment",
        )
    }
}

impl From<crate::record::Error> for Refusal {
    fn from(error: crate::record::Error) -> Self {
        tracing::error!(%error, "the wallet's records cannot be used");
        Self::new(
            Code::Internal,
            "the wallet cannot read or write its records",
        )
    }
}
