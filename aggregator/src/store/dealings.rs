//! What was bought of each provider, and who is banned.

use infernet_protocol::money::Msat;
use nostr::{PublicKey, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::{Error, Store, number, read_key, read_number, read_time, seconds};

/// Providers that are listed.
const MAX_LISTED: i64 = 1_000;

/// A provider that is not bought from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Who.
    pub provider: PublicKey,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// One more dealing with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dealing {
    /// A shard was accepted.
    Done {
        /// Tokens of its prompts and answers.
        tokens: u64,
        /// What it cost.
        cost: Msat,
    },
    /// It failed, or fell silent.
    Failed,
    /// What it brought was rejected.
    Rejected,
}

/// All dealings with a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dealings {
    /// Who.
    pub provider: PublicKey,
    /// What it was called last.
    pub name: String,
    /// Shards that were accepted.
    pub done: u64,
    /// Shards that failed.
    pub failed: u64,
    /// Shards that were rejected.
    pub rejected: u64,
    /// Tokens of what was accepted.
    pub tokens: u64,
    /// What that cost.
    pub cost_msat: Msat,
    /// When the last of it ended.
    pub last: Timestamp,
}

impl Store {
    /// Writes down how a purchase went.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn dealt(
        &self,
        provider: &PublicKey,
        name: &str,
        dealing: Dealing,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (done, failed, rejected, tokens, cost) = match dealing {
            Dealing::Done { tokens, cost } => (1, 0, 0, tokens, cost.0),
            Dealing::Failed => (0, 1, 0, 0, 0),
            Dealing::Rejected => (0, 0, 1, 0, 0),
        };
        sqlx::query(
            "INSERT INTO dealings (provider, name, done, failed, rejected, tokens, cost_msat, last_s)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (provider) DO UPDATE SET name = excluded.name, done = done + excluded.done,
                 failed = failed + excluded.failed, rejected = rejected + excluded.rejected,
                 tokens = tokens + excluded.tokens, cost_msat = cost_msat + excluded.cost_msat,
                 last_s = excluded.last_s",
        )
        .bind(provider.as_bytes().as_slice())
        .bind(name)
        .bind(done)
        .bind(failed)
        .bind(rejected)
        .bind(number(tokens))
        .bind(number(cost))
        .bind(seconds(now))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Whom there were dealings with, the latest first.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn dealings(&self) -> Result<Vec<Dealings>, Error> {
        let rows = sqlx::query("SELECT * FROM dealings ORDER BY last_s DESC LIMIT ?")
            .bind(MAX_LISTED)
            .fetch_all(&self.pool)
            .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Dealings {
                provider: read_key(row, "provider")?,
                name: row.try_get("name")?,
                done: read_number(row, "done")?,
                failed: read_number(row, "failed")?,
                rejected: read_number(row, "rejected")?,
                tokens: read_number(row, "tokens")?,
                cost_msat: Msat(read_number(row, "cost_msat")?),
                last: read_time(row, "last_s")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Buys nothing more from a provider.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn ban(
        &self,
        provider: &PublicKey,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        sqlx::query("INSERT OR IGNORE INTO bans (provider, reason, banned_s) VALUES (?, ?, ?)")
            .bind(provider.as_bytes().as_slice())
            .bind(reason)
            .bind(seconds(now))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Buys from a provider again; false if it was not banned.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn unban(&self, provider: &PublicKey) -> Result<bool, Error> {
        let gone = sqlx::query("DELETE FROM bans WHERE provider = ?")
            .bind(provider.as_bytes().as_slice())
            .execute(&self.pool)
            .await?;
        Ok(gone.rows_affected() > 0)
    }

    /// Who is banned, the latest first.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn bans(&self) -> Result<Vec<Ban>, Error> {
        let rows = sqlx::query("SELECT * FROM bans ORDER BY banned_s DESC, provider")
            .fetch_all(&self.pool)
            .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Ban {
                provider: read_key(row, "provider")?,
                reason: row.try_get("reason")?,
                since: read_time(row, "banned_s")?,
            })
        };
        rows.iter().map(read).collect()
    }
}
