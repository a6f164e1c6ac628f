//! `infernet-provider status | models | stop`: what the owner asks of the one
//! that runs.

use std::fmt::Display;
use std::path::Path;

use infernet_protocol::event::Status as Announced;
use infernet_protocol::money::Price;
use infernet_provider::Home;
use infernet_provider::socket::{Error, Visitor};
use infernet_provider::status::{Attempt, Model, Relay, Status, Tally, Wallet};

use super::{print, print_json};

/// Shows how the running provider stands.
pub async fn status(home: &Path, json: bool) -> anyhow::Result<()> {
    let status = Visitor::connect(&Home::socket(home))
        .await?
        .status()
        .await?;
    match json {
        true => print_json(&status),
        false => print(&standing(&status)),
    }
}

/// Lists the models on sale, or, if nothing runs, those that the settings name.
pub async fn models(home: &Path, config: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let mut visitor = match Visitor::connect(&Home::socket(home)).await {
        Ok(visitor) => visitor,
        Err(Error::NotRunning { .. }) => return configured(home, config, json),
        Err(error) => return Err(error.into()),
    };
    let models = visitor.status().await?.models;
    match json {
        true => print_json(&models),
        false => print(&models.iter().map(model_line).collect::<String>()),
    }
}

fn configured(home: &Path, config: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let settings = super::settings(home, config)?;
    let paths: Vec<_> = settings.models.iter().map(|model| &model.path).collect();
    match paths.is_empty() {
        true => eprintln!("No provider is running, and its settings name no model."),
        false => eprintln!("No provider is running; these are the models in its settings."),
    }
    match json {
        true => print_json(&paths),
        false => print(&lines(paths.iter().map(|path| path.display()))),
    }
}

/// Stops the running provider, and waits until it has.
pub async fn stop(home: &Path, now: bool) -> anyhow::Result<()> {
    let mut visitor = Visitor::connect(&Home::socket(home)).await?;
    let load = visitor.status().await?.load;
    match load.running + load.queued {
        0 => {}
        _ if now => {}
        1 => eprintln!("Waits for a job to finish (--now stops at once)."),
        jobs => eprintln!("Waits for {jobs} jobs to finish (--now stops at once)."),
    }
    visitor.stop(now).await?;
    print("stopped\n")
}

fn lines(of: impl Iterator<Item = impl Display>) -> String {
    of.map(|line| format!("{line}\n")).collect()
}

/// How a provider stands, in lines.
fn standing(status: &Status) -> String {
    let said = match (status.closing, status.status) {
        (true, _) => "stopping: finishes what it has",
        (false, Announced::Online) => "online",
        (false, Announced::Busy) => "busy: the queue is full",
        (false, Announced::Offline) => "not announced yet: no relay has taken the announcement",
    };
    let attempts = match status.attempts.is_empty() {
        true => String::new(),
        false => format!("jobs:\n{}", lines(status.attempts.iter().map(attempt_line))),
    };
    format!(
        "{} ({})\n  {said}; process {}\n  {} on {}\n{}{}  {} of {} slots run, {} of {} places wait\n{}\n\
         models:\n{}{attempts}",
        status.name,
        status.npub,
        status.pid,
        status.engine,
        status.hardware,
        lines(status.relays.iter().map(relay_line)),
        lines(status.wallet.iter().map(wallet_line)),
        status.load.running,
        status.slots,
        status.load.queued,
        status.queue,
        tally_line(&status.tally),
        status.models.iter().map(model_line).collect::<String>(),
    )
}

fn relay_line(relay: &Relay) -> String {
    let stands = match (&relay.trouble, relay.connected) {
        (None, true) => "connected".to_owned(),
        (Some(wanted), true) => format!("connected, but it {wanted}"),
        (Some(trouble), false) => trouble.clone(),
        (None, false) => "connecting".to_owned(),
    };
    // A relay chooses its words itself: nothing in them steers the terminal.
    format!(
        "  relay {}: {}",
        relay.url,
        stands.replace(char::is_control, " ")
    )
}

fn wallet_line(wallet: &Wallet) -> String {
    let balance = wallet.balance_msat;
    let balance = balance.map_or("nothing known of its balance".to_owned(), |balance| {
        format!("{balance} in it")
    });
    match &wallet.trouble {
        // A wallet chooses its words itself: nothing in them steers the terminal.
        Some(trouble) => format!(
            "  wallet: {balance}; {}",
            trouble.replace(char::is_control, " ")
        ),
        None => format!("  wallet: {balance}"),
    }
}

fn tally_line(tally: &Tally) -> String {
    format!(
        "  since the start: {} bids, {} awards accepted, {} declined; {} completed, {} stopped, {} failed; \
         {} tokens read, {} drawn",
        tally.bids,
        tally.accepted,
        tally.declined,
        tally.completed,
        tally.stopped,
        tally.failed,
        tally.input_tokens,
        tally.output_tokens
    )
}

fn attempt_line(attempt: &Attempt) -> String {
    let doing = match (attempt.running, attempt.unpaid) {
        (true, _) => "runs",
        (false, true) => "waits for money",
        (false, false) => "waits",
    };
    format!("  {} attempt {} {doing}", attempt.job, attempt.number)
}

fn model_line(model: &Model) -> String {
    let cache = match (model.cache_tokens, model.cache_mib) {
        (Some(tokens), Some(mib)) => format!(", cache of {tokens} in {mib} MiB"),
        _ => String::new(),
    };
    format!(
        "  {} ({}, {}, {} tokens of context{cache}): {}, first token in {} ms, {} tokens/s\n",
        model.name,
        model.task,
        model.dtype,
        model.context,
        price(&model.price),
        model.promise.first_token_ms,
        model.promise.tokens_per_s
    )
}

fn price(price: &Price) -> String {
    match price.is_free() {
        true => "free".into(),
        false => format!(
            "{} in, {} out msat per million tokens",
            price.input_msat, price.output_msat
        ),
    }
}
