//! NIP-47, Nostr Wallet Connect: any wallet that speaks it, as a payment rail; and a service that lends a rail's
//! wallet to others in the same way.
//!
//! The envelopes are our own, because those of the nostr crate know only NIP-04, and refuse states, codes and
//! methods that they do not know. Here NIP-44 comes first, NIP-04 is for wallets that offer nothing else, and what
//! is unknown is left alone.
//!
//! Requests and answers are ephemeral events: any of them may be lost. Each request says until when it may be done
//! (`expiration`), reads are asked again, and a payment whose answer is lost is pending until a look-up tells more.

mod client;
mod connection;
mod desk;
mod envelope;
mod message;
mod params;
mod service;

pub use self::client::{Options, Rail};
pub use self::connection::{Connection, InvalidConnection};
pub use self::envelope::Encryption;
pub use self::service::{Fault, Service, ServiceOptions};

/// What a wallet can do, and how to speak to it.
pub(crate) const INFO: u16 = 13_194;
/// A request to a wallet.
pub(crate) const REQUEST: u16 = 23_194;
/// A wallet's answer.
pub(crate) const RESPONSE: u16 = 23_195;
/// A wallet's news, by NIP-04.
pub(crate) const NOTIFICATION_NIP04: u16 = 23_196;
/// A wallet's news, by NIP-44.
pub(crate) const NOTIFICATION: u16 = 23_197;
