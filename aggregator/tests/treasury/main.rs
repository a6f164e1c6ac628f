//! The treasury alone, over wallets that misbehave and processes that die: nobody is paid twice, no buyer pays for what
//! was not charged, no hold outlives its deadline, and the books add up.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod anything;
mod house;
mod rules;
