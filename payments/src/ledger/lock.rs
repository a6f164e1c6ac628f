//! What processes that share a ledger must not do at the same time. The locks are the system's, on files beside the
//! ledger: they end with their process, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nostr::PublicKey;

use super::{Error, Ledger};

/// The right to keep one tab, among all who share the ledger. Given back when dropped.
#[derive(Debug)]
#[must_use = "the tab is anybody's again once this is dropped"]
pub struct TabLock {
    _file: File,
}

impl Ledger {
    /// Takes the tab with a counterparty; nothing if somebody else keeps it, in this process or in another.
    ///
    /// A tab's machine knows only what it was told: two of them on one tab would each risk a whole top-up, and find
    /// the other's jobs in the counterparty's totals. So whoever shares the ledger with other processes takes the
    /// tab first, then asks for [`charge_what_was_left`](Self::charge_what_was_left) and
    /// [`carried`](Self::carried), and keeps the lock as long as its machine. A process that is alone, like a
    /// provider, needs none.
    ///
    /// # Errors
    /// The file beside the ledger cannot be made.
    pub fn lock_tab(&self, counterparty: &PublicKey) -> Result<Option<TabLock>, Error> {
        let file = lock_file(&self.path, &format!("tab-{counterparty}")).map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(TabLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(io_error(error)),
        }
    }
}

/// The right to take a wallet's contents into the books, among all who share the ledger. Given back when dropped.
#[derive(Debug)]
#[must_use = "somebody else may do the same once this is dropped"]
pub(crate) struct AdoptingLock {
    _file: File,
}

impl Ledger {
    /// Waits until nobody else takes the wallet's contents into the books: two who did would post them twice.
    ///
    /// # Errors
    /// The file beside the ledger cannot be made.
    pub(crate) async fn lock_adopting(&self) -> Result<AdoptingLock, Error> {
        let file = wait_for(&self.path, "adopting").await?;
        Ok(AdoptingLock { _file: file })
    }
}

/// Waits until no other process is making or changing the ledger's tables.
pub(super) async fn lock_tables(path: &Path) -> Result<File, Error> {
    wait_for(path, "lock").await
}

async fn wait_for(path: &Path, what: &'static str) -> Result<File, Error> {
    let path = path.to_owned();
    let locking = tokio::task::spawn_blocking(move || {
        let file = lock_file(&path, what)?;
        file.lock()?;
        Ok(file)
    });
    match locking.await {
        Ok(locked) => locked.map_err(io_error),
        Err(stopped) => Err(io_error(stopped.into())),
    }
}

/// Makes the ledger's file if it is not there, so that nobody else can read it. SQLite gives the files beside it the
/// same mode.
pub(super) fn make_private(path: &Path) -> Result<(), Error> {
    // A file that is there is not opened: closing it would drop the locks that SQLite has on it.
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io_error(error)),
    }
}

fn lock_file(ledger: &Path, what: &str) -> io::Result<File> {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(PathBuf::from(name))
}

fn io_error(error: io::Error) -> Error {
    Error::Sqlite(error.into())
}
