//! The job's machines, one situation at a time.

mod buyer;
mod provider;
