//! The folder where a provider keeps its key, its store and its socket.

use std::path::{Path, PathBuf};

use infernet_node::home;
pub use infernet_node::home::Error;

/// What a provider is called in its home.
pub(crate) const ROLE: &str = "provider";

/// The folder, held until this is dropped: it has one provider at a time.
#[derive(Debug)]
pub struct Home(home::Home);

impl Home {
    /// Makes `folder`, for its owner alone, if it is not there, and takes it.
    ///
    /// # Errors
    /// When another provider has it, or it cannot be written.
    pub fn take(folder: &Path) -> Result<Self, Error> {
        home::Home::take(ROLE, folder).map(Self)
    }

    /// Where the secret key lies.
    pub fn key(folder: &Path) -> PathBuf {
        folder.join("provider.key")
    }

    /// Where the settings lie.
    pub fn settings(folder: &Path) -> PathBuf {
        folder.join("provider.toml")
    }

    /// Where the running provider answers questions.
    pub fn socket(folder: &Path) -> PathBuf {
        folder.join("provider.sock")
    }

    /// Where attempts and results are kept.
    pub fn store(&self) -> PathBuf {
        store(self.folder())
    }

    /// Where money is written down.
    pub fn ledger(&self) -> PathBuf {
        ledger(self.folder())
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        self.0.folder()
    }
}

/// The ledger of the provider whose home this is, running or not.
pub fn ledger(folder: &Path) -> PathBuf {
    folder.join("ledger.sqlite")
}

/// The store of the provider whose home this is, running or not.
pub fn store(folder: &Path) -> PathBuf {
    folder.join("provider.sqlite")
}
