//! Events that must reach a relay.

use nostr::{Event, EventId, JsonUtil, Timestamp};
use sqlx::{Row, Sqlite, Transaction};

use super::{Error, Store, seconds};

/// How long an event waits for a relay that takes it.
const KEPT_S: u64 = 7 * 24 * 3_600;

/// Events that are published again at a start.
const MAX_UNACKNOWLEDGED: i64 = 10_000;

/// Puts an event into the outbox.
pub(super) async fn post(
    transaction: &mut Transaction<'_, Sqlite>,
    event: &Event,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query("INSERT OR IGNORE INTO outbox (event, json, made_s) VALUES (?, ?, ?)")
        .bind(event.id.as_bytes().as_slice())
        .bind(event.as_json())
        .bind(seconds(now))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

impl Store {
    /// Keeps an event until a relay has it.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn post(&self, event: &Event, now: Timestamp) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        post(&mut transaction, event, now).await?;
        Ok(transaction.commit().await?)
    }

    /// A relay has this event.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn acknowledge(&self, event: &EventId, now: Timestamp) -> Result<(), Error> {
        sqlx::query("UPDATE outbox SET acknowledged_s = ? WHERE event = ?")
            .bind(seconds(now))
            .bind(event.as_bytes().as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Events that no relay has acknowledged, the oldest first; those that were
    /// acknowledged, or are too old, are forgotten.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn unacknowledged(&self, now: Timestamp) -> Result<Vec<Event>, Error> {
        let oldest = Timestamp::from_secs(now.as_secs().saturating_sub(KEPT_S));
        sqlx::query("DELETE FROM outbox WHERE acknowledged_s IS NOT NULL OR made_s < ?")
            .bind(seconds(oldest))
            .execute(&self.pool)
            .await?;
        let rows = sqlx::query(
            "SELECT json FROM outbox WHERE acknowledged_s IS NULL ORDER BY made_s LIMIT ?",
        )
        .bind(MAX_UNACKNOWLEDGED)
        .fetch_all(&self.pool)
        .await?;
        let parse = |row: &sqlx::sqlite::SqliteRow| {
            let text: String = row.try_get("json")?;
            Event::from_json(text).map_err(|_| Error::Damaged("an event"))
        };
        rows.iter().map(parse).collect()
    }
}
