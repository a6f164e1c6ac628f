//! The harness of the whole-market tests: real processes of the real binaries,
//! each with a folder of its own, ended by their id when a test ends.
//!
//! Nothing here waits for luck: every wait is for something said or written,
//! with a deadline after which the test fails and shows what was said.

mod binaries;
pub mod lightning;
pub mod load;
mod market;
mod process;
mod requirements;

pub use binaries::{binary, wallet, wallet_example};
pub use lightning::{Lightning, Money};
pub use market::{Aggregator, Client, Finished, Market, Provider, Relay, WALLET};
pub use process::Process;
pub use requirements::{model, skip};
