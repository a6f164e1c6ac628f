//! What the commands do.

mod ledger;
mod owner;
mod start;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use infernet_aggregator::Home;
use infernet_aggregator::settings::{Settings, TEMPLATE};
use infernet_node::config;
use infernet_node::keys::{self, Origin};
use nostr::ToBech32;

pub use ledger::{ledger, reconcile};
pub use owner::{ban, jobs, providers, status, stop, unban};
pub use start::start;

/// Names the variable that holds the wallet's connection.
const WALLET: &str = "INFERNET_WALLET";

/// The home that the user names, else the usual one.
pub fn home(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match named {
        Some(home) => Ok(home),
        None => {
            config::home("aggregator").context("say where the aggregator's home is with --home")
        }
    }
}

/// Makes the key and a settings file to edit.
pub fn init(home: &Path) -> anyhow::Result<()> {
    let identity = identity(home)?;
    let path = Home::settings(home);
    let what = match config::make(&path, TEMPLATE)? {
        true => "edit it",
        false => "left as it is",
    };
    print(&format!("settings: {} ({what})\n", path.display()))?;
    print(&format!(
        "aggregator: {}\nnext: infernet-aggregator start\n",
        identity.keys.public_key.to_bech32()?
    ))
}

/// The aggregator's key, which is made at first use; then the user is told.
fn identity(home: &Path) -> anyhow::Result<keys::Identity> {
    let identity = keys::load_or_make(&Home::key(home))?;
    if let Origin::Made(path) = &identity.origin {
        eprintln!(
            "A key was made: {}. Whoever has this file is this aggregator: keep a copy.",
            path.display()
        );
    }
    Ok(identity)
}

/// Prints to standard output. Who closes it early (as `head` does) has seen enough.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Prints a value as JSON.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Settings of the file, with the wallet of the environment over them: a flag would
/// show it to everybody on the machine.
fn settings(home: &Path, config: Option<&Path>) -> anyhow::Result<Settings> {
    let default = Home::settings(home);
    let mut settings: Settings = config::load(config, &default)?;
    if settings.wallet.is_some()
        && let Some(warning) = config::warning_of_readers(config.unwrap_or(&default))
    {
        eprintln!("{warning}");
    }
    if let Ok(text) = std::env::var(WALLET)
        && !text.is_empty()
    {
        settings.wallet = Some(text.parse().context(WALLET)?);
    }
    Ok(settings)
}
