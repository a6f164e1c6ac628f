//! What processes that share a ledger must not do at the same time.

use std::fs::{File, TryLockError};

use infernet_node::database;
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
        let name = format!("tab-{counterparty}");
        let file = database::lock_file(&self.path, &name).map_err(sqlx::Error::from)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(TabLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(sqlx::Error::from(error).into()),
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
        let file = database::lock(&self.path, "adopting").await;
        let file = file.map_err(sqlx::Error::from)?;
        Ok(AdoptingLock { _file: file })
    }
}
