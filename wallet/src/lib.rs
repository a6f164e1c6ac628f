//! A Lightning wallet in a process of its own: an LDK node that serves NIP-47.
//!
//! It is a process of its own because an LDK node that dies at the wrong moment closes its channels, and because keys
//! to money stay out of processes that run other people's jobs. Any client of NIP-47 can use it; the market's
//! processes are clients like others.

pub mod channels;
pub mod control;
pub mod events;
pub mod fault;
pub mod history;
pub mod hold;
pub mod holding;
pub mod home;
pub mod interrupted;
pub mod ldk_log;
pub mod lightning;
pub mod nip47;
pub mod pay;
pub mod peers;
pub mod receive;
pub mod record;
pub mod relay;
pub mod run;
pub mod seats;
pub mod seed;
pub mod service;
pub mod settings;
pub mod status;
pub mod wallet;
