//! What happens to a batch, for whoever waits for it.

use infernet_protocol::money::Msat;
use nostr::EventId;
use serde::Serialize;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// How far it is.
    Totals(Totals),
    /// The aggregator does not answer; it is asked on.
    Away,
    /// It answers again.
    Back,
    /// A hold invoice is being paid.
    Paying {
        /// For which group.
        group: u32,
        /// How much.
        amount: Msat,
    },
    /// A hold invoice is not paid; it is tried again.
    Unpaid {
        /// For which group.
        group: u32,
        /// Why not.
        why: String,
    },
    /// Nothing came of a group; what was held for it goes back.
    Cancelled {
        /// Which.
        group: u32,
        /// Why, in the aggregator's words.
        reason: String,
    },
    /// Input or answers are on no server that can be reached; it is tried again.
    Blobless {
        /// Which group's.
        group: u32,
        /// Why.
        why: String,
    },
    /// The aggregator did not keep to its quote.
    Broken {
        /// In which group.
        group: u32,
        /// What it did.
        how: String,
    },
    /// All answers are there; what is left is asked back.
    Refunding {
        /// How much.
        amount: Msat,
    },
    /// What was left has come back.
    Refunded {
        /// How much.
        amount: Msat,
    },
}

/// How far a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Lines of the input.
    pub lines: u64,
    /// Of these, lines that nobody could be given.
    pub flawed: u64,
    /// Lines that are at providers now.
    pub running: u64,
    /// Lines that were done.
    pub done: u64,
    /// Of these, lines that were checked, as the aggregator says.
    pub verified: u64,
    /// Lines that could not be done.
    pub failed: u64,
    /// Tokens of the answers that are written.
    pub tokens: u64,
    /// What it has cost so far.
    pub cost_msat: Msat,
    /// Seconds it will still take, if that can be guessed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// How a batch ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The order; none if no line could be given to anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<EventId>,
    /// What became of the lines.
    pub totals: Totals,
    /// What was held and not charged, and has not come back yet.
    pub credit_msat: Msat,
    /// How the aggregator broke its quote, if it did.
    pub broken: Vec<String>,
}
