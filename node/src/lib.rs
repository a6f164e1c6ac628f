//! What every process of the market is made of: keys, configuration, logs, shutdown and the link to relays.
//!
//! A role (relay, provider, client) is `Options -> run(options, shutdown) -> Handle`; the options are read by
//! [`config`], the identity by [`keys`], the two stages of stopping are [`shutdown::Shutdown`].

pub mod clock;
pub mod complaint;
pub mod config;
pub mod database;
pub mod home;
pub mod keys;
pub mod link;
pub mod mortality;
pub mod owner;
pub mod shutdown;
pub mod telemetry;
