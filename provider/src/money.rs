//! A provider's books, read beside a provider that may run: what it has earned,
//! and whether its ledger and its wallet say the same.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use infernet_node::clock;
use infernet_payments::ledger::{Account, Line, Report};
use infernet_payments::{Cashier, Ledger, PaymentRail};
use infernet_protocol::money::Msat;
use nostr::{PublicKey, Timestamp};
use serde::Serialize;

use crate::store::{Stated, Store};
use crate::{home, till};

/// Why the books cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was ever sold for money there.
    #[error("there are no books in {}: nothing was sold for money yet", .0.display())]
    NoBooks(PathBuf),
    /// They are damaged, or the wallet cannot be asked.
    #[error(transparent)]
    Till(#[from] till::Error),
}

/// What was earned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Earnings {
    /// Since when.
    pub since: Timestamp,
    /// What work was charged for, in msat, less what was rejected or forfeited of it.
    pub earned_msat: Msat,
    /// How much work it was.
    pub jobs: u64,
    /// What buyers have paid in, in msat.
    pub received_msat: Msat,
    /// What was paid back to them, in msat.
    pub refunded_msat: Msat,
    /// What routing cost, in msat.
    pub fees_msat: Msat,
    /// By model, the one that has earned most first.
    pub models: Vec<Share>,
    /// By day (UTC), the latest first.
    pub days: Vec<Share>,
    /// What buyers have left, or owe, by now.
    pub tabs: Vec<Tab>,
    /// How it stands with aggregators that pay after their check, by now.
    pub escrows: Vec<Owed>,
}

/// How it stands with an aggregator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owed {
    /// With whom.
    pub aggregator: PublicKey,
    /// What it owes, in msat: done, and neither rejected nor paid. The bond is in it.
    pub owed_msat: Msat,
    /// What of that it holds back for a while, in msat, as it said last.
    pub bond_msat: Msat,
    /// What it has paid in all, in msat.
    pub paid_msat: Msat,
    /// What it has rejected in all, in msat.
    pub rejected_msat: Msat,
    /// What it has kept of the bond in all, in msat.
    pub forfeited_msat: Msat,
}

/// What one model, or one day, has earned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The model's name, or the day.
    pub name: String,
    /// How much it has earned, in msat.
    pub earned_msat: Msat,
    /// How many jobs that was.
    pub jobs: u64,
}

/// How the tab with a buyer stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tab {
    /// With whom.
    pub buyer: PublicKey,
    /// What the buyer has left, in msat; negative if it owes.
    pub left_msat: i64,
}

/// What the provider of this home has earned since then; nothing if it has no
/// books yet.
///
/// # Errors
/// The books cannot be read.
pub async fn earnings(folder: &Path, since: Timestamp) -> Result<Earnings, Error> {
    let ledger = match open(folder).await {
        Err(Error::NoBooks(_)) => return Ok(nothing(since)),
        ledger => ledger?,
    };
    let read = async {
        let income = ledger.lines(&Account::Income, since).await?;
        let wallet = ledger.lines(&Account::Wallet, since).await?;
        let fees = ledger.lines(&Account::Fees, since).await?;
        let tabs = ledger.tabs().await?;
        Ok::<_, till::Error>((income, wallet, fees, tabs))
    };
    let (income, wallet, fees, tabs) = read.await?;
    let store = store(folder).await?;
    let models = models(store.as_ref()).await?;
    let escrows = escrows(&ledger, store.as_ref()).await?;
    if let Some(store) = store {
        store.close().await;
    }
    let model = |line: &Line| models.get(&line.reference).cloned();
    let by_model = shares(&income, |line| {
        model(line).unwrap_or_else(|| "unknown".to_owned())
    });
    let mut by_day = shares(&income, day);
    by_day.sort_unstable_by(|a, b| b.name.cmp(&a.name));
    ledger.close().await;
    Ok(Earnings {
        since,
        earned_msat: net(&income),
        jobs: of(&income, CHARGE).count() as u64,
        received_msat: Msat(total(of(&wallet, "top-up")).0 + total(of(&wallet, "payout")).0),
        refunded_msat: refunded(&wallet, &fees),
        fees_msat: total(fees.iter()),
        models: by_model,
        days: by_day,
        tabs: tabs
            .into_iter()
            .map(|(buyer, owes)| Tab {
                buyer,
                left_msat: -owes,
            })
            .collect(),
        escrows,
    })
}

const fn nothing(since: Timestamp) -> Earnings {
    Earnings {
        since,
        earned_msat: Msat::ZERO,
        jobs: 0,
        received_msat: Msat::ZERO,
        refunded_msat: Msat::ZERO,
        fees_msat: Msat::ZERO,
        models: vec![],
        days: vec![],
        tabs: vec![],
        escrows: vec![],
    }
}

/// Compares the ledger of this home with its wallet. What is not of the
/// provider's doing is written down as come from, or gone, elsewhere, if `adopts`.
///
/// # Errors
/// There are no books, or the wallet cannot be asked.
pub async fn reconcile(
    folder: &Path,
    wallet: Arc<dyn PaymentRail>,
    adopts: bool,
) -> Result<Report, Error> {
    let cashier = Cashier::new(wallet, open(folder).await?);
    let report = match adopts {
        true => cashier.adopt(clock::now()).await,
        false => cashier.reconcile(clock::now()).await,
    };
    let report = report.map_err(till::Error::from)?;
    cashier.ledger().clone().close().await;
    Ok(report)
}

async fn open(folder: &Path) -> Result<Ledger, Error> {
    let path = home::ledger(folder);
    if !path.exists() {
        return Err(Error::NoBooks(folder.to_owned()));
    }
    Ok(Ledger::open(&path).await.map_err(till::Error::from)?)
}

async fn store(folder: &Path) -> Result<Option<Store>, till::Error> {
    let path = home::store(folder);
    match path.exists() {
        true => Ok(Some(Store::open(&path).await?)),
        false => Ok(None),
    }
}

/// Which model each award was for.
async fn models(store: Option<&Store>) -> Result<HashMap<[u8; 32], String>, till::Error> {
    let Some(store) = store else {
        return Ok(HashMap::new());
    };
    let sold = store.models_sold().await?.into_iter();
    Ok(sold
        .map(|(award, model)| (award.to_bytes(), model))
        .collect())
}

/// How it stands with all aggregators that have ever owed anything.
async fn escrows(ledger: &Ledger, store: Option<&Store>) -> Result<Vec<Owed>, till::Error> {
    let mut all = vec![];
    for (aggregator, escrow) in ledger.escrows().await? {
        let stated = match store {
            Some(store) => store.stated(&aggregator).await?,
            None => Stated::default(),
        };
        all.push(Owed {
            aggregator,
            owed_msat: escrow.owed,
            bond_msat: stated.bond,
            paid_msat: escrow.paid,
            rejected_msat: escrow.rejected,
            forfeited_msat: escrow.forfeited,
        });
    }
    Ok(all)
}

fn of<'a>(lines: &'a [Line], reason: &str) -> impl Iterator<Item = &'a Line> {
    lines.iter().filter(move |line| line.reason == reason)
}

/// What work brings, and nothing else does.
const CHARGE: &str = "charge";

/// What is left of an income, which grows downwards, after what was lost of it.
fn net<'a>(income: impl IntoIterator<Item = &'a Line>) -> Msat {
    let sum: i64 = income.into_iter().map(|line| -line.amount_msat).sum();
    Msat(u64::try_from(sum).unwrap_or(0))
}

/// Income grows downwards, what comes into the wallet upwards.
fn total<'a>(lines: impl Iterator<Item = &'a Line>) -> Msat {
    Msat(lines.map(|line| line.amount_msat.unsigned_abs()).sum())
}

/// What went out for refunds, less what routing took of it.
fn refunded(wallet: &[Line], fees: &[Line]) -> Msat {
    let (out, routing) = (total(of(wallet, "refund")), total(of(fees, "refund")));
    Msat(out.0.saturating_sub(routing.0))
}

/// The day of a line, as in 2026-11-20.
fn day(line: &Line) -> String {
    line.at.to_human_datetime().chars().take(10).collect()
}

/// What each has earned, the most first.
fn shares(income: &[Line], name: impl Fn(&Line) -> String) -> Vec<Share> {
    let mut by_name: BTreeMap<String, Vec<&Line>> = BTreeMap::new();
    for line in income {
        by_name.entry(name(line)).or_default().push(line);
    }
    let shares = by_name.into_iter().map(|(name, lines)| Share {
        name,
        earned_msat: net(lines.iter().copied()),
        jobs: lines.iter().filter(|line| line.reason == CHARGE).count() as u64,
    });
    // A bond that was lost is no model's.
    let mut shares: Vec<_> = shares.filter(|share| share.jobs > 0).collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.earned_msat));
    shares
}
