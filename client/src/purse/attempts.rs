//! The list of paid attempts: what a later process needs to end one that this process did not.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use infernet_node::database;
use infernet_protocol::money::{Msat, Price};
use infernet_protocol::seal::Salt;
use nostr::{Event, EventId, PublicKey, Timestamp};
use sqlx::Row;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};

use super::Error;

/// How long another process of the same user may hold the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A paid attempt, as it was awarded.
#[derive(Clone, PartialEq)]
pub(crate) struct Attempt {
    pub award: EventId,
    pub job: EventId,
    /// Its number in the job.
    pub number: u32,
    pub provider: PublicKey,
    /// What the provider calls itself.
    pub name: String,
    pub price: Price,
    /// Tokens of an earlier attempt's answer that it goes on behind.
    pub prefix_tokens: u64,
    /// The salt of the award's input: payments are hashed with it, too.
    pub salt: Salt,
    pub opened_at: Timestamp,
}

/// An attempt that is not over in the books.
pub(super) struct Unfinished {
    pub attempt: Attempt,
    /// What is still to be published about it; the rest is done.
    pub papers: Option<Vec<Event>>,
    /// Until when its result may still come, if no relay could be asked for it.
    pub unclear_until: Option<Timestamp>,
}

/// What a job has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// What its attempts cost.
    pub charged: Msat,
    /// What was paid while they ran.
    pub paid: Msat,
}

/// The list. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    pool: SqlitePool,
}

impl Attempts {
    /// Opens the list, and makes it if it is not there.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let locked = database::lock(path, database::TABLES).await;
        let _alone = locked.map_err(sqlx::Error::from)?;
        // Salts are in it.
        database::make_private(path).map_err(sqlx::Error::from)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        sqlx::migrate!("./src/purse/migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// Writes an attempt down; again it changes nothing.
    pub async fn put(&self, attempt: &Attempt) -> Result<(), Error> {
        let put =
            "INSERT INTO attempts (award, job, number, provider, name, input_msat, output_msat,
                                         prefix_tokens, salt, opened_s)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (award) DO NOTHING";
        sqlx::query(put)
            .bind(attempt.award.as_bytes().to_vec())
            .bind(attempt.job.as_bytes().to_vec())
            .bind(attempt.number)
            .bind(attempt.provider.as_bytes().to_vec())
            .bind(&attempt.name)
            .bind(signed(attempt.price.input_msat))
            .bind(signed(attempt.price.output_msat))
            .bind(signed(attempt.prefix_tokens))
            .bind(attempt.salt.as_bytes().to_vec())
            .bind(signed(attempt.opened_at.as_secs()))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes what was moved, and what is to be published about it.
    pub async fn settle(
        &self,
        award: &EventId,
        moved: Moved,
        papers: &[Event],
    ) -> Result<(), Error> {
        let papers = serde_json::to_string(papers);
        let papers = papers.map_err(|_| Error::Damaged("papers that are no events"))?;
        let settle =
            "UPDATE attempts SET charged_msat = ?, paid_msat = ?, papers = ? WHERE award = ?";
        sqlx::query(settle)
            .bind(signed(moved.charged.0))
            .bind(signed(moved.paid.0))
            .bind(papers)
            .bind(award.as_bytes().to_vec())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes that an attempt's cost is not known, and until when its result may still come.
    pub async fn leave_unclear(&self, award: &EventId, until: Timestamp) -> Result<(), Error> {
        sqlx::query("UPDATE attempts SET unclear_until_s = ? WHERE award = ?")
            .bind(signed(until.as_secs()))
            .bind(award.as_bytes().to_vec())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// How many attempts of each provider are such.
    pub async fn unclear(&self) -> Result<HashMap<PublicKey, u64>, Error> {
        let count = "SELECT provider, count(*) AS number FROM attempts
                     WHERE is_closed = 0 AND papers IS NULL AND unclear_until_s IS NOT NULL
                     GROUP BY provider";
        let rows = sqlx::query(count).fetch_all(&self.pool).await?;
        let number = |row| Ok((key(row, "provider")?, unsigned(row, "number")?));
        rows.iter().map(number).collect()
    }

    /// Notes that nothing is left to do about an attempt.
    pub async fn close_attempt(&self, award: &EventId) -> Result<(), Error> {
        sqlx::query("UPDATE attempts SET is_closed = 1, papers = NULL WHERE award = ?")
            .bind(award.as_bytes().to_vec())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The attempts at a provider that are not over in the books, the oldest first.
    pub async fn unfinished(&self, provider: &PublicKey) -> Result<Vec<Unfinished>, Error> {
        let find =
            "SELECT * FROM attempts WHERE provider = ? AND is_closed = 0 ORDER BY opened_s, rowid";
        let rows = sqlx::query(find)
            .bind(provider.as_bytes().to_vec())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(unfinished).collect()
    }

    /// Who has such attempts.
    pub async fn unfinished_at(&self) -> Result<Vec<PublicKey>, Error> {
        let rows = sqlx::query("SELECT DISTINCT provider FROM attempts WHERE is_closed = 0")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| key(row, "provider")).collect()
    }

    /// The last attempt at a provider that moved anything: one that it declined is on no tab of its. If there is
    /// none, the last of all.
    pub async fn last(&self, provider: &PublicKey) -> Result<Option<Attempt>, Error> {
        let find = "SELECT * FROM attempts WHERE provider = ?
             ORDER BY (coalesce(charged_msat, 0) > 0 OR coalesce(paid_msat, 0) > 0) DESC,
                opened_s DESC, rowid DESC LIMIT 1";
        let row = sqlx::query(find)
            .bind(provider.as_bytes().to_vec())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// What the providers were called when they were awarded last.
    pub async fn names(&self) -> Result<HashMap<PublicKey, String>, Error> {
        let rows = sqlx::query("SELECT provider, name FROM attempts ORDER BY opened_s, rowid")
            .fetch_all(&self.pool)
            .await?;
        let name = |row| Ok((key(row, "provider")?, row.try_get("name")?));
        rows.iter().map(name).collect()
    }

    /// What each job has moved, where anything was.
    pub async fn moved(&self) -> Result<HashMap<EventId, Moved>, Error> {
        let find = "SELECT job, sum(charged_msat) AS charged, sum(paid_msat) AS paid FROM attempts
                    WHERE charged_msat > 0 OR paid_msat > 0 GROUP BY job";
        let rows = sqlx::query(find).fetch_all(&self.pool).await?;
        let moved = |row: &SqliteRow| {
            let moved = Moved {
                charged: Msat(unsigned(row, "charged")?),
                paid: Msat(unsigned(row, "paid")?),
            };
            Ok((id(row, "job")?, moved))
        };
        rows.iter().map(moved).collect()
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn read(row: &SqliteRow) -> Result<Attempt, Error> {
    let salt = Salt::from_bytes(bytes32(row, "salt")?);
    Ok(Attempt {
        award: id(row, "award")?,
        job: id(row, "job")?,
        number: row.try_get("number")?,
        provider: key(row, "provider")?,
        name: row.try_get("name")?,
        price: Price {
            input_msat: unsigned(row, "input_msat")?,
            output_msat: unsigned(row, "output_msat")?,
        },
        prefix_tokens: unsigned(row, "prefix_tokens")?,
        salt,
        opened_at: Timestamp::from_secs(unsigned(row, "opened_s")?),
    })
}

fn unfinished(row: &SqliteRow) -> Result<Unfinished, Error> {
    let papers: Option<String> = row.try_get("papers")?;
    let papers = papers.map(|papers| serde_json::from_str(&papers));
    let until: Option<i64> = row.try_get("unclear_until_s")?;
    Ok(Unfinished {
        attempt: read(row)?,
        unclear_until: until.map(|until| Timestamp::from_secs(until.unsigned_abs())),
        papers: papers
            .transpose()
            .map_err(|_| Error::Damaged("papers that are no events"))?,
    })
}

fn bytes32(row: &SqliteRow, column: &str) -> Result<[u8; 32], Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    let bytes = bytes.try_into();
    bytes.map_err(|_| Error::Damaged("a hash or key of another length"))
}

fn id(row: &SqliteRow, column: &str) -> Result<EventId, Error> {
    bytes32(row, column).map(EventId::from_byte_array)
}

fn key(row: &SqliteRow, column: &str) -> Result<PublicKey, Error> {
    Ok(PublicKey::from_byte_array(bytes32(row, column)?))
}

/// SQLite's integers are signed; ours are far from the end of either.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    Ok(row.try_get::<i64, _>(column)?.unsigned_abs())
}
