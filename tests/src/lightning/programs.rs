//! Which programs the wallets are made of.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::binaries::{binary, wallet};

/// Where the programs are.
pub struct Programs {
    /// Those of the workspace.
    pub folder: PathBuf,
    /// `infernet-wallet`, which is built apart.
    pub wallet: PathBuf,
    /// A bitcoind; without one there is play money.
    pub bitcoind: Option<PathBuf>,
}

impl Programs {
    /// Those that tests run: built here, once.
    pub fn of_tests(bitcoind: Option<&Path>) -> Self {
        let relay = binary("infernet-relay");
        Self {
            folder: relay.parent().map(Path::to_owned).unwrap_or_default(),
            // Play money needs none, and its build takes minutes.
            wallet: bitcoind.map(|_| wallet()).unwrap_or_default(),
            bitcoind: bitcoind.map(Path::to_owned),
        }
    }

    /// Those beside the program that runs now.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub fn beside_this(wallet: PathBuf, bitcoind: Option<PathBuf>) -> Result<Self> {
        let this = std::env::current_exe()?;
        let folder = this.parent().context("a program is in a folder")?;
        Ok(Self {
            folder: folder.to_owned(),
            wallet,
            bitcoind,
        })
    }
}
