//! Splits batches, buys, checks and holds the money until the work is proven: the
//! library under `infernet-aggregator`.

pub mod bought;
pub mod checks;
pub mod ranks;
pub mod treasury;

pub use bought::Bought;
