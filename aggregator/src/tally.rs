//! What came of lines: of a shard, of a group, of an order.

use infernet_protocol::batch::Charge;
use infernet_protocol::event::CheckedResult;
use infernet_protocol::money::{Msat, Price};
use nostr::{EventId, PublicKey};
use serde::{Deserialize, Serialize};

/// How a shard ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// It was done. Its file says what came of each line.
    Done(Box<Done>),
    /// It could not be done.
    Failed {
        /// Why, in words for the buyer.
        reason: String,
    },
}

/// A shard that was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Who did it.
    pub provider: PublicKey,
    /// Its award.
    pub award: EventId,
    /// Its result.
    pub result: EventId,
    /// What the provider asks.
    pub cost: Msat,
    /// What the check made of it.
    pub checked: Checked,
    /// The check itself.
    pub check: CheckOf,
    /// Lines of it that have an answer.
    pub answered: u32,
    /// Lines of it that failed for good.
    pub failed: u32,
    /// Tokens of the prompts of lines that have an answer.
    pub input_tokens: u64,
    /// Tokens of those answers.
    pub output_tokens: u64,
}

/// A result's check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOf {
    /// The result, and its verdict if there is one.
    pub result: CheckedResult,
    /// The checkers who are owed for it.
    pub hired: Vec<Owed>,
}

/// What a check made of a shard that is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checked {
    /// It was checked and accepted.
    Accepted,
    /// It was not chosen, or nobody may check it.
    Unchecked,
    /// It was checked, and the figures do not tell.
    Inconclusive,
}

/// Work that a provider is owed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// Its award.
    pub award: EventId,
    /// The provider.
    pub provider: PublicKey,
    /// How much.
    pub amount: Msat,
    /// How probable it was that this work be checked, in millionths.
    pub chance_ppm: u32,
    /// Whether it was.
    pub is_checked: bool,
}

/// What came of a group's lines, or of several groups'.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Lines.
    pub lines: u64,
    /// Lines that are handed over and were accepted, or needed no check.
    pub accepted: u64,
    /// Lines that are handed over, and whose check did not tell.
    pub inconclusive: u64,
    /// Lines that could not be done.
    pub failed: u64,
    /// What they cost.
    pub charge: Charge,
    /// The results that they came from.
    pub results: Vec<CheckedResult>,
    /// Who is owed for it.
    pub owed: Vec<Owed>,
}

/// What a charge is reckoned by: what the quote says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// The most that a provider is paid.
    pub price: Price,
    /// The fee, in millionths of the work.
    pub fee_ppm: u32,
    /// The most that checking costs the buyer, in millionths of the work.
    pub checking_ppm: u32,
}

impl Tally {
    /// What came of a group of so many lines that was cut into shards which ended so,
    /// with results that were rejected on the way.
    ///
    /// Work costs what its providers ask, and no more than all its tokens together at the
    /// quote's price: what each of them rounds up is not the buyer's. The fee is its share
    /// of the work; checks cost what their checkers ask, up to their share. Both are
    /// rounded down.
    pub fn of<'a>(
        lines: u64,
        ended: impl IntoIterator<Item = &'a Ended>,
        rejected: impl IntoIterator<Item = CheckOf>,
        rates: Rates,
    ) -> Self {
        let mut tally = Self {
            lines,
            ..Self::default()
        };
        let mut checking = Msat::ZERO;
        let (mut input, mut output) = (0_u64, 0_u64);
        for ended in ended {
            if let Ended::Done(done) = ended {
                tally.add(done);
                input = input.saturating_add(done.input_tokens);
                output = output.saturating_add(done.output_tokens);
                checking = plus(checking, tally.checked(&done.check));
            }
        }
        for check in rejected {
            checking = plus(checking, tally.checked(&check));
        }
        tally.failed = lines.saturating_sub(tally.handed_over());
        let charge = &mut tally.charge;
        let most = rates.price.cost(input, output).unwrap_or(Msat::MAX);
        charge.work_msat = charge.work_msat.min(most);
        charge.fee_msat = share(charge.work_msat, rates.fee_ppm);
        charge.checking_msat = checking.min(share(charge.work_msat, rates.checking_ppm));
        tally
    }

    fn add(&mut self, done: &Done) {
        match done.checked {
            Checked::Accepted | Checked::Unchecked => self.accepted += u64::from(done.answered),
            Checked::Inconclusive => self.inconclusive += u64::from(done.answered),
        }
        let cost = match done.answered {
            0 => Msat::ZERO,
            _ => done.cost,
        };
        self.charge.work_msat = plus(self.charge.work_msat, cost);
        if cost > Msat::ZERO {
            self.owed.push(Owed {
                award: done.award,
                provider: done.provider,
                amount: cost,
                chance_ppm: done.check.result.chance_ppm,
                is_checked: done.check.result.verdict.is_some(),
            });
        }
    }

    /// Counts a check in; answers what it cost.
    fn checked(&mut self, check: &CheckOf) -> Msat {
        self.results.push(check.result);
        self.owed.extend(&check.hired);
        let costs = check.hired.iter().map(|hired| hired.amount);
        costs.fold(Msat::ZERO, plus)
    }

    /// Counts another group's lines and charge in, but not where they came from.
    pub fn count(&mut self, other: &Self) {
        self.lines += other.lines;
        self.accepted += other.accepted;
        self.inconclusive += other.inconclusive;
        self.failed += other.failed;
        let (charge, more) = (&mut self.charge, &other.charge);
        charge.work_msat = plus(charge.work_msat, more.work_msat);
        charge.checking_msat = plus(charge.checking_msat, more.checking_msat);
        charge.fee_msat = plus(charge.fee_msat, more.fee_msat);
    }

    /// The same with a charge of at most so much: what is over is not the buyer's.
    #[must_use]
    pub fn capped(mut self, most: Msat) -> Self {
        let charge = &mut self.charge;
        charge.work_msat = charge.work_msat.min(most);
        let left = Msat(most.0 - charge.work_msat.0);
        charge.fee_msat = charge.fee_msat.min(left);
        let left = Msat(left.0 - charge.fee_msat.0);
        charge.checking_msat = charge.checking_msat.min(left);
        self
    }

    /// Whether they cost anything.
    pub fn is_charged(&self) -> bool {
        self.charge.total() > Msat::ZERO
    }

    /// Lines that are handed over.
    pub const fn handed_over(&self) -> u64 {
        self.accepted + self.inconclusive
    }
}

/// So many millionths of an amount, rounded down.
pub fn share(amount: Msat, ppm: u32) -> Msat {
    let share = u128::from(amount.0) * u128::from(ppm) / 1_000_000;
    Msat(u64::try_from(share).unwrap_or(Msat::MAX.0).min(Msat::MAX.0))
}

fn plus(a: Msat, b: Msat) -> Msat {
    a.checked_add(b).unwrap_or(Msat::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const RATES: Rates = Rates {
        price: Price {
            input_msat: 1_000_000,
            output_msat: 1_000_000,
        },
        fee_ppm: 10_000,
        checking_ppm: 100_000,
    };

    fn check(cost: u64) -> CheckOf {
        let hired = Owed {
            award: EventId::from_byte_array([3; 32]),
            provider: nostr::Keys::generate().public_key(),
            amount: Msat(cost),
            chance_ppm: 0,
            is_checked: false,
        };
        CheckOf {
            result: CheckedResult {
                result: EventId::from_byte_array([2; 32]),
                chance_ppm: 1_000_000,
                verdict: None,
            },
            hired: vec![hired],
        }
    }

    fn done(answered: u32, cost: u64, checked: Checked) -> Ended {
        Ended::Done(Box::new(Done {
            provider: nostr::Keys::generate().public_key(),
            award: EventId::from_byte_array([1; 32]),
            result: EventId::from_byte_array([2; 32]),
            cost: Msat(cost),
            checked,
            check: check(cost / 20),
            answered,
            failed: 0,
            input_tokens: 0,
            output_tokens: cost,
        }))
    }

    #[test]
    fn lines_add_up_and_only_those_with_an_answer_cost() {
        let ended = [
            done(3, 1_000, Checked::Accepted),
            done(2, 500, Checked::Inconclusive),
            done(0, 700, Checked::Unchecked),
            Ended::Failed {
                reason: "nobody sells it".into(),
            },
        ];
        let tally = Tally::of(9, &ended, [check(10)], RATES);
        assert_eq!(
            (tally.accepted, tally.inconclusive, tally.failed),
            (3, 2, 4)
        );
        let charge = Charge {
            work_msat: Msat(1_500),
            checking_msat: Msat(50 + 25 + 35 + 10),
            fee_msat: Msat(15),
        };
        assert_eq!(tally.charge, charge);
        assert_eq!(tally.results.len(), 4, "the rejected one is told too");
        assert_eq!(tally.owed.len(), 2 + 4, "checkers are owed as well");
    }

    #[test]
    fn checks_cost_the_buyer_no_more_than_was_quoted() {
        let rejected = [check(10_000)];
        let tally = Tally::of(3, &[done(3, 1_000, Checked::Accepted)], rejected, RATES);
        assert_eq!(tally.charge.checking_msat, Msat(100));
    }

    #[test]
    fn what_providers_round_up_is_not_the_buyers() {
        let rounded = |cost| match done(1, cost, Checked::Unchecked) {
            Ended::Done(done) => Ended::Done(Box::new(Done {
                output_tokens: cost - 1,
                ..*done
            })),
            failed @ Ended::Failed { .. } => failed,
        };
        let tally = Tally::of(2, &[rounded(11), rounded(11)], [], RATES);
        assert_eq!(tally.charge.work_msat, Msat(20));
    }

    #[test]
    fn a_charge_is_never_more_than_what_is_held() {
        let tally = Tally::of(3, &[done(3, 1_000, Checked::Accepted)], [], RATES);
        assert_eq!(tally.charge.total(), Msat(1_060));
        assert_eq!(
            tally.clone().capped(Msat(1_005)).charge.total(),
            Msat(1_005)
        );
        assert_eq!(tally.clone().capped(Msat(2_000)), tally);
        assert_eq!(tally.capped(Msat::ZERO).charge.total(), Msat::ZERO);
    }
}
