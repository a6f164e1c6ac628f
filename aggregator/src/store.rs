//! What must outlive the process: quotes, orders, how far each group and shard is,
//! events that have not reached a relay, bans. SQLite; what is promised is written
//! before it is said. Money itself is in the ledger (`payments`), a file of its own,
//! and lines and answers are files of the group's folder.

mod dealings;
mod groups;
mod orders;
mod outbox;
mod placed;
mod shards;

use std::path::Path;

use infernet_node::database;
use nostr::{EventId, PublicKey, Timestamp};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Row, SqlitePool};

pub use dealings::{Ban, Dealing, Dealings};
pub use groups::{Advance, GroupRow};
pub use orders::{OrderRow, Taken};
pub use placed::{Placed, place};
pub use shards::ShardRow;

/// Why the store does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite refuses: the disk is full, or the file is damaged.
    #[error("the store: {0}")]
    Sqlite(#[from] sqlx::Error),
    /// The file is from a newer version, or damaged.
    #[error("the store: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The file cannot be made.
    #[error("the store: {0}")]
    Io(#[from] std::io::Error),
    /// A row does not hold what it should.
    #[error("the store is damaged: {0}")]
    Damaged(&'static str),
}

impl From<crate::checks::Error> for Error {
    fn from(error: crate::checks::Error) -> Self {
        match error {
            crate::checks::Error::Sqlite(error) => Self::Sqlite(error),
            crate::checks::Error::Damaged => Self::Damaged("a row of the checks"),
            crate::checks::Error::Unsigned => Self::Damaged("a verdict"),
        }
    }
}

/// The store. Clones are cheap and share it.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the store in the file at `path`, which is made, for its owner alone, if it
    /// is not there.
    ///
    /// # Errors
    /// A file that cannot be made, is damaged, or is from a newer version.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        database::make_private(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        // One connection: writers would wait for each other in any case.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// The database itself, for those who keep tables of their own in it.
    pub const fn pool(&self) -> &SqlitePool {
        &self.pool
    }
}

/// Seconds as SQLite has them.
fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_secs()).unwrap_or(i64::MAX)
}

/// A count or an amount as SQLite has it.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column's count or amount.
fn read_number(row: &SqliteRow, column: &'static str) -> Result<u64, Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| Error::Damaged("a number"))
}

fn read_u32(row: &SqliteRow, column: &'static str) -> Result<u32, Error> {
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(|_| Error::Damaged("a number"))
}

fn read_time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, Error> {
    read_number(row, column).map(Timestamp::from_secs)
}

fn read_bytes(row: &SqliteRow, column: &'static str) -> Result<[u8; 32], Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    bytes.try_into().map_err(|_| Error::Damaged("32 bytes"))
}

fn read_id(row: &SqliteRow, column: &'static str) -> Result<EventId, Error> {
    read_bytes(row, column).map(EventId::from_byte_array)
}

fn read_key(row: &SqliteRow, column: &'static str) -> Result<PublicKey, Error> {
    let bytes = read_bytes(row, column)?;
    PublicKey::from_slice(&bytes).map_err(|_| Error::Damaged("a public key"))
}

/// A column's JSON, if there is any.
fn read_json<T: serde::de::DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<T>, Error> {
    let text: Option<String> = row.try_get(column)?;
    let read = |text: String| serde_json::from_str(&text).map_err(|_| Error::Damaged("JSON"));
    text.map(read).transpose()
}

/// A value as the JSON that a column holds.
fn json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::Damaged("a value that is no JSON"))
}

#[cfg(test)]
mod tests;
