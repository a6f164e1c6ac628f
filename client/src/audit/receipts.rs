//! The checks of receipts: what was charged and paid, as either side states it.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use infernet_protocol::event::{Award, Receipt, ReceiptSide, Signed};
use infernet_protocol::money::{Msat, PaymentKind};
use infernet_protocol::seal::Salt;
use nostr::{EventId, Keys};

use super::{Evidence, Found, Report, attempt, not_proven, proven, wrong};
use crate::purse::salted;
use crate::record::{Record, Said};

/// Adds what can be said about the money of one award; nothing if it was free.
pub(super) fn check(
    report: &mut Report,
    record: &Record,
    award: &Signed<Award>,
    salt: Option<Salt>,
    keys: Option<&Keys>,
    evidence: &Evidence,
) {
    if award.terms == PaymentKind::Free {
        return;
    }
    let number = Some(award.attempt);
    let sides = Sides::of(record, award);
    report.add(number, "receipts", sides.agree(record, award));
    for receipt in [sides.buyer, sides.provider].into_iter().flatten() {
        report.add(number, "charge", charge(record, award, receipt));
    }
    if let Some(receipt) = sides.buyer {
        report.add(
            number,
            "payments",
            payments(award, receipt, salt, keys, evidence),
        );
        report.add(number, "tab", tab(receipt, sides.provider, evidence));
        if let Some(found) = sides.attested(record, award) {
            report.add(number, "paid", found);
        }
    }
}

/// The receipts of one attempt.
struct Sides<'a> {
    buyer: Option<&'a Signed<Receipt>>,
    provider: Option<&'a Signed<Receipt>>,
    /// Whether a side has signed more than one.
    is_doubled: bool,
}

impl<'a> Sides<'a> {
    fn of(record: &'a Record, award: &'a Signed<Award>) -> Self {
        let receipts = record.entries.iter().filter_map(|entry| match &entry.said {
            Said::Receipt(receipt) if receipt.award == award.id() => Some(&**receipt),
            _ => None,
        });
        let receipts: Vec<_> = receipts.collect();
        let by = |author, side| {
            let of_it = |r: &&&Signed<Receipt>| r.author() == author && r.side == side;
            receipts.iter().find(of_it).copied()
        };
        let authors: BTreeSet<_> = receipts.iter().map(|r| r.author()).collect();
        Self {
            buyer: by(award.author(), ReceiptSide::Buyer),
            provider: by(award.provider, ReceiptSide::Provider),
            is_doubled: authors.len() < receipts.len(),
        }
    }

    /// Whether both sides state the same of usage and charge.
    fn agree(&self, record: &Record, award: &Signed<Award>) -> Found {
        if self.is_doubled {
            return wrong("one side has signed more than one receipt");
        }
        match (self.buyer, self.provider) {
            (None, None) if is_nothing_due(record, award) => {
                not_proven("none: nothing was charged, or nothing paid")
            }
            (None, None) => not_proven("both sides' are missing"),
            (Some(_), None) => not_proven("the provider's is missing"),
            (None, Some(_)) => not_proven("the buyer's is missing"),
            (Some(ours), Some(theirs)) => same(ours, theirs),
        }
    }

    /// Whether the attestation names the buyer's receipt, and says the same.
    fn attested(&self, record: &Record, award: &Signed<Award>) -> Option<Found> {
        let receipt = self.buyer?;
        let attestation = record.entries.iter().find_map(|entry| match &entry.said {
            Said::Attestation(a) if a.award == award.id() => Some(a),
            _ => None,
        })?;
        Some(match attestation.receipt {
            Some(named) if named != receipt.id() => {
                wrong("the buyer's rating names another receipt")
            }
            None => not_proven("the buyer's rating names no receipt"),
            Some(_) if attestation.paid_msat != receipt.paid_msat => {
                wrong("the buyer's rating says that something else was paid than its receipt")
            }
            Some(_) => proven(format!(
                "the buyer's rating names its receipt, and {} paid",
                attestation.paid_msat
            )),
        })
    }
}

fn is_nothing_due(record: &Record, award: &Signed<Award>) -> bool {
    attempt::results(record, award).all(|result| result.due_msat == Msat::ZERO)
}

fn same(ours: &Receipt, theirs: &Receipt) -> Found {
    if ours.usage != theirs.usage && ours.result.is_some() && ours.result == theirs.result {
        return wrong("the two sides count differently, and name the same result");
    }
    if ours.usage != theirs.usage {
        return not_proven(format!(
            "the buyer counts {} + {} tokens, the provider {} + {}: one of them was cut short",
            ours.usage
                .input_tokens
                .saturating_add(ours.usage.prefix_tokens),
            ours.usage.output_tokens,
            theirs
                .usage
                .input_tokens
                .saturating_add(theirs.usage.prefix_tokens),
            theirs.usage.output_tokens
        ));
    }
    if ours.due_msat != theirs.due_msat {
        return wrong(format!(
            "for the same tokens the buyer states {}, the provider {}",
            ours.due_msat, theirs.due_msat
        ));
    }
    match ours.paid_msat == theirs.paid_msat {
        true => proven(format!(
            "both sides state the same tokens, {} charged and {} paid",
            ours.due_msat, ours.paid_msat
        )),
        false => proven(format!(
            "both sides state the same tokens and {} charged; {} paid by the buyer's, {} by the provider's: one \
             payment was under way",
            ours.due_msat, ours.paid_msat, theirs.paid_msat
        )),
    }
}

/// Whether a charge is the price times the tokens, and that of the result.
fn charge(record: &Record, award: &Signed<Award>, receipt: &Signed<Receipt>) -> Found {
    let whose = match receipt.side {
        ReceiptSide::Buyer => "buyer's",
        ReceiptSide::Provider => "provider's",
    };
    let usage = &receipt.usage;
    let input = usage.input_tokens.saturating_add(usage.prefix_tokens);
    let cost = award.price.cost(input, usage.output_tokens);
    let is_free_of_charge = receipt.due_msat == Msat::ZERO && usage.output_tokens == 0;
    if cost != Some(receipt.due_msat) && !is_free_of_charge {
        return wrong(format!(
            "the {whose} receipt says {} for tokens that cost {}",
            receipt.due_msat,
            cost.unwrap_or(Msat::MAX)
        ));
    }
    if receipt.due_msat > award.budget_msat {
        return wrong(format!(
            "the {whose} receipt says {}, over the budget of {}",
            receipt.due_msat, award.budget_msat
        ));
    }
    let named = attempt::only_result(record, award).filter(|r| receipt.result == Some(r.id()));
    match named {
        Some(result) if result.due_msat != receipt.due_msat => wrong(format!(
            "the {whose} receipt says {}, and the result that it names {}",
            receipt.due_msat, result.due_msat
        )),
        Some(_) => proven(format!(
            "the {whose} receipt says {}: the price times the tokens, as in the result",
            receipt.due_msat
        )),
        None => proven(format!(
            "the {whose} receipt says {}: the price times the tokens",
            receipt.due_msat
        )),
    }
}

/// Whether the buyer's receipt names the payments that its own ledger has.
fn payments(
    award: &Signed<Award>,
    receipt: &Signed<Receipt>,
    salt: Option<Salt>,
    keys: Option<&Keys>,
    evidence: &Evidence,
) -> Found {
    let is_ours = keys.is_some_and(|keys| keys.public_key() == award.author());
    let (true, Some(salt)) = (is_ours, salt) else {
        return not_proven("only the buyer's own ledger shows its payments");
    };
    let Some(payments) = evidence.payments.get(&award.id()) else {
        return not_proven("the ledger is not here");
    };
    let author = receipt.author();
    let id: EventId = award.id();
    let known: BTreeSet<_> = payments
        .iter()
        .map(|(hash, _)| *salted(hash, &salt, &id, &author).as_bytes())
        .collect();
    let named: BTreeSet<_> = receipt.payments.iter().map(|one| *one.as_bytes()).collect();
    if !named.is_subset(&known) {
        return wrong("the buyer's receipt names a payment that its ledger does not have");
    }
    let paid = payments.iter().map(|(_, amount)| amount.0).sum::<u64>();
    match named.len() == known.len() && receipt.paid_msat == Msat(paid) {
        true => proven(format!(
            "{}, as the ledger has it",
            counted(named.len(), receipt.paid_msat)
        )),
        false => not_proven(format!(
            "the ledger has {}, and the receipt {}: some came later",
            counted(known.len(), Msat(paid)),
            counted(named.len(), receipt.paid_msat)
        )),
    }
}

/// So many payments, in words.
fn counted(payments: usize, sum: Msat) -> String {
    match payments {
        0 => "no payment".into(),
        1 => format!("one payment of {sum}"),
        more => format!("{more} payments of {sum} in all"),
    }
}

/// Whether the tab's totals follow from the receipt before.
fn tab(ours: &Signed<Receipt>, theirs: Option<&Signed<Receipt>>, evidence: &Evidence) -> Found {
    let Some(tab) = ours.tab else {
        return not_proven("the buyer's receipt does not say how the tab stands");
    };
    if tab.due_msat < ours.due_msat || tab.paid_msat < ours.paid_msat {
        return wrong("the tab's totals are less than this attempt's own");
    }
    let before = Msat(tab.due_msat.0 - ours.due_msat.0);
    let of_it = |r: &&Signed<Receipt>| {
        r.author() == ours.author() && r.counterparty == ours.counterparty && r.id() != ours.id()
    };
    let others = evidence.receipts.iter().filter(of_it);
    let mut totals = others.filter_map(|r| r.tab.map(|tab| (tab.due_msat, r.due_msat)));
    // Two that charge something cannot overlap.
    let overlaps = |(due, own): (Msat, Msat)| {
        due > before && Msat(due.0.saturating_sub(own.0)) < tab.due_msat && own > Msat::ZERO
    };
    if ours.due_msat > Msat::ZERO && totals.clone().any(overlaps) {
        return wrong("the tab's totals overlap with those of another receipt of the buyer's");
    }
    let follows = before == Msat::ZERO || totals.any(|(due, _)| due == before);
    let others = match theirs.and_then(|receipt| receipt.tab) {
        Some(theirs) if theirs.due_msat != tab.due_msat => format!(
            "; the provider counts {} for all that was before, the buyer {}",
            Msat(theirs.due_msat.0.saturating_sub(ours.due_msat.0)),
            before
        ),
        _ => String::new(),
    };
    match follows {
        true => proven(format!(
            "{} charged and {} paid on the tab by then, as the buyer's receipt before leads to{others}",
            tab.due_msat, tab.paid_msat
        )),
        false => not_proven(format!(
            "{} charged and {} paid on the tab by then; the receipt before is not here{others}",
            tab.due_msat, tab.paid_msat
        )),
    }
}
