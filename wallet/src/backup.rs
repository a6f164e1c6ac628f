//! `backup`: what can be copied, and clear words on what it is good for.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::Context;
use infernet_wallet::channels::Channel;
use infernet_wallet::control::{self, Command};
use infernet_wallet::home::{self, Home};
use infernet_wallet::seed::Seed;

use crate::cli::BackupArgs;

const WHAT_IT_IS_GOOD_FOR: &str = "\
What brings back what:
  The words bring back bitcoin on the chain, in any wallet that knows BIP-39 and BIP-84. They do not bring back
  channels. To have them here again, put them into the file seed-words (mode 600) of a new wallet's folder before
  init, and name an Esplora server: from a bitcoind, a wallet learns only of what comes later.
  The copy brings back connections and the history of payments, and says with whom the channels are, so that you can
  ask those nodes to close them. It holds no channel's state, because an old state is worse than none: whoever runs a
  channel from an old copy loses all that is in it.
  To move a wallet, stop it, move its whole folder, and never start the old one again.";

/// Does what was asked.
pub async fn backup(home: &Home, args: &BackupArgs) -> anyhow::Result<()> {
    let seed = Seed::read(&home.seed())?;
    if let Some(folder) = &args.to {
        copy(home, folder).await?;
        println!("The copy lies in {}.", folder.display());
    }
    if args.show_words {
        println!("{}", seed.words());
    }
    eprintln!("\n{WHAT_IT_IS_GOOD_FOR}");
    Ok(())
}

async fn copy(home: &Home, folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let channels: Vec<Channel> = control::ask(&home.socket(), &Command::ChannelList).await?;
    home::write_private(
        &folder.join("channels.json"),
        serde_json::to_string_pretty(&channels)?.as_bytes(),
    )?;
    home::write_private(
        &folder.join("wallet.toml"),
        &std::fs::read(home.settings())?,
    )?;
    let to = folder.join("records.sqlite");
    Ok(control::ask::<()>(&home.socket(), &Command::CopyRecords { to }).await?)
}
