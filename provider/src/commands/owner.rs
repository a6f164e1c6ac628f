//! `infernet-provider status | models | stop`: what the owner asks of the one
//! that runs.

use std::path::Path;

use infernet_protocol::event::Status as Announced;
use infernet_protocol::money::Price;
use infernet_provider::Home;
use infernet_provider::socket::{Error, Visitor};
use infernet_provider::status::{Model, Status};

/// Shows how the running provider stands.
pub async fn status(home: &Path, json: bool) -> anyhow::Result<()> {
    let status = Visitor::connect(&Home::socket(home))
        .await?
        .status()
        .await?;
    match json {
        true => println!("{}", serde_json::to_string_pretty(&status)?),
        false => print(&status),
    }
    Ok(())
}

/// Lists the models on sale, or, if nothing runs, those that the settings name.
pub async fn models(home: &Path, config: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let mut visitor = match Visitor::connect(&Home::socket(home)).await {
        Ok(visitor) => visitor,
        Err(Error::NotRunning(_)) => return configured(home, config, json),
        Err(error) => return Err(error.into()),
    };
    let models = visitor.status().await?.models;
    match json {
        true => println!("{}", serde_json::to_string_pretty(&models)?),
        false => models.iter().for_each(print_model),
    }
    Ok(())
}

fn configured(home: &Path, config: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let settings = super::settings(home, config)?;
    eprintln!("No provider is running; these are the models in its settings.");
    let paths: Vec<_> = settings.models.iter().map(|model| &model.path).collect();
    match json {
        true => println!("{}", serde_json::to_string_pretty(&paths)?),
        false => paths.iter().for_each(|path| println!("{}", path.display())),
    }
    Ok(())
}

/// Stops the running provider, and waits until it has.
pub async fn stop(home: &Path, now: bool) -> anyhow::Result<()> {
    let mut visitor = Visitor::connect(&Home::socket(home)).await?;
    let load = visitor.status().await?.load;
    if !now && load.running + load.queued > 0 {
        eprintln!(
            "Waits for {} jobs to finish (--now stops at once).",
            load.running + load.queued
        );
    }
    visitor.stop(now).await?;
    println!("stopped");
    Ok(())
}

fn print(status: &Status) {
    let said = match (status.closing, status.status) {
        (true, _) => "stopping: finishes what it has",
        (false, Announced::Online) => "online",
        (false, Announced::Busy) => "busy: the queue is full",
        (false, Announced::Offline) => "not announced yet: no relay has taken the announcement",
    };
    println!("{} ({})", status.name, status.npub);
    println!("  {said}; process {}", status.pid);
    println!("  {} on {}", status.engine, status.hardware);
    for relay in &status.relays {
        match (&relay.trouble, relay.connected) {
            (_, true) => println!("  relay {}: connected", relay.url),
            (Some(trouble), false) => println!("  relay {}: {trouble}", relay.url),
            (None, false) => println!("  relay {}: connecting", relay.url),
        }
    }
    println!(
        "  {} of {} slots run, {} of {} places wait",
        status.load.running, status.slots, status.load.queued, status.queue
    );
    let tally = &status.tally;
    println!(
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
    );
    println!("models:");
    status.models.iter().for_each(print_model);
    if !status.attempts.is_empty() {
        println!("jobs:");
    }
    for attempt in &status.attempts {
        let doing = if attempt.running { "runs" } else { "waits" };
        println!("  {} attempt {} {doing}", attempt.job, attempt.number);
    }
}

fn print_model(model: &Model) {
    println!(
        "  {} ({}, {}, {} tokens of context): {}, first token in {} ms, {} tokens/s",
        model.name,
        model.task,
        model.dtype,
        model.context,
        price(&model.price),
        model.promise.first_token_ms,
        model.promise.tokens_per_s
    );
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
