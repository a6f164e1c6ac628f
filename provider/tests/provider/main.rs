//! A provider on a relay, with an engine that follows a script, and a buyer that
//! tries it in every way.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod buyer;
mod checks;
mod crash;
mod declines;
mod escrow;
mod house;
mod jobs;
mod killed;
mod lent;
mod made_up;
mod models;
mod modules;
mod odd;
mod paid;
mod parcels;
mod paying;
mod process;
mod queue;
mod relays;
mod shards;
mod speed;
mod stopping;
mod unpaid;
mod visible;
