//! The market's language, pure: what inference is asked for, the signed events
//! that carry a job, money, and the job's life as a state machine.
//!
//! Nothing here reads a clock, draws randomness, touches a file or a socket:
//! instants, salts and keys are parameters.

pub mod inference;
