//! The engine on real models: SmolLM2 and MiniLM where `scripts/fetch models`
//! has put them, and a tiny Llama of random weights that lies in the tree.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod answers;
mod checking;
mod damaged;
mod embeddings;
mod families;
mod families_refused;
mod harness;
mod identity;
mod modules;
mod refusals;
mod sampling;
mod scheduling;
mod scoring;
mod scripted;
mod serving;
mod streaming;
