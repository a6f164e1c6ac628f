//! `audit`: what a job's events prove.

use std::collections::HashMap;

use infernet_client::audit::{Check, Evidence, Finding, OrderRecord, Report, audit, audit_order};
use infernet_client::record::Record;
use infernet_payments::PaymentHash;
use infernet_protocol::money::{Msat, PaymentKind};
use infernet_protocol::seal::Digest;
use nostr::EventId;

use super::show::Fetched;
use super::table::table;
use super::{Exit, Place, job_id, print, print_json, show, who};

/// Check a job's events, or a batch's, anew
#[derive(Debug, clap::Args)]
pub struct Audit {
    /// The job or batch: its id, or the first digits of one of yours
    job: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        if let Some(record) = self.order(&place).await? {
            let report = audit_order(&record);
            return self.tell(&report, &format!("Batch {}", record.order.id()));
        }
        let Fetched {
            record,
            names,
            own,
            receipts,
        } = show::fetch(&self.job, &place).await?;
        let evidence = Evidence {
            payments: payments(&record, &place).await?,
            receipts,
            blobs: blobs(&record, &place).await?,
        };
        let report = audit(&record, Some(&place.keys()?), &evidence);
        let buyer = report
            .buyer
            .map_or_else(|| "somebody".into(), |buyer| who(&buyer, &own, &names));
        self.tell(&report, &format!("Job {} of {buyer}", record.job))
    }

    /// The batch that is meant, if it is one.
    async fn order(&self, place: &Place) -> anyhow::Result<Option<OrderRecord>> {
        let history = place.history().await?;
        let id = job_id::find(&self.job, &history).await;
        history.close().await;
        let id = id?;
        let client = place.client().await?;
        let record = client.order_record(id).await;
        client.close().await;
        Ok(record?)
    }

    fn tell(&self, report: &Report, what: &str) -> anyhow::Result<Exit> {
        match self.json {
            true => print_json(report)?,
            false => print(&format!(
                "{what}\n\n{}\n{}\n",
                rows(report),
                summary(report)
            ))?,
        }
        Ok(match report.is_wrong() {
            true => Exit::Failed,
            false => Exit::Done,
        })
    }
}

/// What is in the blobs that a job names, if it names any.
async fn blobs(record: &Record, place: &Place) -> anyhow::Result<HashMap<Digest, Vec<u8>>> {
    if record.sealed().all(|sealed| sealed.blob.is_none()) {
        return Ok(HashMap::new());
    }
    let client = place.client().await?;
    let blobs = client.blobs_of(record).await;
    client.close().await;
    Ok(blobs)
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
