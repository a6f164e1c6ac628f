//! A group of lines: its life, and what drives it.

mod machine;

pub use machine::{Cancelled, Effect, Input, Machine, State, Terms};
