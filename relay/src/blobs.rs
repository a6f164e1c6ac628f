//! Blobs over HTTP, as Blossom has them: BUD-01 (get), BUD-02 (upload), BUD-06 (ask before), BUD-11 (who may) and
//! BUD-12 (list, delete). They are what encrypted payloads travel in that no event carries.
//!
//! A request comes in at `routes`; `authorization` reads who wants what; `shelf` keeps the bytes within its quotas and
//! drops them when their days are over; `meter` bounds what one address may send in an hour, and
//! `uploads` how many it may send at a time.
//!
//! **Invariant:** what was answered 200 or 201 is on the disk, whole, under its hash.
//!
//! **Invariant:** nothing that somebody uploaded is ever served as a page.

mod authorization;
mod draft;
mod meter;
mod range;
mod refusal;
mod routes;
mod shelf;
mod uploads;

pub use routes::{Blobs, router};
pub use shelf::{Error, Shelf};
