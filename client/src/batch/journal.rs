//! What a batch has come to so far, in a file beside its output: whoever runs it next goes on from there.

use std::path::Path;
use std::time::Duration;

use infernet_node::database;
use infernet_protocol::batch::{Blob, BlobKey, Delivery, Size};
use infernet_protocol::money::Msat;
use infernet_protocol::seal::Digest;
use nostr::{Event, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};

/// How long another process of the same user may hold the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a journal cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be used.
    #[error("the batch's journal: {0}")]
    Sqlite(#[from] sqlx::Error),
    /// The file is from a newer version, or damaged.
    #[error("the batch's journal: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row does not hold what it should.
    #[error("the batch's journal is damaged: {0}")]
    Damaged(&'static str),
}

/// The batch as it was ordered.
#[derive(Clone)]
pub(super) struct Begun {
    pub input_sha256: Digest,
    pub model: Option<String>,
    /// What the aggregator calls itself.
    pub aggregator: String,
    pub order: Event,
    pub seed: [u8; 32],
    pub ordered_at: Timestamp,
    pub is_taken: bool,
    /// Groups whose answers are in the output.
    pub written: u32,
    pub written_bytes: u64,
    pub tally: Tally,
}

/// What became of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub done: u64,
    /// Of these, those that were checked, as the aggregator says.
    pub verified: u64,
    pub failed: u64,
    /// Lines that nobody could be given.
    pub flawed: u64,
    /// Tokens of the answers.
    pub tokens: u64,
    pub cost: Msat,
}

impl Tally {
    pub const fn add(&mut self, more: Self) {
        self.done += more.done;
        self.verified += more.verified;
        self.failed += more.failed;
        self.flawed += more.flawed;
        self.tokens += more.tokens;
        self.cost.0 = self.cost.0.saturating_add(more.cost.0);
    }
}

/// A group that was cut off.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    pub number: u32,
    pub begin: Place,
    pub end: Place,
    pub size: Size,
    /// The encrypted input and its key, once it can be given.
    pub input: Option<(Blob, BlobKey)>,
    pub invoice: Option<String>,
    pub delivery: Option<Delivery>,
    pub opens: Option<BlobKey>,
    pub failed: Option<String>,
    /// Of its lines, those that were checked, as the aggregator says.
    pub verified: u64,
    pub is_over: bool,
}

/// A place in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub byte: u64,
    /// Lines before it.
    pub line: u64,
}

/// The journal. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    pool: SqlitePool,
}

impl Journal {
    /// Opens the journal, and makes it if it is not there.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let locked = database::lock(path, database::TABLES).await;
        let _alone = locked.map_err(sqlx::Error::from)?;
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
        sqlx::migrate!("./src/batch/migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// The batch, if it was ordered.
    pub async fn begun(&self) -> Result<Option<Begun>, Error> {
        let row = sqlx::query("SELECT * FROM batch")
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read_begun).transpose()
    }

    /// Writes down what is going to be ordered.
    pub async fn begin(&self, begun: &Begun) -> Result<(), Error> {
        let put =
            "INSERT INTO batch (one, input_sha256, model, aggregator, order_event, seed, ordered_s)
                   VALUES (1, ?, ?, ?, ?, ?, ?)";
        sqlx::query(put)
            .bind(begun.input_sha256.as_bytes().to_vec())
            .bind(&begun.model)
            .bind(&begun.aggregator)
            .bind(json(&begun.order)?)
            .bind(begun.seed.to_vec())
            .bind(signed(begun.ordered_at.as_secs()))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The aggregator has taken the order.
    pub async fn taken(&self) -> Result<(), Error> {
        sqlx::query("UPDATE batch SET is_taken = 1")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The output holds the answers of this group and all before it, and has so many bytes. They are kept nowhere
    /// else from here on.
    pub async fn written(&self, number: u32, bytes: u64, tally: &Tally) -> Result<(), Error> {
        let mut change = self.pool.begin().await?;
        let set = "UPDATE batch SET written = ?, written_bytes = ?, done = ?, verified = ?, failed = ?, flawed = ?, tokens = ?,
                   cost_msat = ?";
        sqlx::query(set)
            .bind(number + 1)
            .bind(signed(bytes))
            .bind(signed(tally.done))
            .bind(signed(tally.verified))
            .bind(signed(tally.failed))
            .bind(signed(tally.flawed))
            .bind(signed(tally.tokens))
            .bind(signed(tally.cost.0))
            .execute(&mut *change)
            .await?;
        sqlx::query("UPDATE groups SET sealed = NULL WHERE number = ?")
            .bind(number)
            .execute(&mut *change)
            .await?;
        Ok(change.commit().await?)
    }

    /// Writes down a group that was cut off, in their order: whoever goes on goes on behind the last.
    pub async fn cut(&self, group: &Kept) -> Result<(), Error> {
        let put =
            "INSERT INTO groups (number, begin_byte, begin_line, end_byte, end_line, size, is_over)
                   VALUES (?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(put)
            .bind(group.number)
            .bind(signed(group.begin.byte))
            .bind(signed(group.begin.line))
            .bind(signed(group.end.byte))
            .bind(signed(group.end.line))
            .bind(json(&group.size)?)
            .bind(group.is_over)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// A group's lines are where the aggregator can get them: this is how it is given.
    pub async fn given(&self, number: u32, blob: &Blob, key: &BlobKey) -> Result<(), Error> {
        sqlx::query("UPDATE groups SET input = ?, key = ? WHERE number = ?")
            .bind(json(blob)?)
            .bind(json(key)?)
            .bind(number)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// An invoice is going to be paid for a group.
    pub async fn pays(&self, number: u32, invoice: &str) -> Result<(), Error> {
        self.set(
            number,
            "UPDATE groups SET invoice = ? WHERE number = ?",
            invoice,
        )
        .await
    }

    /// A group's answers are here, closed.
    pub async fn delivered(
        &self,
        number: u32,
        delivery: &Delivery,
        sealed: &[u8],
    ) -> Result<(), Error> {
        sqlx::query("UPDATE groups SET delivery = ?, sealed = ? WHERE number = ?")
            .bind(json(delivery)?)
            .bind(sealed)
            .bind(number)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// A group's answers can be opened; of its lines so many were checked.
    pub async fn opened(&self, number: u32, opens: &BlobKey, verified: u64) -> Result<(), Error> {
        sqlx::query("UPDATE groups SET opens = ?, verified = ?, is_over = 1 WHERE number = ?")
            .bind(json(opens)?)
            .bind(signed(verified))
            .bind(number)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Nothing comes of a group.
    pub async fn failed(&self, number: u32, why: &str) -> Result<(), Error> {
        let set = "UPDATE groups SET failed = ?, is_over = 1 WHERE number = ?";
        self.set(number, set, why).await
    }

    async fn set(&self, number: u32, how: &'static str, value: &str) -> Result<(), Error> {
        sqlx::query(how)
            .bind(value)
            .bind(number)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The groups that were cut off from this one on, without their answers, in their order.
    pub async fn groups(&self, from: u32) -> Result<Vec<Kept>, Error> {
        let all = "SELECT number, begin_byte, begin_line, end_byte, end_line, size, input, key, invoice, delivery,
                          opens, failed, verified, is_over FROM groups WHERE number >= ? ORDER BY number";
        let rows = sqlx::query(all).bind(from).fetch_all(&self.pool).await?;
        rows.iter().map(read_group).collect()
    }

    /// A group's answers, closed.
    pub async fn sealed(&self, number: u32) -> Result<Vec<u8>, Error> {
        let row = sqlx::query("SELECT sealed FROM groups WHERE number = ?")
            .bind(number)
            .fetch_one(&self.pool)
            .await?;
        let sealed: Option<Vec<u8>> = row.try_get("sealed")?;
        sealed.ok_or(Error::Damaged("answers that are not there"))
    }

    /// Closes the file.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::Damaged("what cannot be written"))
}

fn of_json<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|_| Error::Damaged("what cannot be read"))
}

/// SQLite's integers are signed; ours are far from the end of either.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    Ok(row.try_get::<i64, _>(column)?.unsigned_abs())
}

fn read_begun(row: &SqliteRow) -> Result<Begun, Error> {
    let bytes32 = |column: &str| -> Result<[u8; 32], Error> {
        let bytes: Vec<u8> = row.try_get(column)?;
        bytes.try_into().map_err(|_| Error::Damaged("not 32 bytes"))
    };
    Ok(Begun {
        input_sha256: Digest::from_bytes(bytes32("input_sha256")?),
        model: row.try_get("model")?,
        aggregator: row.try_get("aggregator")?,
        order: of_json(&row.try_get::<String, _>("order_event")?)?,
        seed: bytes32("seed")?,
        ordered_at: Timestamp::from_secs(unsigned(row, "ordered_s")?),
        is_taken: row.try_get("is_taken")?,
        written: row.try_get("written")?,
        written_bytes: unsigned(row, "written_bytes")?,
        tally: Tally {
            done: unsigned(row, "done")?,
            verified: unsigned(row, "verified")?,
            failed: unsigned(row, "failed")?,
            flawed: unsigned(row, "flawed")?,
            tokens: unsigned(row, "tokens")?,
            cost: Msat(unsigned(row, "cost_msat")?),
        },
    })
}

fn read_group(row: &SqliteRow) -> Result<Kept, Error> {
    let place = |byte: &str, line: &str| {
        Ok::<_, Error>(Place {
            byte: unsigned(row, byte)?,
            line: unsigned(row, line)?,
        })
    };
    let text = |column: &str| -> Result<Option<String>, Error> { Ok(row.try_get(column)?) };
    let key = |text: Option<String>| -> Result<Option<BlobKey>, Error> {
        text.map(|text| of_json(&text)).transpose()
    };
    let input = text("input")?
        .map(|blob| of_json::<Blob>(&blob))
        .transpose()?;
    let delivery = text("delivery")?;
    Ok(Kept {
        number: row.try_get("number")?,
        begin: place("begin_byte", "begin_line")?,
        end: place("end_byte", "end_line")?,
        size: of_json(&row.try_get::<String, _>("size")?)?,
        input: input.zip(key(text("key")?)?),
        invoice: text("invoice")?,
        delivery: delivery.map(|delivery| of_json(&delivery)).transpose()?,
        opens: key(text("opens")?)?,
        failed: text("failed")?,
        verified: unsigned(row, "verified")?,
        is_over: row.try_get("is_over")?,
    })
}
