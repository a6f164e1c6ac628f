//! What wallets own, before and after, to the msat.

use std::fmt;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What a wallet owns at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// The wallet.
    pub name: String,
    /// What is its own in channels, without what is on its way or held back as a reserve.
    pub lightning_msat: u64,
    /// What it has on the chain.
    pub onchain_sat: u64,
    /// What routing has cost it since it was made.
    pub fees_msat: u64,
}

impl Balance {
    /// In channels and on the chain together.
    pub fn total_msat(&self) -> i128 {
        i128::from(self.lightning_msat) + 1_000 * i128::from(self.onchain_sat)
    }
}

/// One line of a comparison: amounts in msat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The wallet, or `all`.
    pub name: String,
    /// What it owned.
    pub before: i128,
    /// What it owns.
    pub after: i128,
    /// What routing has cost it in between.
    pub fees: i128,
}

impl Line {
    fn of(before: &Balance, after: &Balance) -> Self {
        Self {
            name: after.name.clone(),
            before: before.total_msat(),
            after: after.total_msat(),
            fees: i128::from(after.fees_msat) - i128::from(before.fees_msat),
        }
    }
}

/// What wallets owned before and own now. Shows as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// A line for each wallet.
    pub lines: Vec<Line>,
}

impl Comparison {
    /// Compares.
    ///
    /// # Errors
    /// If these are not the same wallets.
    pub fn of(before: &[Balance], after: &[Balance]) -> Result<Self> {
        let names = |all: &[Balance]| all.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        ensure!(names(before) == names(after), "these are other wallets");
        let lines = before.iter().zip(after);
        Ok(Self {
            lines: lines
                .map(|(before, after)| Line::of(before, after))
                .collect(),
        })
    }

    /// All wallets together.
    pub fn all(&self) -> Line {
        let sum = |of: fn(&Line) -> i128| self.lines.iter().map(of).sum();
        Line {
            name: "all".to_owned(),
            before: sum(|line| line.before),
            after: sum(|line| line.after),
            fees: sum(|line| line.fees),
        }
    }

    /// Whether nothing was made or lost: what was there before is there now, or was paid for routing.
    pub fn adds_up(&self) -> bool {
        let all = self.all();
        all.before == all.after + all.fees
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |cells: [&str; 5]| {
            let [name, before, after, change, fees] = cells;
            writeln!(
                f,
                "{name:<8} {before:>16} {after:>16} {change:>12} {fees:>12}"
            )
        };
        row(["SAT", "BEFORE", "AFTER", "CHANGE", "ROUTING"])?;
        for line in self.lines.iter().chain([&self.all()]) {
            let change = line.after - line.before;
            let sign = if change > 0 { "+" } else { "" };
            row([
                &line.name,
                &sat(line.before),
                &sat(line.after),
                &format!("{sign}{}", sat(change)),
                &sat(line.fees),
            ])?;
        }
        Ok(())
    }
}

/// Satoshis with three decimals, to stand in columns.
fn sat(msat: i128) -> String {
    let sign = if msat < 0 { "-" } else { "" };
    let msat = msat.unsigned_abs();
    format!("{sign}{}.{:03}", msat / 1_000, msat % 1_000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn balance(name: &str, lightning_msat: u64, onchain_sat: u64, fees_msat: u64) -> Balance {
        Balance {
            name: name.into(),
            lightning_msat,
            onchain_sat,
            fees_msat,
        }
    }

    #[test]
    fn what_is_missing_is_seen_to_the_last_msat() {
        let before = [balance("a", 10_000, 1, 5), balance("b", 0, 2, 0)];
        let after = |of_b: u64| [balance("a", 6_993, 1, 12), balance("b", of_b, 2, 0)];
        let compare = |of_b| Comparison::of(&before, &after(of_b)).unwrap();
        assert!(compare(3_000).adds_up());
        assert!(!compare(2_999).adds_up());
        assert!(!compare(3_001).adds_up());
        assert!(Comparison::of(&before, &before[..1]).is_err());
    }

    #[test]
    fn a_comparison_shows_where_money_went() {
        let before = [balance("buyer", 10_000, 0, 0), balance("alpha", 0, 0, 0)];
        let after = [balance("buyer", 7_499, 0, 1), balance("alpha", 2_500, 0, 0)];
        let shown = Comparison::of(&before, &after).unwrap().to_string();
        let lines: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1], ["buyer", "10.000", "7.499", "-2.501", "0.001"]);
        assert_eq!(lines[2], ["alpha", "0.000", "2.500", "+2.500", "0.000"]);
        assert_eq!(lines[3], ["all", "10.000", "9.999", "-0.001", "0.001"]);
    }
}
