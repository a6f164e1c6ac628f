//! Splits batches, buys, checks and holds the money until the work is proven: the
//! library under `infernet-aggregator`.
//!
//! [`run`] takes [`Options`] and a shutdown, and answers a [`Handle`].
//!
//! # A batch's way through the house
//! `desk` hears its buyer → `quoting` says what it would cost → the order is taken
//! (`store`) → each group's lines are fetched (`desk::opening`) and its life begins
//! (`group::machine`, driven by `group::driver`): its money is held (`treasury`), its
//! lines are cut (`shards`), given to providers (`dispatch`, `buying`), checked
//! (`checks`), bought again where that failed (`group::work`), merged (`outcomes`),
//! handed over (`group::delivery`) and settled (`group::settling`).
//!
//! # What survives a crash
//! How far a group is, which shards have ended and what came of them is written down
//! before it counts. At the next start every open group goes on where it was. What is at
//! a provider is waited for a moment, and bought again if it does not come; a result
//! that comes later is judged and paid all the same (`late`).
//!
//! **Invariant:** prompts and answers are in the group's folder alone, which its owner
//! alone can read, and in no log. The folder goes when the group is over.

mod announcing;
pub mod bought;
mod buying;
pub mod checks;
mod desk;
pub mod dispatch;
pub mod group;
pub mod home;
mod house;
mod late;
mod money;
mod open;
pub mod options;
mod outcomes;
mod owner;
mod quoting;
pub mod ranks;
mod running;
pub mod settings;
pub mod shards;
pub mod socket;
pub mod status;
pub mod store;
pub mod tally;
#[cfg(test)]
mod testing;
pub mod treasury;
mod trouble;

pub use bought::Bought;
pub use home::Home;
pub use options::Options;
pub use running::{Error, Handle, run};
