//! Work of the aggregator's own that was bought and found good: questions with known
//! answers, and what traps are made of.

use infernet_protocol::inference::{Dtype, ModelId};
use infernet_protocol::payload::{Generate, Generated, Proof};
use nostr::{PublicKey, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};

use super::Error;

/// Samples of one model that are kept: the newest.
const MOST: i64 = 32;

/// Questions of our own, and what one provider answered.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Who answered.
    pub author: PublicKey,
    /// The model.
    pub model: ModelId,
    /// What it is called.
    pub model_name: String,
    /// The number format that it ran in.
    pub dtype: Dtype,
    /// The engine.
    pub engine: String,
    /// The questions.
    pub requests: Vec<Generate>,
    /// The answers.
    pub answers: Vec<Generated>,
    /// How they were computed, if that is known.
    pub proofs: Vec<Proof>,
}

/// The table of samples.
#[derive(Debug, Clone)]
pub(super) struct Samples {
    pool: SqlitePool,
}

impl Samples {
    pub const fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }

    /// Keeps one, and forgets the oldest of its model.
    pub async fn put(&self, sample: &Sample, now: Timestamp) -> Result<(), Error> {
        let work = serde_json::to_string(sample).map_err(|_| Error::Damaged)?;
        let mut transaction = self.pool.begin().await?;
        sqlx::query("INSERT INTO samples (model, author, work, made_s) VALUES (?, ?, ?, ?)")
            .bind(sample.model.as_bytes().as_slice())
            .bind(sample.author.as_bytes().as_slice())
            .bind(work)
            .bind(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "DELETE FROM samples WHERE model = ?1 AND id NOT IN
                 (SELECT id FROM samples WHERE model = ?1 ORDER BY id DESC LIMIT ?2)",
        )
        .bind(sample.model.as_bytes().as_slice())
        .bind(MOST)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// One of a model, by chance, that another than `not_by` answered.
    pub async fn draw(&self, model: &ModelId, not_by: &PublicKey) -> Result<Option<Sample>, Error> {
        let row = sqlx::query(
            "SELECT work FROM samples WHERE model = ? AND author <> ? ORDER BY random() LIMIT 1",
        )
        .bind(model.as_bytes().as_slice())
        .bind(not_by.as_bytes().as_slice())
        .fetch_optional(&self.pool)
        .await?;
        let read = |row: SqliteRow| {
            let work: String = row.try_get("work")?;
            serde_json::from_str(&work).map_err(|_| Error::Damaged)
        };
        row.map(read).transpose()
    }
}
