//! Wallets with play money, for machines without a bitcoind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Money, Programs, Purse, Purses};
use crate::Process;
use crate::market::Relay;

/// How much is in each wallet, and what it can receive is without limit.
const FUNDS_SATS: u64 = 1_000_000;

const READY: Duration = Duration::from_secs(60);

/// The program with the wallets, and the relay on which they answer.
pub struct Play {
    _wallets: Process,
    _relay: Relay,
}

impl Play {
    /// Starts them.
    ///
    /// # Errors
    /// If they do not come up.
    pub fn start(
        folder: &Path,
        programs: &Programs,
        names: &[&str],
        progress: &dyn Fn(&str),
    ) -> Result<(Self, Purses)> {
        progress("relay");
        let mut command = Command::new(programs.folder.join("infernet-relay"));
        command.arg("--general"); // wallets' kinds are not the market's
        let relay = Relay::launch(command, folder.join("relay"), "127.0.0.1:0")?;
        progress("wallets");
        let mut command = Command::new(programs.folder.join("infernet-test-wallets"));
        command.args(["--relay", &relay.url]);
        command.args(names.iter().map(|name| format!("{name}={FUNDS_SATS}")));
        let wallets = Process::start("infernet-test-wallets", &mut command)?;
        let purses = wallets.wait_stdout(READY, purses)?;
        let play = Self {
            _wallets: wallets,
            _relay: relay,
        };
        Ok((play, purses))
    }
}

/// Reads the lines `name connection` up to `ready`.
fn purses(said: &str) -> Option<Purses> {
    let (lines, _) = said.split_once("\nready")?;
    let purse = |line: &str| {
        let (name, connection) = line.split_once(' ')?;
        Some(Purse {
            name: name.to_owned(),
            connection: connection.to_owned(),
            watch: connection.to_owned(),
            home: None,
        })
    };
    Some(Purses {
        money: Money::Play,
        program: PathBuf::new(),
        purses: lines.lines().map(purse).collect::<Option<_>>()?,
    })
}
