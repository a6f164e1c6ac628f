//! What the commands do.

mod engine;
mod owner;
mod start;

use std::path::{Path, PathBuf};

use anyhow::Context;
use infernet_node::config;
use infernet_node::keys::{self, Origin};
use infernet_provider::Home;
use infernet_provider::settings::{Settings, TEMPLATE};
use nostr::ToBech32;

pub use owner::{models, status, stop};
pub use start::start;

/// The home that the user names, else the usual one.
pub fn home(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match named {
        Some(home) => Ok(home),
        None => config::home("provider").context("say where the provider's home is with --home"),
    }
}

/// Makes the key and a settings file to edit.
pub fn init(home: &Path) -> anyhow::Result<()> {
    let identity = identity(home)?;
    let path = Home::settings(home);
    match std::fs::File::create_new(&path) {
        Ok(mut file) => {
            use std::io::Write;
            file.write_all(TEMPLATE.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            println!("settings: {} (edit it)", path.display());
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            println!("settings: {} (left as it is)", path.display());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot write {}", path.display()));
        }
    }
    println!("provider: {}", identity.keys.public_key.to_bech32()?);
    println!("next: infernet-provider start --model PATH");
    Ok(())
}

/// The provider's key, which is made at first use; then the user is told.
fn identity(home: &Path) -> anyhow::Result<keys::Identity> {
    let identity = keys::load_or_make(&Home::key(home))?;
    if let Origin::Made(path) = &identity.origin {
        eprintln!(
            "A key was made: {}. Whoever has this file is this provider: keep a copy.",
            path.display()
        );
    }
    Ok(identity)
}

fn settings(home: &Path, config: Option<&Path>) -> anyhow::Result<Settings> {
    Ok(config::load(config, &Home::settings(home))?)
}
