//! `reconcile`: the ledger beside the wallet.

use infernet_payments::ledger::Report;
use infernet_protocol::money::Msat;
use serde_json::json;

use super::{Exit, Place, print, print_json};

/// Compare the ledger with the wallet
#[derive(Debug, clap::Args)]
pub struct Reconcile {
    /// Write down what is not of this client's doing as come from, or gone, elsewhere
    #[arg(long)]
    adopt: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Reconcile {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let Some(purse) = place.purse()? else {
            return Err(infernet_client::Error::NoWallet.into());
        };
        let books = place.books().await?;
        let report = match self.adopt {
            true => books.adopt(purse.rail).await,
            false => books.reconcile(purse.rail).await,
        };
        books.close().await;
        let report = report?;
        match self.json {
            true => print_json(&object(&report))?,
            false => print(&text(&report))?,
        }
        Ok(match report.is_explained() {
            true => Exit::Done,
            false => Exit::Failed,
        })
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

fn text(report: &Report) -> String {
    let mut lines = vec![
        format!("The ledger says {}.", signed(report.ledger_msat)),
        format!("The wallet has  {}.", report.wallet),
    ];
    if !report.differences.is_empty() {
        lines.push(String::new());
        lines.extend(report.differences.iter().map(ToString::to_string));
    }
    lines.push(String::new());
    lines.push(match report.unexplained_msat {
        0 if report.differences.is_empty() => "They agree.".into(),
        0 => "The differences above explain it.".into(),
        rest => format!(
            "{} are not explained: money that came into the wallet, or left it, without this client. To write it \
             down as that: infernet-client reconcile --adopt",
            signed(rest)
        ),
    });
    lines.push(String::new());
    lines.join("\n")
}

fn signed(msat: i64) -> String {
    let amount = Msat(msat.unsigned_abs());
    match msat {
        ..0 => format!("-{amount}"),
        _ => amount.to_string(),
    }
}
