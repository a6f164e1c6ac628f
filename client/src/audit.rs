//! What a job's events prove, to anybody who has them: signatures, links, prices, attempts, and, to the two who can
//! open the sealed parts, hashes and counts.
//!
//! Pure: the same events give the same report, whatever else is among them.

mod attempt;
mod hashes;
mod orders;
mod receipts;
#[cfg(test)]
pub(crate) mod story;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use infernet_payments::PaymentHash;
use infernet_protocol::event::{Award, Receipt, Refusal, Signed};
use infernet_protocol::money::Msat;
use infernet_protocol::seal::Digest;
use nostr::{EventId, Keys, PublicKey};
use serde::Serialize;

pub use orders::{OrderRecord, audit_order};

use crate::record::{Record, Said};

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// The events prove it.
    Proven,
    /// They neither prove nor refute it.
    NotProven,
    /// They contradict it.
    Wrong,
}

/// One check of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The attempt it is about; none for the job as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What was checked, in a word or two.
    pub about: &'static str,
    /// What was found.
    pub finding: Finding,
    /// The same in a sentence.
    pub detail: String,
}

/// Everything that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The job.
    pub job: EventId,
    /// Who wanted it, if that is known.
    pub buyer: Option<PublicKey>,
    /// The checks, the job's own first, then attempt by attempt.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether something contradicts itself.
    pub fn is_wrong(&self) -> bool {
        self.count(Finding::Wrong) > 0
    }

    /// How many checks found this.
    pub fn count(&self, finding: Finding) -> usize {
        self.checks
            .iter()
            .filter(|check| check.finding == finding)
            .count()
    }

    fn add(&mut self, attempt: Option<u32>, about: &'static str, found: (Finding, String)) {
        self.checks.push(Check {
            attempt,
            about,
            finding: found.0,
            detail: found.1,
        });
    }
}

/// What one check comes to.
type Found = (Finding, String);

fn proven(detail: impl Into<String>) -> Found {
    (Finding::Proven, detail.into())
}

fn not_proven(detail: impl Into<String>) -> Found {
    (Finding::NotProven, detail.into())
}

fn wrong(detail: impl Into<String>) -> Found {
    (Finding::Wrong, detail.into())
}

/// What is known besides a job's own events.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What was paid during each award, by the ledger of whoever audits.
    pub payments: HashMap<EventId, Vec<(PaymentHash, Msat)>>,
    /// Other receipts of the same parties.
    pub receipts: Vec<Signed<Receipt>>,
    /// What is in the blobs that the events name, by hash, as far as it can still be had.
    pub blobs: HashMap<Digest, Vec<u8>>,
}

/// Checks a job's record. With the buyer's or a provider's keys, what is sealed to them is checked too.
pub fn audit(record: &Record, keys: Option<&Keys>, evidence: &Evidence) -> Report {
    let mut report = Report {
        job: record.job,
        buyer: record.buyer(),
        checks: Vec::new(),
    };
    report.add(None, "signatures", signatures(record));
    report.add(None, "form", form(record));
    report.add(None, "buyer", buyer(record));
    let awards = by_attempt(record);
    report.add(None, "attempts", attempts(&awards));
    report.add(None, "order", order(record));
    for award in record.awards() {
        attempt::check(&mut report, record, award, keys, evidence);
    }
    report.add(None, "end", end(record, &awards));
    report
}

/// The awards of each attempt.
fn by_attempt(record: &Record) -> BTreeMap<u32, Vec<&Signed<Award>>> {
    let mut awards: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for award in record.awards() {
        awards.entry(award.attempt).or_default().push(award);
    }
    awards
}

fn signatures(record: &Record) -> Found {
    let forged = |(_, refusal): &&(_, Refusal)| *refusal == Refusal::Signature;
    let forged = record.refused.iter().filter(forged).count();
    match (forged, record.entries.len()) {
        (0, 0) => not_proven("there is no event of this job"),
        (0, events) => proven(format!("{events} events, each with its author's signature")),
        (forged, _) => wrong(format!(
            "{forged} of the events were altered, or not signed by their author"
        )),
    }
}

/// Whether the events are what their kinds say. Rubbish by strangers proves nothing against anybody.
fn form(record: &Record) -> Found {
    let party = |author: &PublicKey| {
        Some(*author) == record.buyer() || record.awards().any(|award| award.provider == *author)
    };
    let malformed = record
        .refused
        .iter()
        .filter(|(_, refusal)| *refusal != Refusal::Signature);
    let (own, others): (Vec<_>, Vec<_>) = malformed.partition(|(event, _)| party(&event.pubkey));
    let ignored = match others.len() + record.strangers.len() {
        0 => String::new(),
        ignored => format!("; {ignored} by strangers do not count"),
    };
    match own.first() {
        None => proven(format!("every event is valid for its kind{ignored}")),
        Some((event, refusal)) => wrong(format!(
            "kind {} by a party: {refusal}{ignored}",
            event.kind.as_u16()
        )),
    }
}

fn buyer(record: &Record) -> Found {
    match record.buyer() {
        Some(_) => proven("the job's first event names its buyer"),
        None => not_proven(
            "neither the offer nor the first award is here, so who wanted it is not known",
        ),
    }
}

/// One award for each attempt, numbered from 1.
fn attempts(awards: &BTreeMap<u32, Vec<&Signed<Award>>>) -> Found {
    let twice = awards.iter().find(|(_, awards)| awards.len() > 1);
    let last = awards.keys().max().copied().unwrap_or(0);
    let missing = (1..=last).find(|attempt| !awards.contains_key(attempt));
    match (last, twice, missing) {
        (0, ..) => not_proven("there is no award"),
        (_, Some((attempt, _)), _) => {
            wrong(format!("attempt {attempt} was awarded more than once"))
        }
        (_, None, Some(attempt)) => {
            not_proven(format!("the award of attempt {attempt} is not here"))
        }
        (1, None, None) => proven("one attempt"),
        (_, None, None) => proven(format!(
            "{last} attempts, each awarded once, each superseding the one before"
        )),
    }
}

/// That each event was signed after what it rests on; dates alone prove nothing.
fn order(record: &Record) -> Found {
    let mut links = 0;
    for entry in &record.entries {
        let named = match &entry.said {
            Said::Result(result) => Some(result.award),
            Said::Attestation(attestation) => attestation.result.or(Some(attestation.award)),
            Said::Receipt(receipt) => Some(receipt.award),
            Said::Verdict(verdict) => Some(verdict.result),
            Said::Bid(bid) => Some(bid.offer),
            Said::Award(_) => {
                links += 1;
                None
            }
            Said::Announcement(_) | Said::Offer(_) | Said::Cancel(_) => None,
        };
        let Some(named) = named else {
            continue;
        };
        if !record
            .entries
            .iter()
            .any(|entry| entry.said.event().id == named)
        {
            let kind = entry.said.kind_name();
            return not_proven(format!("a {kind} names an event that is not here"));
        }
        links += 1;
    }
    match links {
        0 => not_proven("no event names another"),
        links => proven(format!(
            "{links} links: each event names, by its hash, the one that it follows"
        )),
    }
}

/// How the job ended.
fn end(record: &Record, awards: &BTreeMap<u32, Vec<&Signed<Award>>>) -> Found {
    let last = awards
        .values()
        .next_back()
        .and_then(|awards| awards.first());
    let result = last.and_then(|award| attempt::results(record, award).next());
    let cancelled = record
        .entries
        .iter()
        .rev()
        .find_map(|entry| match &entry.said {
            Said::Cancel(cancel) if cancel.award == last.map(|award| award.id()) => {
                Some(cancel.reason)
            }
            _ => None,
        });
    match (result, cancelled) {
        (Some(result), _) => {
            proven(format!("the last attempt ended: {:?}", result.ended).to_lowercase())
        }
        (None, Some(reason)) => {
            proven(format!("the last attempt was cancelled: {reason:?}").to_lowercase())
        }
        (None, None) => not_proven("there is neither a result nor a cancel of the last attempt"),
    }
}
