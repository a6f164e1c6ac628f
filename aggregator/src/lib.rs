//! Splits batches, buys, checks and holds the money until the work is proven: the
//! library under `infernet-aggregator`.

pub mod bought;
pub mod checks;
pub mod group;
pub mod home;
pub mod options;
pub mod ranks;
pub mod store;
pub mod tally;
#[cfg(test)]
mod testing;
pub mod treasury;

pub use bought::Bought;
pub use home::Home;
pub use options::Options;
