//! The whole market, with real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod architecture;
