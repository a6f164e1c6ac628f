//! `show`: the life of a job as its signed events tell it.

use std::collections::HashMap;

use infernet_client::record::{Entry, Record, Said};
use infernet_protocol::event::{Award, Experience, JobResult, Signed};
use infernet_protocol::inference::EndReason;
use infernet_protocol::money::Msat;
use nostr::{Event, EventId, PublicKey, Timestamp};

use super::table::table;
use super::terminal::price_of;
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
        let (record, names, own) = fetch(&self.job, &place).await?;
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

/// A job's record, what its parties are called, and who we are.
pub async fn fetch(
    job: &str,
    place: &Place,
) -> anyhow::Result<(Record, HashMap<PublicKey, String>, PublicKey)> {
    let history = place.history().await?;
    let id = job_id::find(job, &history).await;
    history.close().await;
    let id = id?;
    let client = place.client().await?;
    let own = client.public_key();
    let fetched = client.job_events(id).await;
    let mut names = client.names().await;
    client.close().await;
    let record = Record::of(id, fetched?);
    if record.entries.is_empty() {
        anyhow::bail!("no event of job {id} is on {}", place.relays.join(", "));
    }
    names.extend(record.names());
    Ok((record, names, own))
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
            price_of(&offer.max_price)
        ),
        Said::Bid(bid) => format!(
            "bids with {}: {}, first token in {} ms, {:.0} tokens/s",
            bid.name,
            price_of(&bid.price),
            bid.promise.first_token_ms,
            bid.promise.tokens_per_s
        ),
        Said::Award(award) => awards(award, &who),
        Said::Result(result) => results(result),
        Said::Receipt(receipt) => format!(
            "{}: {} paid of {}",
            attempt(&receipt.award),
            receipt.paid_msat,
            receipt.due_msat
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

fn awards(award: &Signed<Award>, who: impl Fn(&PublicKey) -> String) -> String {
    format!(
        "gives attempt {} to {}, {}",
        award.attempt,
        who(&award.provider),
        price_of(&award.price)
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
    }
}
