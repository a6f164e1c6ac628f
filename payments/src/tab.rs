//! The tab between a buyer and a provider: who owes whom what, without clock, randomness or I/O.
//!
//! A few hundred tokens cost far less than a satoshi, so pieces are not paid one by one. The buyer tops the tab up
//! from time to time, the work is charged to it, and both sign the running totals after every piece. Either side
//! has its own machine, [`buyer::Tab`] and [`provider::Tab`]: `step(now, input)` answers effects, and whoever
//! drives it makes invoices, pays, signs and sends.
//!
//! # What holds, whatever the other side does
//! - What the buyer has paid ahead, payments under way counted in, is at most its risk limit (one top-up).
//! - What the provider has drawn and was not paid is at most the buyer's credit limit, which is nothing for a
//!   stranger and grows with what it has paid and used.
//!
//! `tests/payments/tab.rs` tries this with loss, doubling, crashes and cheats.

pub mod buyer;
pub mod provider;

use infernet_protocol::money::Msat;
pub use infernet_protocol::tab::{Forged, Statement, Totals};

/// The smallest top-up that is worth a payment.
pub const MIN_PAYMENT: Msat = Msat(10_000);

/// What a tab has seen before its machine was made: read from the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// What the buyer has paid, less what it was paid back.
    pub paid: Msat,
    /// What was charged.
    pub due: Msat,
}

/// Why the two sides do not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Disagreement {
    /// The cost is not the price times the tokens.
    #[error("the cost does not follow from the tokens")]
    Cost,
    /// More input than the work has, or another number than before.
    #[error("the input is counted differently")]
    Input,
    /// More output than there is.
    #[error("the output is counted differently")]
    Output,
    /// More than the job may cost.
    #[error("the job costs more than was agreed")]
    OverBudget,
    /// A payment that was made before is not on the tab.
    #[error("a payment is missing on the tab")]
    PaymentMissing,
    /// Earlier jobs are said to have cost something else.
    #[error("earlier jobs are charged differently")]
    Earlier,
}

/// Something that happened in a state where it makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} makes no sense now")]
pub struct Unexpected(pub &'static str);
