//! The wallet as its clients meet it: real processes, a real bitcoind on regtest, real channels, NIP-47 alone.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod basics;
mod bitcoind;
mod client;
mod crashes;
mod holds;
mod hostile;
mod liquidity;
mod process;
