//! What must outlive the process: which awards were answered, and which events
//! have not reached a relay yet. SQLite; the intent is written before the act.

use std::path::Path;

use infernet_protocol::event::{Award, Signed};
use nostr::{Event, EventId, JsonUtil, PublicKey, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

/// How long an event waits for a relay that takes it: a week covers a provider
/// that was switched off over the holidays; after that nobody waits for it.
const OUTBOX_KEPT_S: u64 = 7 * 24 * 3_600;

/// How far ahead of the clock an announcement may be dated, because several were
/// made within a second.
const MAX_AHEAD_S: i64 = 60;

/// Events that are published again at a start; more than this were never made
/// between two of them by honest work.
const MAX_UNACKNOWLEDGED: i64 = 10_000;

/// Why the store does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite refuses: the disk is full, or the file is damaged.
    #[error("the store: {0}")]
    Sqlite(#[from] sqlx::Error),
    /// The file is from a newer version, or damaged.
    #[error("the store: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row does not hold what it should.
    #[error("the store is damaged: {0}")]
    Damaged(&'static str),
}

/// What became of an award.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was taken on.
    Accepted,
    /// It was not.
    Declined,
}

impl Answer {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Declined => "declined",
        }
    }
}

/// An attempt that was promised and never answered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    /// Its award.
    pub award: EventId,
    /// Its job.
    pub job: EventId,
    /// The award's author.
    pub buyer: PublicKey,
}

/// The store. Clones are cheap and share it.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the store in the file at `path`, which is made if it is not there.
    ///
    /// # Errors
    /// A file that cannot be made, is damaged, or is from a newer version.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        // One connection: writers would wait for each other in any case.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// Writes down how an award was answered; false if it had been answered before.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn answer(
        &self,
        award: &Signed<Award>,
        answer: Answer,
        arrived: Timestamp,
        forget: Timestamp,
    ) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO attempts (award, job, buyer, number, state, arrived_s, forget_s)
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(award.id().as_bytes().as_slice())
        .bind(award.job_id().as_bytes().as_slice())
        .bind(award.author().as_bytes().as_slice())
        .bind(i64::from(award.attempt))
        .bind(answer.as_str())
        .bind(seconds(arrived))
        .bind(seconds(forget))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether this award was answered before.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn knows(&self, award: &EventId) -> Result<bool, Error> {
        let row = sqlx::query("SELECT 1 FROM attempts WHERE award = ?")
            .bind(award.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    /// The highest attempt of a buyer's job that was accepted here; 0 if none.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn newest_attempt(&self, buyer: &PublicKey, job: &EventId) -> Result<u32, Error> {
        let row = sqlx::query(
            "SELECT coalesce(max(number), 0) AS newest FROM attempts
             WHERE buyer = ? AND job = ? AND state <> 'declined'",
        )
        .bind(buyer.as_bytes().as_slice())
        .bind(job.as_bytes().as_slice())
        .fetch_one(&self.pool)
        .await?;
        u32::try_from(row.try_get::<i64, _>("newest")?).map_err(|_| Error::Damaged("a number"))
    }

    /// An attempt has ended with nothing to deliver.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn end(&self, award: &EventId) -> Result<(), Error> {
        sqlx::query("UPDATE attempts SET state = 'ended' WHERE award = ? AND state = 'accepted'")
            .bind(award.as_bytes().as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// An attempt has ended with this result, which has to reach a relay. False
    /// if it had ended before; then the result is not kept.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn deliver(&self, award: &EventId, result: &Event) -> Result<bool, Error> {
        self.conclude(award, "ended", result).await
    }

    /// An attempt that a restart has interrupted ends with this cancel.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn abandon(&self, award: &EventId, cancel: &Event) -> Result<bool, Error> {
        self.conclude(award, "abandoned", cancel).await
    }

    /// Ends an attempt and puts the event that says so into the outbox, both or
    /// neither.
    async fn conclude(
        &self,
        award: &EventId,
        state: &'static str,
        event: &Event,
    ) -> Result<bool, Error> {
        let mut transaction = self.pool.begin().await?;
        let ended =
            sqlx::query("UPDATE attempts SET state = ? WHERE award = ? AND state = 'accepted'")
                .bind(state)
                .bind(award.as_bytes().as_slice())
                .execute(&mut *transaction)
                .await?;
        if ended.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("INSERT INTO outbox (event, award, json, made_s) VALUES (?, ?, ?, ?)")
            .bind(event.id.as_bytes().as_slice())
            .bind(award.as_bytes().as_slice())
            .bind(event.as_json())
            .bind(seconds(event.created_at))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
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

    /// Events that no relay has acknowledged, the oldest first.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn unacknowledged(&self) -> Result<Vec<Event>, Error> {
        let rows = sqlx::query(
            "SELECT json FROM outbox WHERE acknowledged_s IS NULL ORDER BY made_s LIMIT ?",
        )
        .bind(MAX_UNACKNOWLEDGED)
        .fetch_all(&self.pool)
        .await?;
        let parse = |row: &sqlx::sqlite::SqliteRow| {
            let json: String = row.try_get("json")?;
            Event::from_json(json).map_err(|_| Error::Damaged("an event"))
        };
        rows.iter().map(parse).collect()
    }

    /// Attempts that an earlier process took on and did not end.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn unfinished(&self) -> Result<Vec<Unfinished>, Error> {
        let rows = sqlx::query("SELECT award, job, buyer FROM attempts WHERE state = 'accepted'")
            .fetch_all(&self.pool)
            .await?;
        let parse = |row: &sqlx::sqlite::SqliteRow| {
            let id = |name: &str| {
                let bytes: Vec<u8> = row.try_get(name)?;
                EventId::from_slice(&bytes).map_err(|_| Error::Damaged("an event's id"))
            };
            let buyer: Vec<u8> = row.try_get("buyer")?;
            Ok(Unfinished {
                award: id("award")?,
                job: id("job")?,
                buyer: PublicKey::from_slice(&buyer).map_err(|_| Error::Damaged("a key"))?,
            })
        };
        rows.iter().map(parse).collect()
    }

    /// Forgets what is over: awards after their deadline, events that a relay has.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn purge(&self, now: Timestamp) -> Result<(), Error> {
        sqlx::query("DELETE FROM attempts WHERE forget_s < ? AND state <> 'accepted'")
            .bind(seconds(now))
            .execute(&self.pool)
            .await?;
        sqlx::query("DELETE FROM outbox WHERE acknowledged_s IS NOT NULL OR made_s < ?")
            .bind(seconds(now) - OUTBOX_KEPT_S.cast_signed())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The time to put on the next announcement: now, or just after the last
    /// one, which it would otherwise not replace. A last one from far ahead was
    /// made by a clock that was wrong, and runs out by itself.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn next_announcement(&self, now: Timestamp) -> Result<Timestamp, Error> {
        let row = sqlx::query(
            "UPDATE announced
             SET created_s = CASE WHEN created_s < ?1 + ?2 THEN max(created_s + 1, ?1) ELSE ?1 END
             RETURNING created_s",
        )
        .bind(seconds(now))
        .bind(MAX_AHEAD_S)
        .fetch_one(&self.pool)
        .await?;
        let created: i64 = row.try_get("created_s")?;
        Ok(Timestamp::from_secs(created.cast_unsigned()))
    }

    /// Closes the store, after what is being written.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Seconds as SQLite keeps them; no clock reaches 2^63.
fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, Keys};

    use super::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_secs(s)
    }

    fn event(text: &str) -> Event {
        let note = EventBuilder::text_note(text).custom_created_at(at(1_000));
        note.sign_with_keys(&Keys::generate()).unwrap()
    }

    /// An attempt as the floor writes it, without an award to make it from.
    async fn accepted(store: &Store, award: EventId, number: i64) -> PublicKey {
        let buyer = Keys::generate().public_key;
        sqlx::query(
            "INSERT INTO attempts (award, job, buyer, number, state, arrived_s, forget_s)
             VALUES (?1, ?1, ?2, ?3, 'accepted', 0, 500)",
        )
        .bind(award.as_bytes().as_slice())
        .bind(buyer.as_bytes().as_slice())
        .bind(number)
        .execute(&store.pool)
        .await
        .unwrap();
        buyer
    }

    #[tokio::test]
    async fn an_attempt_ends_once_and_its_event_waits_for_a_relay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("provider.sqlite");
        let store = Store::open(&path).await.unwrap();
        let award = EventId::all_zeros();
        let buyer = accepted(&store, award, 3).await;
        assert_eq!(store.newest_attempt(&buyer, &award).await.unwrap(), 3);
        let (result, cancel) = (event("result"), event("cancel"));
        assert!(store.deliver(&award, &result).await.unwrap());
        assert!(
            !store.abandon(&award, &cancel).await.unwrap(),
            "it has ended"
        );
        store.close().await;
        let store = Store::open(&path).await.unwrap();
        assert!(store.unfinished().await.unwrap().is_empty());
        assert_eq!(
            store.unacknowledged().await.unwrap(),
            std::slice::from_ref(&result)
        );
        store.acknowledge(&result.id, at(1_001)).await.unwrap();
        assert!(store.unacknowledged().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten_and_what_is_not_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("provider.sqlite"))
            .await
            .unwrap();
        let (over, open) = (EventId::all_zeros(), EventId::from_byte_array([1; 32]));
        accepted(&store, over, 1).await;
        accepted(&store, open, 1).await;
        store.deliver(&over, &event("result")).await.unwrap();
        store.purge(at(1_000)).await.unwrap();
        assert!(!store.knows(&over).await.unwrap());
        assert!(
            store.knows(&open).await.unwrap(),
            "nobody was told of its end"
        );
        assert_eq!(store.unacknowledged().await.unwrap().len(), 1);
        store.purge(at(1_001 + OUTBOX_KEPT_S)).await.unwrap();
        assert!(store.unacknowledged().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn announcements_are_dated_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("provider.sqlite"))
            .await
            .unwrap();
        for (now, expected) in [(100, 100), (100, 101), (100, 102), (200, 200), (199, 201)] {
            assert_eq!(
                store.next_announcement(at(now)).await.unwrap(),
                at(expected)
            );
        }
        store.next_announcement(at(9_000)).await.unwrap();
        let corrected = store.next_announcement(at(300)).await.unwrap();
        assert_eq!(corrected, at(300), "the clock was wrong and is set right");
    }
}
