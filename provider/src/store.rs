//! What must outlive the process: which awards were answered, which are paid by
//! a tab and not charged yet, and which events have not reached a relay. SQLite;
//! the intent is written before the act. Money itself is in the ledger
//! (`payments`), a file of its own.

mod memory;
mod payouts;
mod scribe;
mod tickets;

use std::path::Path;

use infernet_protocol::event::{Award, Signed};
use nostr::{Event, EventId, JsonUtil, PublicKey, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqliteConnection, SqlitePool};

use memory::Memory;
pub use payouts::Stated;
use scribe::{Entry, Scribe};
pub use tickets::{Kept, Outcome, Ticket};

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

/// An award that was answered, as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// It.
    pub award: EventId,
    /// Its job.
    pub job: EventId,
    /// Its author.
    pub buyer: PublicKey,
    /// Its number in the job.
    pub number: u32,
    /// When it came.
    pub arrived: Timestamp,
    /// Until when it is remembered.
    pub forget: Timestamp,
}

impl Answered {
    /// An award that came now.
    pub fn now(award: &Signed<Award>, now: Timestamp, forget: Timestamp) -> Self {
        Self {
            award: award.id(),
            job: award.job_id(),
            buyer: award.author(),
            number: award.attempt,
            arrived: now,
            forget,
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
    /// For what is looked up when an award comes, beside what is being written.
    reads: SqlitePool,
    scribe: Scribe,
    memory: Memory,
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
        let single = || SqlitePoolOptions::new().max_connections(1);
        let pool = single().connect_with(options.clone()).await?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        let reads = single().connect_with(options.read_only(true)).await?;
        let memory = Memory::load(&pool).await?;
        let scribe = Scribe::start(pool.clone());
        Ok(Self {
            pool,
            reads,
            scribe,
            memory,
        })
    }

    /// Writes down that an award is taken on, with its ticket if it is paid by a
    /// tab; false if it had been answered before, or a later attempt of its job was
    /// taken on.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn accept(&self, answered: Answered, ticket: Option<Ticket>) -> Result<bool, Error> {
        self.memory.remember(answered.award);
        let entry = Entry::Accept(answered, ticket.map(Box::new));
        self.scribe.write(entry).await
    }

    /// Writes down awards that are not served, together: they may be many, and
    /// the disk is waited for once.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn refuse(&self, refused: &[Answered]) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        for answered in refused {
            self.memory.remember(answered.award);
            decline(&mut transaction, answered).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Whether this award was answered before, or what came of it was decided.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn knows(&self, award: &EventId) -> Result<bool, Error> {
        if !self.memory.may_know(award) {
            return Ok(false);
        }
        let row = sqlx::query(
            "SELECT 1 FROM attempts WHERE award = ?1
             UNION ALL SELECT 1 FROM tickets WHERE award = ?1 AND due_msat IS NOT NULL",
        )
        .bind(award.as_bytes().as_slice())
        .fetch_optional(&self.reads)
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
        .fetch_one(&self.reads)
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

    /// An attempt has ended with this result, which has to reach a relay, and
    /// which its ticket, if it has one, is to be charged by. False if it had
    /// ended before; then the result is not kept.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn deliver(
        &self,
        award: &EventId,
        result: &Event,
        outcome: &Outcome,
    ) -> Result<bool, Error> {
        let entry = Entry::Deliver(*award, Box::new(result.clone()), *outcome);
        self.scribe.write(entry).await
    }

    /// An attempt that a restart has interrupted ends with this cancel.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn abandon(&self, award: &EventId, cancel: &Event) -> Result<bool, Error> {
        let mut transaction = self.pool.begin().await?;
        let is_first = end(&mut transaction, award, "abandoned").await?;
        if is_first {
            post(&mut transaction, award, cancel).await?;
        }
        transaction.commit().await?;
        Ok(is_first)
    }

    /// A relay has this event. Written soon, together with what else comes.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn acknowledge(&self, event: &EventId, now: Timestamp) -> Result<(), Error> {
        let entry = Entry::Acknowledge(*event, now);
        self.scribe.write(entry).await.map(drop)
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
        self.reads.close().await;
        self.pool.close().await;
    }
}

/// Remembers an award that is not served.
async fn decline(connection: &mut SqliteConnection, answered: &Answered) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO attempts (award, job, buyer, number, state, arrived_s, forget_s)
         VALUES (?, ?, ?, ?, 'declined', ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(answered.award.as_bytes().as_slice())
    .bind(answered.job.as_bytes().as_slice())
    .bind(answered.buyer.as_bytes().as_slice())
    .bind(i64::from(answered.number))
    .bind(seconds(answered.arrived))
    .bind(seconds(answered.forget))
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Ends an attempt; false if it had ended before.
async fn end(
    connection: &mut SqliteConnection,
    award: &EventId,
    state: &'static str,
) -> Result<bool, Error> {
    let ended = sqlx::query("UPDATE attempts SET state = ? WHERE award = ? AND state = 'accepted'")
        .bind(state)
        .bind(award.as_bytes().as_slice())
        .execute(&mut *connection)
        .await?;
    Ok(ended.rows_affected() == 1)
}

/// Puts an event into the outbox.
async fn post(
    connection: &mut SqliteConnection,
    award: &EventId,
    event: &Event,
) -> Result<(), Error> {
    sqlx::query("INSERT INTO outbox (event, award, json, made_s) VALUES (?, ?, ?, ?)")
        .bind(event.id.as_bytes().as_slice())
        .bind(award.as_bytes().as_slice())
        .bind(event.as_json())
        .bind(seconds(event.created_at))
        .execute(&mut *connection)
        .await?;
    Ok(())
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

    fn answered(award: EventId, number: u32) -> Answered {
        Answered {
            award,
            job: award,
            buyer: Keys::generate().public_key,
            number,
            arrived: at(0),
            forget: at(500),
        }
    }

    /// An attempt as the floor writes it.
    async fn accepted(store: &Store, award: EventId, number: u32) -> PublicKey {
        let answered = answered(award, number);
        assert!(store.accept(answered, None).await.unwrap());
        answered.buyer
    }

    #[tokio::test]
    async fn awards_that_are_not_served_are_known_and_never_taken_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("provider.sqlite")).await;
        let store = store.unwrap();
        let ids = [1, 2, 3].map(|n| EventId::from_byte_array([n; 32]));
        let refused = ids.map(|id| answered(id, 1));
        store.refuse(&refused).await.unwrap();
        for one in &refused {
            assert!(store.knows(&one.award).await.unwrap());
            assert!(!store.accept(*one, None).await.unwrap());
            let newest = store.newest_attempt(&one.buyer, &one.job).await;
            assert_eq!(newest.unwrap(), 0, "it supersedes nothing");
        }
        assert!(store.unfinished().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_attempt_is_not_taken_on_behind_a_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("provider.sqlite")).await;
        let store = store.unwrap();
        let (job, buyer) = (EventId::all_zeros(), Keys::generate().public_key);
        let attempt = |number: u8| Answered {
            job,
            buyer,
            ..answered(EventId::from_byte_array([number; 32]), number.into())
        };
        store.refuse(&[attempt(3)]).await.unwrap();
        // All at once: they are written together.
        let accept = |number| store.accept(attempt(number), None);
        let (second, first) = tokio::join!(accept(2), accept(1));
        assert!(second.unwrap(), "the third was refused");
        assert!(!first.unwrap());
        assert!(store.accept(attempt(4), None).await.unwrap());
        assert_eq!(store.newest_attempt(&buyer, &job).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn an_award_that_waited_for_money_is_not_served_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("provider.sqlite")).await;
        let store = store.unwrap();
        let award = EventId::all_zeros();
        let ticket = Ticket {
            award,
            job: award,
            buyer: Keys::generate().public_key,
            number: 1,
            model: "tiny".to_owned(),
            salt: infernet_protocol::seal::Salt::from_bytes([1; 32]),
            input_tokens: 3,
            prefix_tokens: 0,
            is_escrow: false,
            opened_at: at(1_000),
        };
        store.open_ticket(&ticket).await.unwrap();
        assert!(!store.knows(&award).await.unwrap(), "it may be served");
        store.take_on_guests(at(2_000)).await.unwrap();
        let unfinished = store.unfinished().await.unwrap();
        assert_eq!(unfinished.len(), 1);
        assert!(store.abandon(&award, &event("cancel")).await.unwrap());
        store.conclude(&award, &Outcome::default()).await.unwrap();
        store.purge(at(3_000)).await.unwrap();
        assert!(store.knows(&award).await.unwrap(), "it was decided");
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
        assert!(
            store
                .deliver(&award, &result, &Outcome::default())
                .await
                .unwrap()
        );
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
        store
            .deliver(&over, &event("result"), &Outcome::default())
            .await
            .unwrap();
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
