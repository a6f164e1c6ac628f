//! Encrypted blobs on Blossom servers: payloads that no event carries.
//!
//! [`Blobs`] puts bytes on the servers that its owner configured and gets what others put on theirs. What is in a blob
//! and how it is encrypted is `infernet_protocol::seal::blob`; a server sees neither.
//!
//! **Invariant:** what [`Blobs::get`] answers has the promised size and hash; nothing beyond that size is read.
//!
//! **Invariant:** an address that somebody else wrote is asked by `https` alone, or if it is one of our own servers:
//! no blob makes us look around in its reader's network.

mod address;
mod authorization;
mod client;
mod error;
mod transfer;

pub use address::{Address, InvalidAddress, servers_of};
pub use client::Blobs;
pub use error::{Error, Failure};
