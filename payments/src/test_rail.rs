//! A Lightning network in one process, for tests and for demonstrations without a chain: wallets that pay each
//! other play money with real BOLT-11 invoices, and misbehave on demand.
//!
//! Time is virtual: it stands still until [`Network::advance`]. Money is neither made nor lost but by
//! [`Network::wallet`]: [`Network::total`] stays what it was.

mod fault;
mod network;
mod wallet;
mod world;

pub use self::fault::Fault;
pub use self::network::{Network, Routing};
pub use self::wallet::Wallet;
