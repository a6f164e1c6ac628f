//! The aggregator's books, for its owner.

use std::fmt;
use std::path::Path;

use infernet_payments::ledger::{Account, Ledger, Line, Sums};
use infernet_protocol::money::Msat;
use nostr::{PublicKey, Timestamp, ToBech32};
use serde::Serialize;

use super::{Error, LEDGER};

/// What somebody is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owed {
    /// Who.
    pub key: PublicKey,
    /// How much, in msat.
    pub owed_msat: i64,
}

/// The books.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Books {
    /// What is in the wallet, by the ledger.
    pub wallet_msat: i64,
    /// What is held for groups, and neither taken nor given back.
    pub held_msat: Msat,
    /// What buyers are owed: taken and not charged.
    pub buyers: Vec<Owed>,
    /// What providers are owed, and will be paid.
    pub providers: Vec<Owed>,
    /// What is held back of providers' pay.
    pub bonds: Vec<Owed>,
    /// What buyers were charged for work and checks.
    pub charged_msat: Msat,
    /// What work and checks have cost.
    pub spent_msat: Msat,
    /// Fees earned on accepted work.
    pub fees_msat: Msat,
    /// What routing has cost.
    pub routing_msat: Msat,
    /// What the wallet has received and paid, the oldest first.
    pub lines: Vec<Moved>,
}

/// What came into the wallet, or left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// The payment.
    pub payment: String,
    /// How much, in msat; negative if it left.
    pub amount_msat: i64,
}

impl From<Line> for Moved {
    fn from(line: Line) -> Self {
        Self {
            at: line.at,
            reason: line.reason,
            payment: hex::encode(line.reference),
            amount_msat: line.amount_msat,
        }
    }
}

impl Books {
    /// Reads the books in an aggregator's folder, also while it runs.
    ///
    /// # Errors
    /// A ledger that cannot be read.
    pub async fn read(folder: &Path, since: Timestamp) -> Result<Self, Error> {
        let ledger = Ledger::open(&folder.join(LEDGER)).await?;
        let sums = ledger.sums().await?;
        let lines = ledger.lines(&Account::Wallet, since).await?;
        Ok(Self::of(sums, lines))
    }

    fn of(sums: Sums, lines: Vec<Line>) -> Self {
        let owed = |all: Vec<(PublicKey, i64)>| {
            let all = all.into_iter();
            all.map(|(key, owed_msat)| Owed { key, owed_msat })
                .collect()
        };
        Self {
            wallet_msat: sums.wallet_msat,
            held_msat: sums.held,
            buyers: owed(sums.credits),
            providers: owed(sums.payouts),
            bonds: owed(sums.bonds),
            charged_msat: sums.charged,
            spent_msat: sums.spent,
            fees_msat: sums.fees_earned,
            routing_msat: sums.routing,
            lines: lines.into_iter().map(Moved::from).collect(),
        }
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, what: &str, msat: i64| {
            writeln!(f, "{what:<24} {:>16}", sats(msat))
        };
        row(f, "wallet", self.wallet_msat)?;
        row(f, "held for groups", signed(self.held_msat))?;
        row(f, "owed to buyers", sum(&self.buyers))?;
        row(f, "owed to providers", sum(&self.providers))?;
        row(f, "bonds", sum(&self.bonds))?;
        row(f, "charged for work", signed(self.charged_msat))?;
        row(f, "spent on work", signed(self.spent_msat))?;
        row(f, "fees earned", signed(self.fees_msat))?;
        row(f, "spent on routing", signed(self.routing_msat))?;
        for (who, owed) in [
            ("buyer", &self.buyers),
            ("provider", &self.providers),
            ("bond of", &self.bonds),
        ] {
            for one in owed {
                writeln!(f, "{who} {} {}", npub(&one.key), sats(one.owed_msat))?;
            }
        }
        for line in &self.lines {
            let amount = sats(line.amount_msat);
            let (at, payment) = (line.at.to_human_datetime(), &line.payment);
            writeln!(f, "{at} {:<8} {amount:>16} {payment:.16}", line.reason)?;
        }
        Ok(())
    }
}

fn npub(key: &PublicKey) -> String {
    key.to_bech32().unwrap_or_else(|_| key.to_hex())
}

fn signed(amount: Msat) -> i64 {
    i64::try_from(amount.0).unwrap_or(i64::MAX)
}

fn sum(owed: &[Owed]) -> i64 {
    owed.iter().map(|one| one.owed_msat).sum()
}

fn sats(msat: i64) -> String {
    let sign = if msat < 0 { "-" } else { "" };
    format!("{sign}{}", Msat(msat.unsigned_abs()))
}
