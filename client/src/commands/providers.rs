//! `providers`: who sells what.

use infernet_client::Provider;
use infernet_client::price::InWords;
use infernet_protocol::event::{AnnouncedModel, Status};
use serde_json::{Value, json};

use super::table::table;
use super::{Exit, Place, npub, print, print_json, short};

/// List who sells what
#[derive(Debug, clap::Args)]
pub struct Providers {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Providers {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let client = place.client().await?;
        let providers = client.providers().await;
        client.close().await;
        let providers = providers?;
        if self.json {
            print_json(&providers.iter().map(object).collect::<Vec<_>>())?;
        } else if providers.is_empty() {
            eprintln!("Nobody sells anything on {} now.", place.relays.join(", "));
        } else {
            print(&rows(&providers))?;
        }
        Ok(Exit::Done)
    }
}

const HEADER: [&str; 9] = [
    "NAME",
    "KEY",
    "MODEL",
    "TASK",
    "PRICE",
    "FIRST TOKEN",
    "TOKENS/S",
    "LOAD",
    "SCORE",
];

fn rows(providers: &[Provider]) -> String {
    let mut rows = Vec::new();
    for provider in providers {
        let models = &provider.announcement.models;
        rows.extend(models.iter().map(|model| row(provider, model)));
    }
    table(&HEADER, &rows)
}

fn row(provider: &Provider, model: &AnnouncedModel) -> Vec<String> {
    let announcement = &provider.announcement;
    vec![
        announcement.name.clone(),
        short(&announcement.author()),
        model.name.clone(),
        model.task.to_string(),
        InWords(&model.price).to_string(),
        format!("{} ms", model.promise.first_token_ms),
        format!("{:.0}", model.promise.tokens_per_s),
        load(provider),
        score(provider),
    ]
}

/// What runs of what can run, and what waits.
fn load(provider: &Provider) -> String {
    let announcement = &provider.announcement;
    let running = format!(
        "{}/{}",
        announcement.load.running, announcement.capacity.slots
    );
    match (announcement.status, announcement.load.queued) {
        (Status::Busy, _) => format!("{running} full"),
        (_, 0) => running,
        (_, queued) => format!("{running} +{queued}"),
    }
}

/// The score, and how many ratings it rests on.
fn score(provider: &Provider) -> String {
    let standing = &provider.standing;
    let ratings = match (standing.counted, standing.ignored) {
        (0, 0) => "no ratings".to_owned(),
        (counted, 0) => format!("{counted} counted"),
        (counted, ignored) => format!("{counted} counted, {ignored} ignored"),
    };
    format!("{:.2} ({ratings})", standing.score)
}

fn object(provider: &Provider) -> Value {
    let announcement = &provider.announcement;
    json!({
        "npub": npub(&announcement.author()),
        "pubkey": announcement.author(),
        "score": provider.standing.score,
        "ratings_counted": provider.standing.counted,
        "ratings_ignored": provider.standing.ignored,
        "announcement": **announcement,
    })
}
