//! From attestations to a score that anybody can recompute
//! (`nips/reputation.md`).

use std::collections::{BTreeMap, HashSet};

use nostr::{EventId, PublicKey, Timestamp};

use crate::event::{Attestation, Experience, Signed};

/// After this many seconds an attestation counts half: thirty days.
pub const HALF_LIFE_S: u64 = 30 * 24 * 3_600;

/// What a provider starts with: as if it had failed once and completed once.
const PRIOR_COMPLETED: f64 = 1.0;
const PRIOR_TOTAL: f64 = 2.0;

/// An invalid answer costs as much as this many failures: sending one has to
/// lose more than it can gain.
const INVALID_WEIGHT: f64 = 5.0;

/// How a provider stands with one reader.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// From 0 to 1; 0.5 for somebody unknown.
    pub score: f64,
    /// Attestations that counted.
    pub counted: usize,
    /// Attestations by authors whom the reader does not trust; they do not count,
    /// since colluders could write any number of them.
    pub ignored: usize,
}

#[derive(Default)]
struct Sums {
    weight: f64,
    completed: f64,
    kept_speed: f64,
    speed_weight: f64,
}

/// The score of the one provider that all these attestations are about, for a
/// reader who trusts these authors.
///
/// completion = (1 + Σ w·completed) / (2 + Σ w), pace = (1 + Σ w·kept) / (1 + Σ w)
/// over completed jobs, score = completion · (1 + pace) / 2, where
/// w = 2^(−age / 30 days), five times that for an invalid answer.
pub fn standing<'a>(
    attestations: impl IntoIterator<Item = &'a Signed<Attestation>>,
    trusted: &HashSet<PublicKey>,
    now: Timestamp,
) -> Standing {
    let mut firsts = BTreeMap::new();
    let mut ignored = 0;
    for attestation in attestations {
        if !trusted.contains(&attestation.author()) {
            ignored += 1;
            continue;
        }
        let first = firsts
            .entry((attestation.author(), attestation.award))
            .or_insert(attestation);
        if age_order(attestation) < age_order(first) {
            *first = attestation;
        }
    }
    let mut sums = Sums::default();
    for attestation in firsts.values() {
        sums.add(attestation, now);
    }
    Standing {
        score: sums.score(),
        counted: firsts.len(),
        ignored,
    }
}

/// Of several attestations by one author about one award the first counts, in
/// whatever order they come.
fn age_order(attestation: &Signed<Attestation>) -> (Timestamp, EventId) {
    (attestation.created_at(), attestation.id())
}

impl Sums {
    fn add(&mut self, attestation: &Signed<Attestation>, now: Timestamp) {
        let age_s = now
            .as_secs()
            .saturating_sub(attestation.created_at().as_secs());
        let fresh = 0.5_f64.powf(age_s as f64 / HALF_LIFE_S as f64);
        match attestation.experience {
            Experience::Completed => {
                self.weight += fresh;
                self.completed += fresh;
                if let Some(kept) = kept_speed(attestation) {
                    self.kept_speed += fresh * kept;
                    self.speed_weight += fresh;
                }
            }
            Experience::Failed | Experience::Silent => self.weight += fresh,
            Experience::Invalid | Experience::Rejected => self.weight += fresh * INVALID_WEIGHT,
        }
    }

    fn score(&self) -> f64 {
        let completion = (PRIOR_COMPLETED + self.completed) / (PRIOR_TOTAL + self.weight);
        let pace = (1.0 + self.kept_speed) / (1.0 + self.speed_weight);
        completion * (1.0 + pace) / 2.0
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
