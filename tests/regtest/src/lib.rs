//! A private chain with Lightning wallets on it: a real bitcoind in regtest, real `infernet-wallet` processes, real
//! channels. Money that is worth nothing and moves like money that is.
//!
//! Scripts and tests stand on it, the wallet's own too, which are in another workspace: so it uses nothing of ours
//! and little of others. Everything is in folders that the caller names, on ports of the loopback, and ends with the
//! value that started it.

mod bitcoind;
mod network;
mod port;
mod wait;
mod wallet;

pub use bitcoind::{Bitcoind, find};
pub use network::{CHANNEL_SATS, Network, PUSHED_SATS};
pub use port::free_port;
pub use wait::{PATIENCE, give_up, until};
pub use wallet::Wallet;
