//! NIP-47 (Nostr Wallet Connect): its words, as they stand on the wire.
//!
//! The envelopes are our own because those of `nostr` 0.44 know NIP-04 only, and its types refuse a hold's state
//! `accepted` and any method they do not know.

mod connection_string;
pub(crate) mod envelope;
mod method;
pub mod params;
mod refusal;
pub(crate) mod transaction;

pub use self::connection_string::ConnectionString;
pub use self::envelope::{
    Cipher, Envelope, INFO, NOTIFICATION, NOTIFICATION_LEGACY, REQUEST, RESPONSE,
};
pub use self::method::Method;
pub use self::params::{
    GetTransactions, LookupInvoice, MakeHoldInvoice, MakeInvoice, PayInvoice, PaymentHash, Request,
    Settle, hash_of,
};
pub use self::refusal::{Code, Refusal};
pub use self::transaction::{Direction, State, Transaction};

/// The ways to encrypt that the wallet announces, best first.
pub const ENCRYPTIONS: &str = "nip44_v2 nip04";

/// The notifications that the wallet sends.
pub const NOTIFICATIONS: [&str; 3] = [PAYMENT_RECEIVED, PAYMENT_SENT, HOLD_INVOICE_ACCEPTED];

/// An invoice was paid.
pub const PAYMENT_RECEIVED: &str = "payment_received";

/// A payment was made.
pub const PAYMENT_SENT: &str = "payment_sent";

/// A hold invoice's payment is held.
pub const HOLD_INVOICE_ACCEPTED: &str = "hold_invoice_accepted";
