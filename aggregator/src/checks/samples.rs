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

    /// One of a model in a format, by chance, that another than `not_by` answered.
    pub async fn draw(
        &self,
        model: &ModelId,
        dtype: Dtype,
        not_by: &PublicKey,
    ) -> Result<Option<Sample>, Error> {
        let row = sqlx::query(
            "SELECT work FROM samples WHERE model = ? AND json_extract(work, '$.dtype') = ?
             AND author <> ? ORDER BY random() LIMIT 1",
        )
        .bind(model.as_bytes().as_slice())
        .bind(dtype.to_string())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::Keys;

    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn one_is_drawn_of_the_same_model_and_format_and_of_another_author() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).await.unwrap();
        let samples = Samples::new(store.pool().clone());
        let (author, model) = (Keys::generate().public_key(), ModelId::from_bytes([1; 32]));
        let sample = Sample {
            author,
            model,
            model_name: "toy".into(),
            dtype: Dtype::Bf16,
            engine: "toy 1".into(),
            requests: vec![],
            answers: vec![],
            proofs: vec![],
        };
        samples.put(&sample, Timestamp::from_secs(1)).await.unwrap();
        let nobody = Keys::generate().public_key();
        for (dtype, not_by, is_there) in [
            (Dtype::Bf16, nobody, true),
            (Dtype::Int8, nobody, false),
            (Dtype::Bf16, author, false),
        ] {
            let drawn = samples.draw(&model, dtype, &not_by).await.unwrap();
            assert_eq!(drawn.is_some(), is_there, "{dtype}");
        }
    }
}
