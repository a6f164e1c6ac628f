//! What the events of a batch prove: that its aggregator kept to its quote, and checked what chance chose.

use std::collections::{HashMap, HashSet};

use infernet_protocol::event::{
    CheckedResult, Checking, Judgement, Order, Quote, SettledGroup, Settlement, Signed, Verdict,
};
use infernet_protocol::money::Msat;
use infernet_protocol::verification::Secret;
use nostr::EventId;

use super::{Found, Report, not_proven, proven, wrong};

/// The events of one batch.
#[derive(Debug, Clone)]
pub struct OrderRecord {
    /// The order, with the quote inside.
    pub order: Signed<Order>,
    /// What its aggregator says came of it.
    pub settlements: Vec<Signed<Settlement>>,
    /// The verdicts that these name, by their ids.
    pub verdicts: HashMap<EventId, Signed<Verdict>>,
}

impl OrderRecord {
    /// The record that these make: settlements by others, or of other orders, do not belong.
    pub fn of(
        order: Signed<Order>,
        settlements: impl IntoIterator<Item = Signed<Settlement>>,
        verdicts: impl IntoIterator<Item = Signed<Verdict>>,
    ) -> Self {
        let (id, aggregator) = (order.id(), order.aggregator);
        let buyer = order.author();
        let belongs = |said: &Signed<Settlement>| {
            said.author() == aggregator && said.order == id && said.buyer == buyer
        };
        Self {
            settlements: settlements.into_iter().filter(belongs).collect(),
            verdicts: verdicts.into_iter().map(|v| (v.id(), v)).collect(),
            order,
        }
    }

    fn groups(&self) -> impl Iterator<Item = &SettledGroup> {
        self.settlements
            .iter()
            .filter_map(|said| said.group.as_ref())
    }

    fn results(&self) -> impl Iterator<Item = &CheckedResult> {
        self.groups().flat_map(|group| &group.results)
    }

    fn secret(&self) -> Option<Secret> {
        self.settlements.iter().find_map(|said| said.secret)
    }

    /// The verdicts that settlements name.
    pub fn named(settlements: &[Signed<Settlement>]) -> Vec<EventId> {
        let groups = settlements.iter().filter_map(|said| said.group.as_ref());
        let results = groups.flat_map(|group| &group.results);
        results.filter_map(|result| result.verdict).collect()
    }
}

/// Checks a batch's record.
pub fn audit_order(record: &OrderRecord) -> Report {
    let mut report = Report {
        job: record.order.id(),
        buyer: Some(record.order.author()),
        checks: Vec::new(),
    };
    let Some(quote) = record.order.terms() else {
        report.add(None, "order", wrong("there is no quote in the order"));
        return report;
    };
    let taken = "the order takes a quote of this aggregator for this buyer, whole";
    report.add(None, "order", proven(taken));
    report.add(None, "groups", groups(record, &quote));
    report.add(None, "charges", charges(record, &quote));
    report.add(None, "total", total(record, &quote));
    report.add(None, "secret", secret(record, &quote));
    report.add(None, "choice", choice(record, &quote));
    report.add(None, "verdicts", verdicts(record));
    report
}

fn groups(record: &OrderRecord, quote: &Quote) -> Found {
    let mut seen = HashSet::new();
    if let Some(twice) = record.groups().find(|group| !seen.insert(group.number)) {
        return wrong(format!("group {} was settled twice", twice.number));
    }
    let lines: u64 = record.groups().map(|group| u64::from(group.lines)).sum();
    let failed: u64 = record.groups().map(|group| u64::from(group.failed)).sum();
    let all = quote.size.lines;
    match lines {
        lines if lines > all => wrong(format!("{lines} lines were settled, and {all} ordered")),
        lines if lines == all => proven(format!(
            "all {all} lines were settled, {failed} of them as failed; groups: {}",
            seen.len()
        )),
        lines => not_proven(format!("{lines} of {all} lines were settled")),
    }
}

fn charges(record: &OrderRecord, quote: &Quote) -> Found {
    let breaks = |group: &&SettledGroup| !quote.allows_shares(&group.charge);
    match record.groups().find(breaks) {
        Some(group) => wrong(format!(
            "in group {} fee or checking is more than its share of the work",
            group.number
        )),
        None => proven(format!(
            "fee and checking are at most {} % and {} % of the work in every group",
            percent(quote.fee_ppm),
            percent(quote.checking_ppm)
        )),
    }
}

/// What was charged in all, against what was taken and what was quoted.
fn total(record: &OrderRecord, quote: &Quote) -> Found {
    let sum = |of: fn(&SettledGroup) -> Msat| {
        let amounts = record.groups().map(|group| of(group).0);
        Msat(amounts.fold(0, u64::saturating_add))
    };
    let charged = sum(|group| group.charge.total());
    let taken = sum(|group| group.taken_msat);
    let most = quote.most_msat;
    if charged > most {
        return wrong(format!("{charged} were charged, and {most} quoted at most"));
    }
    match taken >= charged {
        true => proven(format!(
            "{charged} of at most {most} were charged, and {taken} taken"
        )),
        // Credit of an earlier order may have made up for it.
        false => not_proven(format!(
            "{charged} were charged, and only {taken} taken for it"
        )),
    }
}

fn secret(record: &OrderRecord, quote: &Quote) -> Found {
    match record.secret() {
        None => not_proven("the order is not closed: what chose the checks is still secret"),
        Some(secret) if secret.commitment() == quote.commitment => {
            proven("what chose the checks is what the quote was committed to")
        }
        Some(_) => wrong("what is said to have chosen the checks is not what the quote says"),
    }
}

/// Whether everything was checked that had to be.
fn choice(record: &OrderRecord, quote: &Quote) -> Found {
    let least = match quote.checking {
        Checking::None => return proven("nothing was to be checked"),
        Checking::Full => 1_000_000,
        Checking::Adaptive { least_ppm } => least_ppm,
    };
    let Some(secret) = record.secret() else {
        return not_proven("it is known once the order is closed");
    };
    let is_drawn =
        |result: &&CheckedResult| secret.chooses(&result.result, result.chance_ppm.max(least));
    let drawn: Vec<_> = record.results().filter(is_drawn).collect();
    let all = record.results().count();
    match drawn.iter().find(|result| result.verdict.is_none()) {
        Some(result) => wrong(format!(
            "result {} was drawn to be checked, and was not",
            &result.result.to_hex()[..8]
        )),
        None => proven(format!(
            "of {all} results {} were drawn, and each was checked",
            drawn.len()
        )),
    }
}

/// Whether the verdicts are there, and about these results.
fn verdicts(record: &OrderRecord) -> Found {
    let (mut rejected, mut missing, mut known) = (0, 0, 0);
    for result in record.results() {
        let Some(id) = result.verdict else { continue };
        let Some(verdict) = record.verdicts.get(&id) else {
            missing += 1;
            continue;
        };
        if verdict.result != result.result {
            return wrong("a verdict is about another result");
        }
        known += 1;
        rejected += u64::from(verdict.judgement == Judgement::Rejected);
    }
    match missing {
        0 => proven(format!(
            "{known} verdicts, each about its result; {rejected} rejected it"
        )),
        missing => not_proven(format!("{missing} verdicts are not on these relays")),
    }
}

fn percent(ppm: u32) -> f64 {
    f64::from(ppm) / 10_000.0
}

#[cfg(test)]
mod tests;
