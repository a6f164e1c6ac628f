//! A relay for the market: Nostr and HTTP on one port, admission rules, a durable store.
//!
//! [`run`] takes [`Options`] and a [`Shutdown`](infernet_node::shutdown::Shutdown), and answers a cheap [`Handle`]
//! as soon as the relay listens. What it promises its clients is written in `nips/relay.md`.
//!
//! A connection comes in at `server`, is answered by `http`, and as a websocket handed to `session`, which asks
//! `admission` whether an event may stay, `store` to keep it, and `subscriptions` to tell others of it.
//!
//! `blobs` is a Blossom server on the same port, for payloads that no event carries. `sync` makes this relay and another
//! equal, [`policy`] lends the admission to a strfry, and over the socket of `owner` the program talks to its owner.
//!
//! Whom the operator bans and allows stands in `lists`, changed by `management` (NIP-86) and `decisions`; `metrics`
//! counts.
//!
//! **Invariant:** an event that was answered `OK true` is on the disk (ephemeral kinds excepted), and evidence
//! (kinds 8602–8606, 8609, 8610) leaves it only when the operator bans it by name.

mod address;
mod admission;
mod blobs;
pub mod decisions;
mod document;
mod http;
mod lists;
mod lock;
mod management;
mod metrics;
mod options;
mod owner;
mod page;
pub mod policy;
mod server;
mod session;
mod signed;
mod status;
pub mod store;
mod subscriptions;
pub mod sync;

pub use admission::MAX_AHEAD_SECS;
pub use options::{
    Access, AddressLimits, Auth, BlobLimits, Direction, EXAMPLE, Limits, MAX_MESSAGE_BYTES,
    Options, Peer, Rate, ReconciliationLimits, Senseless, Share, Work, filter_of, url_of,
};
pub use owner::{Error as OwnerError, status};
pub use server::{Error, Handle, run};
pub use status::Status;
