//! `jobs`: the list of this machine.

use std::collections::HashMap;

use infernet_client::history::Job;
use infernet_client::purse::Moved;
use infernet_node::clock;
use nostr::EventId;

use super::table::table;
use super::{Exit, Place, print, print_json};

/// List the jobs of this machine
#[derive(Debug, clap::Args)]
pub struct Jobs {
    /// How many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    limit: u32,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Jobs {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let history = place.history().await?;
        let jobs = history.list(self.limit, clock::now()).await?;
        history.close().await;
        let moved = place.moved().await?;
        if self.json {
            let jobs: Vec<_> = jobs.iter().map(|job| with_cost(job, &moved)).collect();
            print_json(&jobs)?;
        } else if jobs.is_empty() {
            eprintln!("No job yet. Try: infernet-client submit \"Why is the sky blue?\"");
        } else {
            let rows: Vec<_> = jobs.iter().map(|job| row(job, &moved)).collect();
            let mut header = vec!["TIME (UTC)", "JOB", "MODEL", "PROVIDER", "STATUS", "TOKENS"];
            // Who buys free work alone needs no such column.
            header.extend((!moved.is_empty()).then_some("COST"));
            print(&table(&header, &rows))?;
        }
        Ok(Exit::Done)
    }
}

/// A job with what it cost and what was paid.
fn with_cost(job: &Job, moved: &HashMap<EventId, Moved>) -> serde_json::Value {
    let mut value = serde_json::to_value(job).unwrap_or_default();
    let moved = moved.get(&job.id).copied().unwrap_or_default();
    value["charged_msat"] = moved.charged.0.into();
    value["paid_msat"] = moved.paid.0.into();
    value
}

fn row(job: &Job, moved: &HashMap<EventId, Moved>) -> Vec<String> {
    let cost = moved
        .get(&job.id)
        .map_or_else(|| "-".to_owned(), |moved| moved.charged.to_string());
    let mut row = vec![
        super::show::time_of(job.began),
        job.id.to_hex()[..8].to_owned(),
        or_dash(&job.model),
        or_dash(&job.provider),
        job.status.as_str().to_owned(),
        job.tokens.to_string(),
    ];
    row.extend((!moved.is_empty()).then_some(cost));
    row
}

/// A job that nobody bid on has neither model nor provider.
fn or_dash(text: &str) -> String {
    match text {
        "" => "-".into(),
        text => text.into(),
    }
}
