//! `show`: the life of a job as its signed events tell it.

use std::collections::{HashMap, HashSet};

use infernet_client::Client;
use infernet_client::price::InWords;
use infernet_client::record::{Entry, Record, Said};
use infernet_protocol::event::{Award, Experience, JobResult, Receipt, Signed, TabTotals};
use infernet_protocol::inference::EndReason;
use infernet_protocol::money::{Msat, PaymentKind};
use nostr::{Event, EventId, PublicKey, Timestamp};

use super::table::table;
use super::terminal::left_on_tab;
use super::{Exit, Place, job_id, print, print_json, who};

/// Show the life of a job
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The job: its id, or the first digits of one of yours
    job: String,

    /// Print the events themselves as JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let Fetched {
            record, names, own, ..
        } = fetch(&self.job, &place).await?;
        if self.json {
            let events: Vec<&Event> = record.entries.iter().map(|e| e.said.event()).collect();
            print_json(&events)?;
            return Ok(Exit::Done);
        }
        print(&rows(&record, &own, &names))?;
        if record.entries.iter().any(|entry| entry.embedded) {
            eprintln!("* travels inside the award");
        }
        Ok(Exit::Done)
    }
}

/// A job's record, what its parties are called, who we are, and our receipts about these parties.
pub struct Fetched {
    pub record: Record,
    pub names: HashMap<PublicKey, String>,
    pub own: PublicKey,
    pub receipts: Vec<Signed<Receipt>>,
}

/// What the relays have of a job.
pub async fn fetch(job: &str, place: &Place) -> anyhow::Result<Fetched> {
    let history = place.history().await?;
    let id = job_id::find(job, &history).await;
    history.close().await;
    let id = id?;
    let client = place.client().await?;
    let own = client.public_key();
    let fetched = client.job_events(id).await;
    let mut names = client.names().await;
    let record = fetched.map(|events| Record::of(id, events));
    let receipts = match &record {
        Ok(record) => receipts(&client, record).await,
        Err(_) => Ok(Vec::new()),
    };
    let is_batch = match &record {
        Ok(record) if record.entries.is_empty() => client.order_record(id).await?.is_some(),
        _ => false,
    };
    client.close().await;
    let (record, receipts) = (record?, receipts?);
    if is_batch {
        anyhow::bail!(
            "{id} is a batch, whose jobs are the aggregator's. See: infernet-client audit {id}"
        );
    }
    if record.entries.is_empty() {
        anyhow::bail!("no event of job {id} is on {}", place.relays.join(", "));
    }
    names.extend(record.names());
    Ok(Fetched {
        record,
        names,
        own,
        receipts,
    })
}

/// Our receipts about the providers who were paid in this job.
async fn receipts(
    client: &Client,
    record: &Record,
) -> Result<Vec<Signed<Receipt>>, infernet_client::Error> {
    let paid = record
        .awards()
        .filter(|award| award.terms != PaymentKind::Free);
    let providers: HashSet<PublicKey> = paid.map(|award| award.provider).collect();
    match providers.is_empty() {
        true => Ok(Vec::new()),
        false => client.receipts(providers).await,
    }
}

fn rows(record: &Record, own: &PublicKey, names: &HashMap<PublicKey, String>) -> String {
    let attempts: HashMap<EventId, u32> = record.awards().map(|a| (a.id(), a.attempt)).collect();
    let row = |entry: &Entry| {
        let event = entry.said.event();
        let mark = if entry.embedded { "*" } else { "" };
        vec![
            time_of(event.created_at),
            format!("{} {}{mark}", event.kind.as_u16(), entry.said.kind_name()),
            who(&event.pubkey, own, names),
            what(&entry.said, |key| who(key, own, names), &attempts),
        ]
    };
    let rows: Vec<_> = record.entries.iter().map(row).collect();
    table(&["TIME (UTC)", "KIND", "WHO", "WHAT"], &rows)
}

/// A time in UTC, to the second.
pub fn time_of(time: Timestamp) -> String {
    time.to_human_datetime().replace('T', " ").replace('Z', "")
}

/// An event in a line.
fn what(
    said: &Said,
    who: impl Fn(&PublicKey) -> String,
    attempts: &HashMap<EventId, u32>,
) -> String {
    let attempt = |award: &EventId| match attempts.get(award) {
        Some(attempt) => format!("attempt {attempt}"),
        None => "an attempt that is not here".into(),
    };
    match said {
        Said::Announcement(announcement) => {
            let models: Vec<_> = announcement
                .models
                .iter()
                .map(|m| m.name.as_str())
                .collect();
            format!("sells {}", models.join(", "))
        }
        Said::Offer(offer) => format!(
            "asks for {}: up to {} tokens, {}",
            offer.task,
            offer.limits.output_tokens,
            InWords(&offer.max_price)
        ),
        Said::Bid(bid) => format!(
            "bids with {}: {}, first token in {} ms, {:.0} tokens/s",
            bid.name,
            InWords(&bid.price),
            bid.promise.first_token_ms,
            bid.promise.tokens_per_s
        ),
        Said::Award(award) => awards(award, &who),
        Said::Result(result) => results(result),
        Said::Receipt(receipt) => format!(
            "{}: {} charged, {} paid{}",
            attempt(&receipt.award),
            receipt.due_msat,
            receipt.paid_msat,
            receipt.tab.map(left_after).unwrap_or_default()
        ),
        Said::Verdict(verdict) => format!(
            "{}: {:?} by {}",
            attempt(&verdict.award),
            verdict.judgement,
            verdict.method
        ),
        Said::Attestation(attestation) => {
            let about = attempt(&attestation.award);
            format!(
                "{about}: {} {}",
                who(&attestation.provider),
                experience(attestation.experience)
            )
        }
        Said::Cancel(cancel) => {
            let what = cancel
                .award
                .map_or_else(|| "the job".into(), |award| attempt(&award));
            format!("{what} is over: {:?}", cancel.reason).to_lowercase()
        }
    }
}

/// How a tab stands, as the end of a line.
fn left_after(tab: TabTotals) -> String {
    let amount = |msat: Msat| i64::try_from(msat.0).unwrap_or(i64::MAX);
    let left_msat = amount(tab.paid_msat).saturating_sub(amount(tab.due_msat));
    format!("; {}", left_on_tab(left_msat))
}

fn awards(award: &Signed<Award>, who: impl Fn(&PublicKey) -> String) -> String {
    format!(
        "gives attempt {} to {}, {}",
        award.attempt,
        who(&award.provider),
        InWords(&award.price)
    )
}

fn results(result: &JobResult) -> String {
    let usage = &result.usage;
    let tokens = match (usage.output_tokens, usage.prefix_tokens) {
        (0, 0) => format!("{} tokens read", usage.input_tokens),
        (drawn, 0) => format!("{drawn} tokens"),
        (drawn, prefix) => format!("{drawn} tokens behind {prefix}"),
    };
    let due = match result.due_msat {
        Msat::ZERO => String::new(),
        due => format!(", {due} due"),
    };
    let ended = match (result.ended, &result.error) {
        (EndReason::Failed, Some(error)) => format!("failed: {error}"),
        (EndReason::Failed, None) => "failed".into(),
        (EndReason::Stop, _) => "complete".into(),
        (EndReason::Length, _) => "as long as allowed".into(),
        (EndReason::Cancelled, _) => "stopped".into(),
    };
    let seconds = result.timing.total_ms as f64 / 1_000.0;
    format!(
        "attempt {}: {tokens} in {seconds:.1} s, {ended}{due}",
        result.attempt
    )
}

const fn experience(experience: Experience) -> &'static str {
    match experience {
        Experience::Completed => "did it",
        Experience::Failed => "failed",
        Experience::Silent => "fell silent",
        Experience::Invalid => "sent what is not valid",
        Experience::Rejected => "sent what a check rejected",
    }
}
