//! Money: the port to a Lightning wallet with its adapters, the ledger, and the tab between a buyer and a provider.
//!
//! - [`rail`]: the port. [`nip47`] speaks to any wallet that serves NIP-47; [`test_rail`] is a network of wallets
//!   in one process that misbehave on demand.
//! - [`ledger`]: double entry, append-only, on SQLite; and [`cashier`], which pays and gets paid so that no crash
//!   loses or doubles anything.
//! - [`tab`]: who owes whom what, without I/O.

mod adopting;
pub mod cashier;
mod hash;
pub mod holding;
mod invoice;
pub mod ledger;
pub mod nip47;
pub mod rail;
mod resuming;
pub mod tab;
pub mod test_rail;

pub use self::cashier::Cashier;
pub use self::hash::{InvalidHex, PaymentHash, Preimage};
pub use self::invoice::{InvalidInvoice, Invoice, MAX_INVOICE_BYTES};
pub use self::ledger::Ledger;
pub use self::rail::PaymentRail;
