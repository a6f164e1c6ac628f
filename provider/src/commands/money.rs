//! `infernet-provider earnings | reconcile`: what the books say.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use infernet_node::clock;
use infernet_payments::PaymentRail;
use infernet_payments::ledger::Report;
use infernet_payments::nip47::{self, Rail};
use infernet_protocol::money::Msat;
use infernet_provider::money::{self, Earnings, Owed, Share, Tab};
use infernet_provider::settings::Settings;
use nostr::{Timestamp, ToBech32};
use serde_json::json;

use super::{print, print_json};

/// Seconds of a day.
const DAY_S: u64 = 24 * 3_600;

/// Shows what was earned, by a provider that runs or not.
pub async fn earnings(home: &Path, days: Option<u32>, json: bool) -> anyhow::Result<()> {
    let days_s = days.map(|days| u64::from(days) * DAY_S);
    let since = days_s.map_or(0, |days_s| clock::now().as_secs().saturating_sub(days_s));
    let earned = money::earnings(home, Timestamp::from_secs(since)).await?;
    match json {
        true => print_json(&earned),
        false => print(&told(&earned)?),
    }
}

/// Compares ledger and wallet; fails if something is left unexplained.
pub async fn reconcile(
    home: &Path,
    config: Option<&Path>,
    adopt: bool,
    json: bool,
) -> anyhow::Result<()> {
    let settings = super::settings(home, config)?;
    let wallet = wallet(&settings)?;
    let wallet = wallet.context("there is no wallet to compare with: set INFERNET_WALLET")?;
    let report = money::reconcile(home, wallet, adopt).await?;
    match json {
        true => print_json(&as_json(&report))?,
        false => print(&compared(&report))?,
    }
    if !report.is_explained() {
        bail!("the ledger and the wallet do not agree");
    }
    Ok(())
}

/// The wallet that the settings name.
pub fn wallet(settings: &Settings) -> anyhow::Result<Option<Arc<dyn PaymentRail>>> {
    let Some(connection) = &settings.wallet else {
        return Ok(None);
    };
    let rail = Rail::open(connection, nip47::Options::default())?;
    Ok(Some(Arc::new(rail)))
}

fn told(earned: &Earnings) -> anyhow::Result<String> {
    let jobs = earned.jobs;
    let mut text = format!(
        "earned {} with {jobs} job{}\nreceived {}, paid back {}, routing {}\n",
        earned.earned_msat,
        if jobs == 1 { "" } else { "s" },
        earned.received_msat,
        earned.refunded_msat,
        earned.fees_msat
    );
    list(&mut text, "by model", &earned.models, share);
    list(&mut text, "by day", &earned.days, share);
    list(&mut text, "tabs", &earned.tabs, tab);
    list(&mut text, "in escrow", &earned.escrows, owed);
    Ok(text)
}

fn list<T>(text: &mut String, title: &str, of: &[T], line: impl Fn(&T) -> String) {
    if of.is_empty() {
        return;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{title}:");
    for one in of {
        let _ = writeln!(text, "  {}", line(one));
    }
}

fn share(share: &Share) -> String {
    // A model's name comes from a file.
    let name = share.name.replace(char::is_control, " ");
    format!("{name}: {} ({} jobs)", share.earned_msat, share.jobs)
}

fn tab(tab: &Tab) -> String {
    // Encoding 32 bytes as bech32 cannot fail.
    let buyer = tab.buyer.to_bech32().unwrap_or_default();
    let amount = Msat(tab.left_msat.unsigned_abs());
    match tab.left_msat >= 0 {
        true => format!("{buyer} has {amount} left"),
        false => format!("{buyer} owes {amount}"),
    }
}

fn owed(owed: &Owed) -> String {
    // Encoding 32 bytes as bech32 cannot fail.
    let aggregator = owed.aggregator.to_bech32().unwrap_or_default();
    format!(
        "{aggregator} owes {} ({} of it held back as bond), has paid {}, rejected {}, kept {} of the bond",
        owed.owed_msat, owed.bond_msat, owed.paid_msat, owed.rejected_msat, owed.forfeited_msat
    )
}

/// An amount that may be less than nothing.
fn signed(msat: i64) -> String {
    let sign = if msat < 0 { "-" } else { "" };
    format!("{sign}{}", Msat(msat.unsigned_abs()))
}

fn compared(report: &Report) -> String {
    let mut text = format!(
        "The ledger says {}.\nThe wallet has  {}.\n",
        signed(report.ledger_msat),
        report.wallet
    );
    list(
        &mut text,
        "differences",
        &report.differences,
        ToString::to_string,
    );
    // Writing to a string cannot fail.
    let _ = match report.unexplained_msat {
        0 if report.is_even() => writeln!(text, "They agree."),
        0 => writeln!(text, "The differences explain it."),
        rest => writeln!(
            text,
            "Unexplained: {}. If it came from, or went to, elsewhere (the chain, a channel), \
             run this again with --adopt.",
            signed(rest)
        ),
    };
    text
}

fn as_json(report: &Report) -> serde_json::Value {
    let differences = report.differences.iter();
    json!({
        "ledger_msat": report.ledger_msat,
        "wallet_msat": report.wallet,
        "differences": differences.map(ToString::to_string).collect::<Vec<_>>(),
        "unexplained_msat": report.unexplained_msat,
        "explained": report.is_explained(),
    })
}
