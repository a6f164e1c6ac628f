//! Kind 8604: what was paid for an attempt, stated by either side.

use nostr::{EventId, PublicKey, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Body, Refusal, Usage, V1, tag};
use crate::bounds::{MAX_PAYMENTS, MAX_RECORD_BYTES, at_most, attempt, count};
use crate::kinds;
use crate::money::Msat;
use crate::seal::Digest;

/// What was paid in all for what, in one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The protocol's version.
    pub v: V1,
    /// The job.
    pub job: EventId,
    /// The award.
    pub award: EventId,
    /// The attempt's number.
    pub attempt: u32,
    /// The result, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<EventId>,
    /// Which side states it.
    pub side: ReceiptSide,
    /// The other side.
    pub counterparty: PublicKey,
    /// What was done.
    pub usage: Usage,
    /// What it was charged.
    pub due_msat: Msat,
    /// What was paid while it ran: on a tab that may be more than it was charged, or less.
    pub paid_msat: Msat,
    /// Salted hashes of these payments ([`crate::seal::Domain::Payment`], about
    /// the award, with the salt of the award's input).
    pub payments: Vec<Digest>,
    /// How the tab stands after it, if it was paid by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tab: Option<TabTotals>,
}

/// What has been charged and paid on a tab so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TabTotals {
    /// What all attempts on it were charged.
    pub due_msat: Msat,
    /// What the buyer has paid, less what it was paid back.
    pub paid_msat: Msat,
}

/// A side of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptSide {
    /// Who pays.
    Buyer,
    /// Who is paid.
    Provider,
}

impl Body for Receipt {
    const KIND: u16 = kinds::RECEIPT;
    const MAX_CONTENT_BYTES: usize = MAX_RECORD_BYTES;

    fn tags(&self) -> Vec<Tag> {
        let mut tags = vec![
            tag(["e", &self.job.to_hex()]),
            tag(["e", &self.award.to_hex()]),
            tag(["p", &self.counterparty.to_hex()]),
        ];
        tags.extend(self.result.map(|result| tag(["e", &result.to_hex()])));
        tags
    }

    fn alt(&self) -> String {
        format!("A receipt over {}", self.paid_msat)
    }

    fn validate(&self, author: &PublicKey, _created_at: Timestamp) -> Result<(), Refusal> {
        attempt(self.attempt)?;
        self.usage.validate()?;
        at_most("due_msat", self.due_msat.0, Msat::MAX.0)?;
        at_most("paid_msat", self.paid_msat.0, Msat::MAX.0)?;
        count("payments", self.payments.len(), MAX_PAYMENTS)?;
        if let Some(tab) = &self.tab {
            at_most("tab.due_msat", tab.due_msat.0, Msat::MAX.0)?;
            at_most("tab.paid_msat", tab.paid_msat.0, Msat::MAX.0)?;
        }
        match self.counterparty == *author {
            true => Err(Refusal::Invalid("nobody pays itself")),
            false => Ok(()),
        }
    }
}
