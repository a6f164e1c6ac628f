//! `audit`: what a job's events prove.

use infernet_client::audit::{Check, Finding, Report, audit};

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
        let (record, names, own) = show::fetch(&self.job, &place).await?;
        let report = audit(&record, Some(&place.keys()?));
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
