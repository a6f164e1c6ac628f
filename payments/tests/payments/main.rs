//! Money: both rails by one suite, their faults, the ledger, the cashier's crashes, and the tab.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod benches;
mod cashier;
mod conformance;
mod escrow;
mod faults;
mod ledger;
mod program;
mod tab;
