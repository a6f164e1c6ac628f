//! `ledger` and `reconcile`: the books, whether the aggregator runs or not.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use infernet_aggregator::Home;
use infernet_aggregator::treasury::{Books, LEDGER};
use infernet_node::clock;
use infernet_payments::ledger::Report;
use infernet_payments::{Cashier, Ledger};
use nostr::Timestamp;
use serde_json::json;

use super::{print, print_json};

const A_DAY: u64 = 86_400;

/// Shows what is in the wallet, what is owed to whom, and what has moved in so many days.
pub async fn ledger(home: &Path, days: u64, json: bool) -> anyhow::Result<()> {
    is_there(home)?;
    let since = clock::now()
        .as_secs()
        .saturating_sub(days.saturating_mul(A_DAY));
    let books = Books::read(home, Timestamp::from_secs(since)).await?;
    match json {
        true => print_json(&books),
        false => print(&books.to_string()),
    }
}

/// Compares the ledger with the wallet.
pub async fn reconcile(home: &Path, config: Option<&Path>, json: bool) -> anyhow::Result<()> {
    is_there(home)?;
    let settings = super::settings(home, config)?;
    let wallet = super::start::wallet(&settings)?;
    let wallet = wallet.context("there is no wallet to compare with: set INFERNET_WALLET")?;
    let ledger = Ledger::open(&home.join(LEDGER)).await?;
    let cashier = Cashier::new(wallet, ledger);
    let report = cashier.reconcile(clock::now()).await?;
    match json {
        true => print_json(&object(&report))?,
        false => print(&told(&report))?,
    }
    match report.is_explained() {
        true => Ok(()),
        false => bail!("the wallet and the ledger do not agree"),
    }
}

fn is_there(home: &Path) -> anyhow::Result<()> {
    match Home::key(home).exists() && home.join(LEDGER).exists() {
        true => Ok(()),
        false => bail!(
            "no aggregator has run in {} yet (start one: infernet-aggregator start)",
            home.display()
        ),
    }
}

fn object(report: &Report) -> serde_json::Value {
    let differences = report.differences.iter().map(ToString::to_string);
    json!({
        "ledger_msat": report.ledger_msat,
        "wallet_msat": report.wallet,
        "differences": differences.collect::<Vec<_>>(),
        "unexplained_msat": report.unexplained_msat,
    })
}

fn told(report: &Report) -> String {
    let mut text = format!(
        "The ledger says {} msat, the wallet {} msat.\n",
        report.ledger_msat, report.wallet.0
    );
    for difference in &report.differences {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{difference}");
    }
    match (report.is_even(), report.unexplained_msat) {
        (true, _) => text.push_str("They agree.\n"),
        (false, 0) => {}
        (false, msat) => {
            let _ = writeln!(text, "{msat} msat are not explained");
        }
    }
    text
}
