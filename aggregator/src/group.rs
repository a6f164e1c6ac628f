//! A group of lines: its life, and what drives it.

mod delivery;
mod driver;
mod machine;
mod progress;
mod results;
mod settling;
mod work;

pub(crate) use driver::{Handle, begin, recover, standing_of};
pub use machine::{Cancelled, Effect, Input, Machine, State, Terms};
pub(crate) use settling::look;
