//! `infernet-aggregator status | stop | jobs | providers | ban | unban`: what the owner
//! asks of the one that runs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use infernet_aggregator::Home;
use infernet_aggregator::socket::Visitor;
use infernet_aggregator::status::{Order, Provider, Status};
use infernet_aggregator::store::Store;
use infernet_node::clock;
use infernet_protocol::batch::Progress;
use nostr::{PublicKey, ToBech32};

use super::{print, print_json};

async fn visit(home: &Path) -> anyhow::Result<Visitor> {
    Ok(Visitor::connect(&Home::socket(home)).await?)
}

/// Shows how the running aggregator stands.
pub async fn status(home: &Path, json: bool) -> anyhow::Result<()> {
    let status = visit(home).await?.status().await?;
    match json {
        true => print_json(&status),
        false => print(&standing(&status)),
    }
}

/// Stops the running aggregator, and waits until it has.
pub async fn stop(home: &Path, now: bool) -> anyhow::Result<()> {
    let mut visitor = visit(home).await?;
    let running = visitor.status().await?.running_shards;
    if running > 0 && !now {
        eprintln!("Waits for {running} shards that run, a minute at most (--now does not).");
    }
    visitor.stop(now).await?;
    print("stopped\n")
}

/// Lists the newest orders.
pub async fn jobs(home: &Path, json: bool) -> anyhow::Result<()> {
    let jobs = visit(home).await?.jobs().await?;
    match json {
        true => print_json(&jobs),
        false if jobs.is_empty() => print("There are no orders yet.\n"),
        false => print(&jobs.iter().map(order).collect::<String>()),
    }
}

/// Lists providers.
pub async fn providers(home: &Path, json: bool) -> anyhow::Result<()> {
    let providers = visit(home).await?.providers().await?;
    match json {
        true => print_json(&providers),
        false if providers.is_empty() => print("No provider is known yet.\n"),
        false => print(&providers.iter().map(provider).collect::<String>()),
    }
}

/// Buys nothing more of a provider, whether the aggregator runs or not.
pub async fn ban(home: &Path, who: &str, reason: String) -> anyhow::Result<()> {
    let provider = key(who)?;
    if reason.is_empty() || reason.len() > 256 || reason.chars().any(char::is_control) {
        bail!("the reason must have 1 to 256 bytes and no control characters");
    }
    match Visitor::connect(&Home::socket(home)).await {
        Ok(mut visitor) => visitor.ban(provider, reason).await?,
        Err(infernet_aggregator::socket::Error::NotRunning { .. }) => {
            store(home)
                .await?
                .ban(&provider, &reason, clock::now())
                .await?;
        }
        Err(error) => return Err(error.into()),
    }
    print("banned\n")
}

/// Buys of a provider again.
pub async fn unban(home: &Path, who: &str) -> anyhow::Result<()> {
    let provider = key(who)?;
    let was_banned = match Visitor::connect(&Home::socket(home)).await {
        Ok(mut visitor) => visitor.unban(provider).await?,
        Err(infernet_aggregator::socket::Error::NotRunning { .. }) => {
            store(home).await?.unban(&provider).await?
        }
        Err(error) => return Err(error.into()),
    };
    print(match was_banned {
        true => "no longer banned\n",
        false => "it was not banned\n",
    })
}

async fn store(home: &Path) -> anyhow::Result<Store> {
    let path = infernet_aggregator::home::store(home);
    if !path.exists() {
        bail!("there is no aggregator in {}", home.display());
    }
    Ok(Store::open(&path).await?)
}

fn key(who: &str) -> anyhow::Result<PublicKey> {
    PublicKey::parse(who).with_context(|| format!("{who} is no public key: give an npub, or hex"))
}

/// How an aggregator stands, in lines.
fn standing(status: &Status) -> String {
    let mut text = format!(
        "{} ({})\n  {}; process {}\n  {}, fee {} %\n",
        plain(&status.name),
        status.npub,
        match status.closing {
            true => "stopping",
            false => "takes batches",
        },
        status.pid,
        match status.takes_money {
            true => "paid and free work",
            false => "free work only",
        },
        f64::from(status.fee_ppm) / 10_000.0,
    );
    for relay in &status.relays {
        let stands = match (&relay.trouble, relay.connected) {
            (None, true) => "connected".to_owned(),
            (Some(wanted), true) => format!("connected, but it {}", plain(wanted)),
            (Some(trouble), false) => plain(trouble),
            (None, false) => "connecting".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  relay {}: {stands}", relay.url);
    }
    let _ = writeln!(
        text,
        "  {} providers; {} shards run, {:.0} tokens/s; {} owed to providers",
        status.providers, status.running_shards, status.tokens_per_s, status.owed_msat
    );
    text.extend(status.orders.iter().map(order));
    text
}

/// What others chose themselves, with nothing in it that steers the terminal.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn order(order: &Order) -> String {
    let state = match (order.closed.is_some(), order.standing.closed) {
        (true, _) => "closed",
        (false, true) => "stopping",
        (false, false) => "open",
    };
    let mut text = format!(
        "order {}: {state}, {} lines of {}; {}\n",
        order.order,
        order.lines,
        plain(&order.models),
        progress(&order.standing.progress)
    );
    for group in &order.groups {
        let _ = writeln!(
            text,
            "  group {}: {}; {}",
            group.group,
            group.state,
            progress(&group.progress)
        );
    }
    text
}

fn progress(progress: &Progress) -> String {
    let left = progress.seconds_left;
    let left = left.map_or(String::new(), |left| format!(", about {left} s left"));
    format!(
        "{} of {} done, {} running, {} failed, {}{left}",
        progress.done, progress.lines, progress.running, progress.failed, progress.cost_msat
    )
}

fn provider(provider: &Provider) -> String {
    let Ok(npub) = provider.provider.to_bech32();
    let score = provider.score;
    let score = score.map_or(String::new(), |score| format!(", score {score:.2}"));
    let speed = provider.tokens_per_s;
    let speed = speed.map_or(String::new(), |speed| format!(", {speed:.0} tokens/s"));
    let online = match provider.online {
        true => "online",
        false => "away",
    };
    let mut text = format!(
        "{} ({npub}): {online}{score}{speed}; {} running, {} done, {} failed, {} rejected, {}\n",
        plain(&provider.name),
        provider.running,
        provider.done,
        provider.failed,
        provider.rejected,
        provider.cost_msat
    );
    for trust in &provider.trust {
        let _ = writeln!(
            text,
            "  {} on {}: {} passed in a row, {:.0} % are checked",
            &trust.model[..12.min(trust.model.len())],
            plain(&trust.engine),
            trust.streak,
            f64::from(trust.chance_ppm) / 10_000.0
        );
    }
    if let Some(account) = &provider.account {
        let _ = writeln!(
            text,
            "  owed {}, bond {}",
            account.owed_msat, account.bond_msat
        );
    }
    if let Some(reason) = &provider.banned {
        let _ = writeln!(text, "  banned: {}", plain(reason));
    }
    text
}
