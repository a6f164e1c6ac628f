//! A group of lines: its life, and what drives it.

mod delivery;
mod driver;
mod effects;
mod handle;
mod job;
mod machine;
mod progress;
mod results;
mod settling;
mod times;
mod work;

pub(crate) use handle::{Handle, drive, recover, standing_of};
pub use machine::{Cancelled, Effect, Input, Machine, State, Terms};
pub(crate) use results::{Purchased, judge};
pub(crate) use settling::look;
