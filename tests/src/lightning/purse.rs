//! What another process needs to know wallets by: a file with connection strings in it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Account, Money};

/// One wallet.
#[derive(Clone, Serialize, Deserialize)]
pub struct Purse {
    /// What it is called.
    pub name: String,
    /// Its connection, for whoever is to use it.
    pub connection: String,
    /// Another, which sees its whole history.
    pub watch: String,
    /// Its folder, if it is a process of its own.
    pub home: Option<PathBuf>,
}

/// All of them.
#[derive(Clone, Serialize, Deserialize)]
pub struct Purses {
    /// Which money is in them.
    pub money: Money,
    /// The program of those that are processes of their own.
    pub program: PathBuf,
    /// The wallets.
    pub purses: Vec<Purse>,
}

/// Where they are written down, in the folder of all wallets.
const FILE: &str = "wallets.json";

impl Purses {
    /// Writes them down for this user alone.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(folder.join(FILE))?;
        Ok(file.write_all(serde_json::to_string(self)?.as_bytes())?)
    }

    /// Reads what [`Purses::write`] has written.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn read(folder: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(folder.join(FILE))
            .with_context(|| format!("no wallets run in {}", folder.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Connects to each. Needs a runtime.
    ///
    /// # Errors
    /// If a connection string makes no sense.
    pub fn open(&self) -> Result<Vec<Account>> {
        let purses = self.purses.iter();
        purses
            .map(|purse| Account::open(purse, &self.program))
            .collect()
    }
}
