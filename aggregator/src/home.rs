//! The folder where an aggregator keeps its key, its store, its work and its socket.

use std::path::{Path, PathBuf};

use infernet_node::home;
pub use infernet_node::home::{Error, make_folder};

/// What an aggregator is called in its home.
pub(crate) const ROLE: &str = "aggregator";

/// The folder, held until this is dropped: it has one aggregator at a time.
#[derive(Debug)]
pub struct Home(home::Home);

impl Home {
    /// Makes `folder`, for its owner alone, if it is not there, and takes it.
    ///
    /// # Errors
    /// When another aggregator has it, or it cannot be written.
    pub fn take(folder: &Path) -> Result<Self, Error> {
        let home = home::Home::take(ROLE, folder)?;
        make_folder(&work(folder)).map_err(|source| Error::Io {
            folder: work(folder),
            source,
        })?;
        Ok(Self(home))
    }

    /// Where the secret key lies.
    pub fn key(folder: &Path) -> PathBuf {
        folder.join("aggregator.key")
    }

    /// Where the settings lie.
    pub fn settings(folder: &Path) -> PathBuf {
        folder.join("aggregator.toml")
    }

    /// Where the running aggregator answers its owner.
    pub fn socket(folder: &Path) -> PathBuf {
        folder.join("aggregator.sock")
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        self.0.folder()
    }
}

/// The store of the aggregator whose home this is, running or not.
pub fn store(folder: &Path) -> PathBuf {
    folder.join("aggregator.sqlite")
}

/// The ledger of the aggregator whose home this is, running or not.
pub fn ledger(folder: &Path) -> PathBuf {
    folder.join("ledger.sqlite")
}

/// Where the owner puts files of thresholds, as `infernet-provider calibrate` writes
/// them: they go before those that come with the program.
pub fn thresholds(folder: &Path) -> PathBuf {
    folder.join("thresholds")
}

/// Where the lines and answers of open groups lie.
pub fn work(folder: &Path) -> PathBuf {
    folder.join("work")
}
