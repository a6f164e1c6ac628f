//! The market's language, pure: what inference is asked for, the signed events
//! that carry a job, money, and the job's life as a state machine.
//!
//! Nothing here reads a clock, draws randomness, touches a file or a socket:
//! instants, salts and sources of randomness are parameters.

pub mod batch;
pub mod bounds;
pub mod event;
mod hex32;
pub mod inference;
pub mod job;
pub mod kinds;
pub mod money;
pub mod payload;
pub mod reputation;
pub mod seal;
pub mod selection;
pub mod tab;
pub mod tensor;
pub mod verification;

pub use hex32::InvalidHex;
