//! The checks of one attempt that need nobody's keys, and the call of those that do.

use infernet_protocol::event::{Attestation, Award, Basis, Cancel, Experience, JobResult, Signed};
use infernet_protocol::inference::EndReason;
use infernet_protocol::money::Msat;
use nostr::Keys;

use super::{Evidence, Found, Report, hashes, not_proven, proven, receipts, wrong};
use crate::record::{Record, Said};

/// Adds everything that can be said about one award.
pub(super) fn check(
    report: &mut Report,
    record: &Record,
    award: &Signed<Award>,
    keys: Option<&Keys>,
    evidence: &Evidence,
) {
    let attempt = Some(award.attempt);
    let opened = hashes::Opened::of(record, award, keys, &evidence.blobs);
    report.add(attempt, "agreement", agreement(award));
    report.add(attempt, "input hash", opened.input_hash());
    if let Some(found) = opened.continuation(record) {
        report.add(attempt, "continuation", found);
    }
    report.add(attempt, "result", result(record, award));
    if let Some(result) = only_result(record, award) {
        report.add(attempt, "output hash", opened.output_hash());
        report.add(attempt, "usage", opened.usage(result));
        report.add(attempt, "price", price(award, result));
    }
    report.add(attempt, "attestation", attestation(record, award));
    receipts::check(report, record, award, opened.salt(), keys, evidence);
}

/// The results of an award by its provider.
pub(super) fn results<'a>(
    record: &'a Record,
    award: &'a Signed<Award>,
) -> impl Iterator<Item = &'a Signed<JobResult>> {
    record.entries.iter().filter_map(|entry| match &entry.said {
        Said::Result(r) if r.award == award.id() && r.author() == award.provider => Some(&**r),
        _ => None,
    })
}

/// The result of an award, unless there are several.
pub(super) fn only_result<'a>(
    record: &'a Record,
    award: &'a Signed<Award>,
) -> Option<&'a Signed<JobResult>> {
    let mut results = results(record, award);
    results.next().filter(|_| results.next().is_none())
}

/// That the award rests on the provider's own word. A valid award has it inside, signed and saying the same.
fn agreement(award: &Signed<Award>) -> Found {
    let price = match award.price.is_free() {
        true => "free".to_owned(),
        false => format!(
            "{} + {} msat per million tokens",
            award.price.input_msat, award.price.output_msat
        ),
    };
    match award.basis {
        Basis::Auction { .. } => proven(format!(
            "model, terms and price ({price}) are those of the provider's bid, within the offer's limit"
        )),
        Basis::Direct { .. } => proven(format!(
            "model, terms and price ({price}) are those of the provider's announcement"
        )),
    }
}

fn result(record: &Record, award: &Signed<Award>) -> Found {
    let mut results = results(record, award);
    let (Some(result), another) = (results.next(), results.next()) else {
        return no_result(record, award);
    };
    if another.is_some() {
        return wrong("the provider signed more than one result");
    }
    let differs = [
        ("attempt", result.attempt != award.attempt),
        ("buyer", result.buyer != award.author()),
        ("model", result.model != award.model),
        (
            "number format",
            award.agreed().is_none_or(|word| word.dtype != result.dtype),
        ),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((what, _)) => wrong(format!("the result's {what} is not the award's")),
        None => proven(format!(
            "signed by the awarded provider for this attempt and this model ({}, {})",
            result.dtype, result.engine
        )),
    }
}

fn no_result(record: &Record, award: &Signed<Award>) -> Found {
    let about = |cancel: &&Signed<Cancel>| cancel.award == Some(award.id());
    let mut cancels = record.entries.iter().filter_map(|entry| match &entry.said {
        Said::Cancel(cancel) => Some(&**cancel),
        _ => None,
    });
    match cancels.find(about) {
        Some(cancel) if cancel.author() == award.provider => {
            not_proven(format!("none: the provider gave up ({:?})", cancel.reason).to_lowercase())
        }
        Some(cancel) => {
            not_proven(format!("none: the buyer cancelled ({:?})", cancel.reason).to_lowercase())
        }
        None => not_proven("none: it was declined, or is missing here"),
    }
}

/// What is due against price and budget.
fn price(award: &Signed<Award>, result: &Signed<JobResult>) -> Found {
    let usage = &result.usage;
    let input = usage.input_tokens.saturating_add(usage.prefix_tokens);
    let Some(cost) = award.price.cost(input, usage.output_tokens) else {
        return wrong("the usage costs more than there is money");
    };
    if result.due_msat > cost {
        return wrong(format!(
            "{} is due, but the usage costs {cost}",
            result.due_msat
        ));
    }
    if result.due_msat > award.budget_msat {
        return wrong(format!(
            "{} is due for the usage, over the budget of {}",
            result.due_msat, award.budget_msat
        ));
    }
    match result.due_msat {
        Msat::ZERO => proven("nothing is due"),
        due => proven(format!("{due} is due, as price and usage say")),
    }
}

fn attestation(record: &Record, award: &Signed<Award>) -> Found {
    let mut attestations = record.entries.iter().filter_map(|entry| match &entry.said {
        Said::Attestation(a) if a.award == award.id() => Some(&**a),
        _ => None,
    });
    match (attestations.next(), attestations.next()) {
        (None, _) => not_proven("the buyer has not said how it went"),
        (Some(_), Some(_)) => wrong("the buyer has said more than once how it went"),
        (Some(attestation), None) => agrees(attestation, award, results(record, award).next()),
    }
}

/// Whether the buyer's word and the result agree.
fn agrees(
    attestation: &Attestation,
    award: &Signed<Award>,
    result: Option<&Signed<JobResult>>,
) -> Found {
    if attestation.provider != award.provider || attestation.model != award.model {
        return wrong("the buyer rates another provider or model than it awarded");
    }
    let is_done = |r: &Signed<JobResult>| matches!(r.ended, EndReason::Stop | EndReason::Length);
    match (attestation.experience, result) {
        (Experience::Completed, Some(result)) if Some(result.id()) != attestation.result => {
            wrong("the buyer says completed, and names another result")
        }
        (Experience::Completed, Some(result)) if is_done(result) => {
            proven("the buyer says completed, and names the result")
        }
        (Experience::Completed, Some(_)) => {
            wrong("the buyer says completed, but the result says otherwise")
        }
        (Experience::Completed, None) => {
            not_proven("the buyer says completed, but the result is not here")
        }
        (Experience::Failed, Some(result)) if is_done(result) => {
            not_proven("the buyer says failed, but there is a result; it may have come too late")
        }
        (Experience::Silent, Some(_)) => {
            not_proven("the buyer says silent, but there is a result; it may have come too late")
        }
        (Experience::Invalid, _) => not_proven("the buyer says that what came was not valid"),
        (Experience::Rejected, _) => not_proven("the buyer says that a check rejected what came"),
        (Experience::Failed, Some(_)) => proven("the buyer says failed, and so does the result"),
        (Experience::Failed, None) => not_proven("the buyer says that the provider failed"),
        (Experience::Silent, None) => {
            not_proven("the buyer says that the provider fell silent, and no result is here")
        }
    }
}
