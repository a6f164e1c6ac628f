//! Every cheat, as a provider or a checker that misbehaves, and what becomes of it.
#![allow(missing_docs, clippy::unwrap_used)]

mod blobs;
mod checkers;
mod conduct;
mod fake;
mod house;
mod market;
mod providers;
mod toy;
