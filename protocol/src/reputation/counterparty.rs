//! What the dealings with one counterparty count.
//!
//! Whoever orders through an aggregator may be the provider itself under another key.
//! What it then loses is the aggregator's fee; so the fee is what its praise weighs,
//! logarithmically and up to a bound. All that the fees do not account for counts as one
//! completed job at most.

use nostr::PublicKey;

use super::{FEE_UNIT, INVALID_WEIGHT, MAX_COUNTERPARTY};
use crate::event::{Attestation, BatchShare, Experience};
use crate::money::Msat;

/// Who the work was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Counterparty {
    /// The trusted author, for itself.
    Author(PublicKey),
    /// One who ordered batches of the author.
    Buyer(PublicKey, PublicKey),
    /// All who ordered batches of the author and never paid a fee.
    Free(PublicKey),
}

impl Counterparty {
    pub(super) fn of(author: PublicKey, batch: Option<&BatchShare>) -> Self {
        match batch {
            None => Self::Author(author),
            Some(batch) => Self::Buyer(author, batch.buyer),
        }
    }

    /// The author whose word it is.
    pub(super) const fn author(&self) -> PublicKey {
        match self {
            Self::Author(author) | Self::Buyer(author, _) | Self::Free(author) => *author,
        }
    }

    /// As whose the dealings count: a buyer's without fees are one with all such.
    pub(super) fn counts_as(self, dealings: &Dealings) -> Self {
        match self {
            Self::Buyer(author, _) if dealings.fees_msat <= 0.0 => Self::Free(author),
            other => other,
        }
    }
}

/// What has happened with one counterparty, all decayed.
#[derive(Default)]
pub(super) struct Dealings {
    completed: f64,
    failed: f64,
    fees_msat: f64,
    /// Of completed jobs with a measured speed: the share of the promise that was kept.
    pub(super) kept: f64,
    /// How many these were.
    pub(super) timed: f64,
}

impl Dealings {
    pub(super) fn add(&mut self, attestation: &Attestation, weight: f64) {
        match attestation.experience {
            Experience::Completed => {
                self.completed += weight;
                if let Some(kept) = kept_speed(attestation) {
                    self.kept += weight * kept;
                    self.timed += weight;
                }
            }
            Experience::Failed | Experience::Silent => self.failed += weight,
            Experience::Invalid => self.failed += weight * INVALID_WEIGHT,
            // A rejection counts for itself, and not among the failures.
            Experience::Rejected => {}
        }
        let fee = attestation.batch.map_or(Msat::ZERO, |batch| batch.fee_msat);
        self.fees_msat += weight * fee.0 as f64;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.fees_msat += other.fees_msat;
        self.kept += other.kept;
        self.timed += other.timed;
    }

    /// What was completed that counts for the provider whatever else is there.
    pub(super) fn sure(&self, with: &Counterparty) -> f64 {
        match with {
            Counterparty::Author(_) => self.completed,
            Counterparty::Buyer(..) | Counterparty::Free(_) => {
                let sure = (1.0 - self.failing()) * self.worth();
                sure.min(self.completed)
            }
        }
    }

    /// What counts against it. The share of failures stays; without fees they weigh by
    /// their number.
    pub(super) fn bad(&self, with: &Counterparty) -> f64 {
        match with {
            Counterparty::Author(_) => self.failed,
            Counterparty::Buyer(..) | Counterparty::Free(_) => {
                let bad = self.failing() * (self.worth() + (1.0 + self.failed).log2());
                bad.min(self.failed)
            }
        }
    }

    /// What the fees are worth, in completed jobs.
    fn worth(&self) -> f64 {
        let fees = (1.0 + self.fees_msat / FEE_UNIT.0 as f64).log2();
        fees.min(MAX_COUNTERPARTY)
    }

    /// The share that failed.
    fn failing(&self) -> f64 {
        let all = self.completed + self.failed;
        match all > 0.0 {
            true => self.failed / all,
            false => 0.0,
        }
    }

    /// Of what was completed, so much counts: what is sure, and a share of the rest.
    pub(super) fn good(&self, with: &Counterparty, share_of_rest: f64) -> f64 {
        let sure = self.sure(with);
        sure + (self.completed - sure) * share_of_rest
    }

    /// The share of what was completed that counts.
    pub(super) fn share(&self, good: f64) -> f64 {
        match self.completed > 0.0 {
            true => good / self.completed,
            false => 0.0,
        }
    }

    pub(super) const fn completed(&self) -> f64 {
        self.completed
    }
}

/// The share of the promised speed that was kept, at most 1.
fn kept_speed(attestation: &Attestation) -> Option<f64> {
    let measured = attestation.measured?.tokens_per_s;
    let promised = attestation.promised.tokens_per_s;
    if promised <= 0.0 || measured <= 0.0 {
        return None;
    }
    Some(f64::from(measured / promised).min(1.0))
}
