//! `audit`: what a job's events prove.

use std::collections::HashMap;

use infernet_client::audit::{Check, Evidence, Finding, Report, audit};
use infernet_client::record::Record;
use infernet_payments::PaymentHash;
use infernet_protocol::money::{Msat, PaymentKind};
use nostr::EventId;

use super::show::Fetched;
use super::table::table;
use super::{Exit, Place, print, print_json, show, who};

/// Check a job's events anew
#[derive(Debug, clap::Args)]
pub struct Audit {
    /// The job: its id, or the first digits of one of yours
    job: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let Fetched {
            record,
            names,
            own,
            receipts,
        } = show::fetch(&self.job, &place).await?;
        let evidence = Evidence {
            payments: payments(&record, &place).await?,
            receipts,
        };
        let report = audit(&record, Some(&place.keys()?), &evidence);
        if self.json {
            print_json(&report)?;
        } else {
            let buyer = report
                .buyer
                .map_or_else(|| "somebody".into(), |buyer| who(&buyer, &own, &names));
            print(&format!(
                "Job {} of {buyer}\n\n{}\n{}\n",
                record.job,
                rows(&report),
                summary(&report)
            ))?;
        }
        Ok(match report.is_wrong() {
            true => Exit::Failed,
            false => Exit::Done,
        })
    }
}

/// What our ledger says was paid during the awards of a job; nothing where all of them were free.
async fn payments(
    record: &Record,
    place: &Place,
) -> anyhow::Result<HashMap<EventId, Vec<(PaymentHash, Msat)>>> {
    let paid = || {
        let awards = record.awards();
        awards.filter(|award| award.terms != PaymentKind::Free)
    };
    let mut payments = HashMap::new();
    if paid().next().is_none() {
        return Ok(payments);
    }
    let books = place.books().await?;
    for award in paid() {
        payments.insert(award.id(), books.payments(&award.id()).await?);
    }
    books.close().await;
    Ok(payments)
}

fn rows(report: &Report) -> String {
    let row = |check: &Check| {
        let finding = match check.finding {
            Finding::Proven => "proven",
            Finding::NotProven => "not proven",
            Finding::Wrong => "WRONG",
        };
        let of = check
            .attempt
            .map_or_else(|| "job".into(), |attempt| format!("attempt {attempt}"));
        vec![finding.into(), of, check.about.into(), check.detail.clone()]
    };
    let rows: Vec<_> = report.checks.iter().map(row).collect();
    table(&["FINDING", "OF", "WHAT", "WHY"], &rows)
}

fn summary(report: &Report) -> String {
    let [proven, open, wrong] =
        [Finding::Proven, Finding::NotProven, Finding::Wrong].map(|f| report.count(f));
    format!("{proven} proven, {open} not proven, {wrong} wrong")
}
