//! `spending`: what was spent, by the ledger.

use std::time::Duration;

use infernet_client::purse::Spent;
use infernet_node::clock;
use infernet_protocol::money::Msat;
use nostr::{PublicKey, Timestamp};

use super::table::table;
use super::{Exit, Place, print, print_json, short};

/// Tell what was spent, by provider
#[derive(Debug, clap::Args)]
pub struct Spending {
    /// Only the last days [default: all]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    since: Option<u32>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Spending {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let since = self.since.map_or(Timestamp::from_secs(0), |days| {
            clock::now() - Duration::from_secs(u64::from(days) * 86_400)
        });
        let books = place.books().await?;
        let spending = books.spending(since).await;
        let unclear = books.unclear().await;
        books.close().await;
        let (spending, unclear) = (spending?, unclear?);
        if self.json {
            print_json(&spending)?;
        } else if spending.providers.is_empty() {
            eprintln!("Nothing was spent.");
        } else {
            let rows: Vec<_> = spending.providers.iter().map(row).collect();
            print(&table(
                &["PROVIDER", "ATTEMPTS", "COST", "PAID", "PAID BACK"],
                &rows,
            ))?;
            print(&format!(
                "\nWork cost {}. {} were paid, and {} came back; routing cost {}.\n",
                spending.charged_msat,
                spending.paid_msat,
                spending.refunded_msat,
                spending.fees_msat
            ))?;
        }
        if unclear > 0 {
            eprintln!(
                "What {unclear} attempts cost is not known yet; the next job with their providers looks."
            );
        }
        Ok(Exit::Done)
    }
}

fn row(spent: &Spent) -> Vec<String> {
    vec![
        called(&spent.name, &spent.provider),
        spent.attempts.to_string(),
        spent.charged_msat.to_string(),
        spent.paid_msat.to_string(),
        or_dash(spent.refunded_msat),
    ]
}

fn or_dash(amount: Msat) -> String {
    match amount {
        Msat::ZERO => "-".into(),
        amount => amount.to_string(),
    }
}

/// What a provider was called, or its key.
pub fn called(name: &str, key: &PublicKey) -> String {
    match name {
        "" => short(key),
        name => name.into(),
    }
}
