//! Kind 8610: what came of a group of a batch's lines.

use nostr::{EventId, PublicKey, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Body, Refusal, V1, tag};
use crate::batch::Charge;
use crate::bounds::{
    MAX_EVENT_BYTES, MAX_GROUP_LINES, MAX_GROUP_RESULTS, MAX_GROUPS, at_most, count,
};
use crate::kinds;
use crate::money::Msat;
use crate::seal::Digest;
use crate::verification::Secret;

/// What came of a group, for anybody to audit. The last one of an order is about no
/// group, and reveals the secret that chose what was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settlement {
    /// The protocol's version.
    pub v: V1,
    /// The order.
    pub order: EventId,
    /// The buyer.
    pub buyer: PublicKey,
    /// What came of the group, in all but the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<SettledGroup>,
    /// The secret that the quote committed to, in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

/// What came of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettledGroup {
    /// Its number.
    pub number: u32,
    /// Lines it had.
    pub lines: u32,
    /// Lines whose work was accepted, or needed no check.
    pub accepted: u32,
    /// Lines whose check did not tell: charged, and not rated.
    pub inconclusive: u32,
    /// Lines that could not be done: not charged.
    pub failed: u32,
    /// What was charged.
    pub charge: Charge,
    /// What was held and taken; what is over is the buyer's credit.
    pub taken_msat: Msat,
    /// Salted hash of the payment ([`crate::seal::Domain::Payment`], about the
    /// order), where there was one. Its salt is the key of the group's output, which
    /// the two alone know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<Digest>,
    /// Every result that was bought for it, rejected ones among them.
    pub results: Vec<CheckedResult>,
}

/// A result, and whether it was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckedResult {
    /// The result.
    pub result: EventId,
    /// How probable it was that it be checked, in millionths
    /// ([`crate::verification::Secret::chooses`]).
    pub chance_ppm: u32,
    /// The verdict that was gone by, where it was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<EventId>,
}

impl Body for Settlement {
    const KIND: u16 = kinds::SETTLEMENT;
    const MAX_CONTENT_BYTES: usize = MAX_EVENT_BYTES / 2;

    fn tags(&self) -> Vec<Tag> {
        vec![
            tag(["e", &self.order.to_hex()]),
            tag(["p", &self.buyer.to_hex()]),
        ]
    }

    fn alt(&self) -> String {
        match &self.group {
            Some(group) => format!(
                "What came of {} lines of a batch: {} accepted",
                group.lines, group.accepted
            ),
            None => "A batch is closed".to_owned(),
        }
    }

    fn validate(&self, author: &PublicKey, _created_at: Timestamp) -> Result<(), Refusal> {
        if self.group.is_none() == self.secret.is_none() {
            return Err(Refusal::Invalid(
                "it is about a group, or it closes the order",
            ));
        }
        if self.buyer == *author {
            return Err(Refusal::Invalid("nobody settles with itself"));
        }
        self.group.as_ref().map_or(Ok(()), SettledGroup::validate)
    }
}

impl SettledGroup {
    fn validate(&self) -> Result<(), Refusal> {
        at_most("group", self.number.into(), (MAX_GROUPS - 1).into())?;
        at_most("lines", self.lines.into(), MAX_GROUP_LINES.into())?;
        let told = [self.accepted, self.inconclusive, self.failed];
        let told: u64 = told.iter().map(|&lines| u64::from(lines)).sum();
        if told != u64::from(self.lines) {
            return Err(Refusal::Invalid("its lines do not add up"));
        }
        self.charge.validate()?;
        at_most("taken_msat", self.taken_msat.0, Msat::MAX.0)?;
        count("results", self.results.len(), MAX_GROUP_RESULTS)?;
        let mut results = self.results.iter();
        results.try_for_each(|result| at_most("chance_ppm", result.chance_ppm.into(), 1_000_000))
    }
}
