//! What the wallet remembers beside what LDK keeps: connections, their requests, invoices and payments.
//!
//! One SQLite file, written with WAL and `synchronous = FULL`: what a call has recorded survives a crash. Calls block
//! for the milliseconds of one small transaction. A state changes by compare-and-set, so that a request, an event of
//! LDK and a deadline that meet cannot undo each other.

mod connection;
mod invoice;
mod payment;
mod request;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior};

pub use self::connection::{Budget, Connection, NewConnection, Period};
pub use self::invoice::{Invoice, InvoiceState, NewInvoice};
pub use self::payment::{Begun, Order, Payment, PaymentState};
pub use self::request::Seen;

/// Why a record could not be made or read: the disk, or a file that something else has written.
#[derive(Debug, thiserror::Error)]
#[error("the wallet's records: {0}")]
pub struct Error(#[from] rusqlite::Error);

/// The records of one wallet.
#[derive(Debug)]
pub struct Records {
    database: Mutex<rusqlite::Connection>,
}

/// The tables as the first version of the wallet has them; `user_version` counts changes.
const TABLES: &str = include_str!("tables.sql");

impl Records {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// A disk that refuses, or a file that is no such database.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let database = rusqlite::Connection::open(path)?;
        make_private(path);
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "FULL")?;
        database.pragma_update(None, "foreign_keys", "ON")?;
        let records = Self {
            database: Mutex::new(database),
        };
        records.write(|change| {
            let version: i64 = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            match version {
                0 => change.execute_batch(TABLES),
                _ => Ok(()),
            }
        })?;
        Ok(records)
    }

    /// Runs `change` in one transaction that no other writer can come between.
    fn write<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let mut database = self.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = change(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    fn read<T>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        Ok(query(&self.lock())?)
    }

    fn lock(&self) -> MutexGuard<'_, rusqlite::Connection> {
        // A panic in a transaction has rolled it back: the database is whole.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something small to remember under a name, or nothing.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn note(&self, name: &str) -> Result<Option<String>, Error> {
        self.read(|database| {
            let query = "SELECT value FROM notes WHERE name = ?1";
            database
                .query_row(query, [name], |row| row.get(0))
                .optional()
        })
    }

    /// Remembers something small under a name.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_note(&self, name: &str, value: &str) -> Result<(), Error> {
        self.write(|change| {
            change
                .execute(
                    "INSERT OR REPLACE INTO notes (name, value) VALUES (?1, ?2)",
                    [name, value],
                )
                .map(drop)
        })
    }

    /// Copies the records into a new file.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn copy_to(&self, path: &Path) -> Result<(), Error> {
        let to = path.to_string_lossy();
        self.read(|database| database.execute("VACUUM INTO ?1", [to]).map(drop))?;
        make_private(path);
        Ok(())
    }
}

/// SQLite gives its other files the mode of this one. The folder is private too, so a disk that knows no modes is none
/// the worse.
fn make_private(path: &Path) {
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
}

/// An amount or a time for SQLite, whose integers are signed; what does not fit is more than all bitcoin in msat.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
