//! From attestations and verdicts to a score that anybody can recompute
//! (`nips/reputation.md`).

mod counterparty;

use std::collections::{BTreeMap, HashMap, HashSet};

use nostr::{EventId, PublicKey, Timestamp};

use crate::event::{Attestation, Experience, Judgement, Signed, Verdict};
use crate::money::Msat;
use counterparty::{Counterparty, Dealings};

/// After this many seconds an attestation counts half: thirty days.
pub const HALF_LIFE_S: u64 = 30 * 24 * 3_600;

/// After this many seconds a rejection, and a check that was passed, count half: half a
/// year. A key that cheated cannot just lie fallow for a while.
pub const CHECKS_HALF_LIFE_S: u64 = 180 * 24 * 3_600;

/// What a provider starts with: as if it had failed three times and completed once. A
/// fresh key is no better than one that was caught, or the latter would be thrown away.
const PRIOR_COMPLETED: f64 = 1.0;
const PRIOR_TOTAL: f64 = 4.0;

/// An invalid answer costs as much as this many failures: sending one has to
/// lose more than it can gain.
const INVALID_WEIGHT: f64 = 5.0;

/// Each rejection divides the score by this, whatever was earned before.
const REJECTION_DIVISOR: f64 = 4.0;

/// Of this many checks one may reject honest work: twice as often as the thresholds
/// are calibrated for.
const CHECKS_FOR_ONE_ERROR: f64 = 500.0;

/// The fee that counts as one completed job: that of a thousand satoshis of work at 1 %.
pub const FEE_UNIT: Msat = Msat(10_000);

/// The most that all completed jobs of an author's buyers count which their fees do not
/// account for: it lets somebody honest begin, and costs an attacker only the work.
const MAX_REST: f64 = 1.0;

/// The most that one counterparty counts, however much it has paid.
pub const MAX_COUNTERPARTY: f64 = 8.0;

/// How a provider stands with one reader.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// From 0 to 1; 0.25 for somebody unknown.
    pub score: f64,
    /// Attestations that counted.
    pub counted: usize,
    /// Attestations by authors whom the reader does not trust, which colluders could
    /// write any number of, and such as a verdict contradicts; they do not count.
    pub ignored: usize,
    /// Rejections among those that counted.
    pub rejected: usize,
    /// Different counterparties: trusted authors that bought for themselves, and buyers
    /// that paid one of them a fee.
    pub counterparties: usize,
}

/// The score of the one provider that all these attestations and verdicts are about,
/// for a reader who trusts these authors. Of verdicts, those count that a counted
/// attestation names, and rejections signed by trusted authors themselves.
///
/// completion = (1 + Σ good) / (4 + Σ good + Σ bad), over counterparties;
/// pace = (1 + Σ w·kept) / (1 + Σ w), over completed jobs with a measured speed;
/// score = completion · (1 + pace) / 2 · 4^(−max(0, rejections − checks / 500)).
pub fn standing<'a>(
    attestations: impl IntoIterator<Item = &'a Signed<Attestation>>,
    verdicts: impl IntoIterator<Item = &'a Signed<Verdict>>,
    trusted: &HashSet<PublicKey>,
    now: Timestamp,
) -> Standing {
    let verdicts: HashMap<_, _> = verdicts.into_iter().map(|v| (v.id(), v)).collect();
    let (words, ignored) = trusted_words(attestations, &verdicts, trusted);
    let mut sums = Sums::default();
    for attestation in words.values() {
        sums.attested(attestation, now);
    }
    let attested: HashSet<_> = words.values().filter_map(|a| a.verdict).collect();
    let own = verdicts.values().filter(|verdict| {
        verdict.judgement == Judgement::Rejected
            && trusted.contains(&verdict.author())
            && !attested.contains(&verdict.id())
    });
    // One rejection for each award, however many trusted checkers signed one.
    let rejected: BTreeMap<_, _> = own.map(|v| (v.award, v.created_at())).collect();
    let is_new = |award: &EventId| !words.values().any(|a| is_rejection_of(a, award));
    for (_, at) in rejected.iter().filter(|(award, _)| is_new(award)) {
        sums.rejected(age_s(*at, now));
    }
    Standing {
        score: sums.score(),
        counted: words.len(),
        ignored,
        rejected: sums.rejected,
        counterparties: sums.counterparties(),
    }
}

type Words<'a> = BTreeMap<(PublicKey, EventId), &'a Signed<Attestation>>;

/// Of several attestations by one author about one award the first counts, in whatever
/// order they come; one that rejects comes before all that do not.
fn trusted_words<'a>(
    attestations: impl IntoIterator<Item = &'a Signed<Attestation>>,
    verdicts: &HashMap<EventId, &Signed<Verdict>>,
    trusted: &HashSet<PublicKey>,
) -> (Words<'a>, usize) {
    let mut words = Words::new();
    let mut ignored = 0;
    for attestation in attestations {
        let named = attestation.verdict.and_then(|id| verdicts.get(&id));
        let contradicted = named.is_some_and(|verdict| !agree(attestation, verdict));
        if contradicted || !trusted.contains(&attestation.author()) {
            ignored += 1;
            continue;
        }
        let word = words
            .entry((attestation.author(), attestation.award))
            .or_insert(attestation);
        if precedence(attestation) < precedence(word) {
            *word = attestation;
        }
    }
    (words, ignored)
}

fn precedence(attestation: &Signed<Attestation>) -> (bool, Timestamp, EventId) {
    let is_mild = attestation.experience != Experience::Rejected;
    (is_mild, attestation.created_at(), attestation.id())
}

fn is_rejection_of(attestation: &Attestation, award: &EventId) -> bool {
    attestation.award == *award && attestation.experience == Experience::Rejected
}

/// Whether a verdict says what the attestation that names it says.
fn agree(attestation: &Attestation, verdict: &Verdict) -> bool {
    let is_about_it = verdict.award == attestation.award
        && Some(verdict.result) == attestation.result
        && verdict.provider == attestation.provider;
    let is_rejected = attestation.experience == Experience::Rejected;
    is_about_it && is_rejected == (verdict.judgement == Judgement::Rejected)
}

fn age_s(at: Timestamp, now: Timestamp) -> u64 {
    now.as_secs().saturating_sub(at.as_secs())
}

/// What is left of something's weight: half of it after each half-life.
fn decayed(age_s: u64, half_life_s: u64) -> f64 {
    0.5_f64.powf(age_s as f64 / half_life_s as f64)
}

#[derive(Default)]
struct Sums {
    dealings: BTreeMap<Counterparty, Dealings>,
    rejections: f64,
    checks: f64,
    rejected: usize,
}

impl Sums {
    fn attested(&mut self, attestation: &Signed<Attestation>, now: Timestamp) {
        let age_s = age_s(attestation.created_at(), now);
        if attestation.experience == Experience::Rejected {
            return self.rejected(age_s);
        }
        if attestation.verdict.is_some() {
            self.checks += decayed(age_s, CHECKS_HALF_LIFE_S);
        }
        let with = Counterparty::of(attestation.author(), attestation.batch.as_ref());
        let dealings = self.dealings.entry(with).or_default();
        dealings.add(attestation, decayed(age_s, HALF_LIFE_S));
    }

    fn rejected(&mut self, age_s: u64) {
        let weight = decayed(age_s, CHECKS_HALF_LIFE_S);
        self.rejections += weight;
        self.checks += weight;
        self.rejected += 1;
    }

    fn counterparties(&self) -> usize {
        let merged = self.merged();
        let free = |with: &&Counterparty| matches!(with, Counterparty::Free(_));
        merged.len() - merged.keys().filter(free).count()
    }

    fn merged(&self) -> BTreeMap<Counterparty, Dealings> {
        let mut merged = BTreeMap::<_, Dealings>::new();
        for (with, dealings) in &self.dealings {
            let with = with.counts_as(dealings);
            merged.entry(with).or_default().merge(dealings);
        }
        merged
    }

    fn score(&self) -> f64 {
        let merged = self.merged();
        let rests = rests(&merged);
        let (mut good, mut bad) = (0.0, 0.0);
        let (mut kept, mut timed) = (0.0, 0.0);
        for (with, dealings) in &merged {
            let rest = rests.get(&with.author()).copied().unwrap_or_default();
            let counts = dealings.good(with, MAX_REST / rest.max(MAX_REST));
            let share = dealings.share(counts);
            good += counts;
            bad += dealings.bad(with);
            kept += share * dealings.kept;
            timed += share * dealings.timed;
        }
        let completion = (PRIOR_COMPLETED + good) / (PRIOR_TOTAL + good + bad);
        let pace = (1.0 + kept) / (1.0 + timed);
        let excess = self.rejections - self.checks / CHECKS_FOR_ONE_ERROR;
        completion * (1.0 + pace) / 2.0 * REJECTION_DIVISOR.powf(-excess.max(0.0))
    }
}

/// What was completed for each author's buyers beyond what their fees account for.
fn rests(merged: &BTreeMap<Counterparty, Dealings>) -> BTreeMap<PublicKey, f64> {
    let mut rests = BTreeMap::new();
    for (with, dealings) in merged {
        let rest = dealings.completed() - dealings.sure(with);
        *rests.entry(with.author()).or_default() += rest;
    }
    rests
}
