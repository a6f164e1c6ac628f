//! What is remembered of providers and checkers, and of what was judged.

use infernet_protocol::event::{Judgement, Signed, Verdict};
use infernet_protocol::inference::ModelId;
use infernet_protocol::verification::{Pool, Texts, Thresholds, Trust};
use nostr::{Event, EventId, PublicKey, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::{Error, Judged, Outcome};

/// How long a judgement is remembered: longer than any order is open.
const KEPT_S: u64 = 30 * 24 * 3_600;

/// Whose work, and by which program: what trust is kept for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Whose.
    pub provider: PublicKey,
    /// The model.
    pub model: ModelId,
    /// The engine and its version, as results say.
    pub engine: String,
}

/// What a subject has shown.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Dossier {
    /// Results in a row that have passed.
    pub trust: Trust,
    /// What the margins of its provider with that model say together, whatever the
    /// engine is called.
    pub pool: Pool,
}

/// The tables.
#[derive(Debug, Clone)]
pub(super) struct Books {
    pool: SqlitePool,
}

/// A judgement as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    outcome: Outcome,
    chance_ppm: u32,
    verdicts: Vec<Event>,
}

impl Books {
    pub const fn new(pool: SqlitePool) -> Self {
        Self { pool }
    }

    /// The database.
    pub const fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// How a result was judged before, if it was.
    pub async fn judged(&self, result: &EventId) -> Result<Option<Judged>, Error> {
        let row = sqlx::query("SELECT judged FROM judged WHERE result = ?")
            .bind(result.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let text: String = row.try_get("judged")?;
        let kept: Kept = serde_json::from_str(&text).map_err(|_| Error::Damaged)?;
        let read = |event| Signed::<Verdict>::from_verified(event).map_err(|_| Error::Damaged);
        let verdicts = kept.verdicts.into_iter().map(read);
        Ok(Some(Judged {
            outcome: kept.outcome,
            chance_ppm: kept.chance_ppm,
            verdicts: verdicts.collect::<Result<_, _>>()?,
            hired: Vec::new(),
        }))
    }

    /// Remembers how a result was judged; false if it had been before.
    pub async fn keep(
        &self,
        result: &EventId,
        judged: &Judged,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let events = judged
            .verdicts
            .iter()
            .map(|verdict| verdict.event().clone());
        let kept = Kept {
            outcome: judged.outcome,
            chance_ppm: judged.chance_ppm,
            verdicts: events.collect(),
        };
        let text = serde_json::to_string(&kept).map_err(|_| Error::Damaged)?;
        let done =
            sqlx::query("INSERT OR IGNORE INTO judged (result, judged, judged_s) VALUES (?, ?, ?)")
                .bind(result.as_bytes().as_slice())
                .bind(text)
                .bind(seconds(now))
                .execute(&self.pool)
                .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Forgets judgements that nobody asks for any more.
    pub async fn tidy(&self, now: Timestamp) -> Result<(), Error> {
        let oldest = Timestamp::from_secs(now.as_secs().saturating_sub(KEPT_S));
        sqlx::query("DELETE FROM judged WHERE judged_s < ?")
            .bind(seconds(oldest))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// What a subject has shown.
    pub async fn dossier(&self, subject: &Subject) -> Result<Dossier, Error> {
        let mut connection = self.pool.acquire().await?;
        read_dossier(&mut connection, subject).await
    }

    /// What a provider has shown in all that it does.
    pub async fn dossiers(&self, provider: &PublicKey) -> Result<Vec<(Subject, Dossier)>, Error> {
        let mut connection = self.pool.acquire().await?;
        let rows = sqlx::query(
            "SELECT model, engine FROM streaks WHERE provider = ? ORDER BY model, engine",
        )
        .bind(provider.as_bytes().as_slice())
        .fetch_all(&mut *connection)
        .await?;
        let mut dossiers = Vec::new();
        for row in rows {
            let model: Vec<u8> = row.try_get("model")?;
            let subject = Subject {
                provider: *provider,
                model: ModelId::from_bytes(model.try_into().map_err(|_| Error::Damaged)?),
                engine: row.try_get("engine")?,
            };
            let dossier = read_dossier(&mut connection, &subject).await?;
            dossiers.push((subject, dossier));
        }
        Ok(dossiers)
    }

    /// Adds a judgement of a subject's work, with the figures it rests on, and tells
    /// what the subject has shown now.
    pub async fn enter(
        &self,
        subject: &Subject,
        judgement: Judgement,
        figures: Option<(&Texts, &Thresholds)>,
    ) -> Result<Dossier, Error> {
        let mut transaction = self.pool.begin().await?;
        let mut dossier = read_dossier(&mut transaction, subject).await?;
        dossier.trust = dossier.trust.after(judgement);
        if let Some((texts, thresholds)) = figures {
            dossier.pool = dossier.pool.with(texts, thresholds);
        }
        write_dossier(&mut transaction, subject, &dossier).await?;
        if judgement == Judgement::Rejected {
            distrust(&mut transaction, &subject.provider).await?;
        }
        transaction.commit().await?;
        Ok(dossier)
    }

    /// Begins anew with a subject: what its margins said has had its consequence.
    pub async fn empty_pool(&self, subject: &Subject) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        write_dossier(&mut transaction, subject, &Dossier::default()).await?;
        distrust(&mut transaction, &subject.provider).await?;
        Ok(transaction.commit().await?)
    }

    /// Another agreed with a checker, or it saw through a trap.
    pub async fn confirm(&self, checker: &PublicKey) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO checkers (checker, confirmed) VALUES (?, 1)
             ON CONFLICT (checker) DO UPDATE SET confirmed = confirmed + 1",
        )
        .bind(checker.as_bytes().as_slice())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A checker was wrong: it is hired no more. False if that was known.
    pub async fn refute(&self, checker: &PublicKey, now: Timestamp) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO checkers (checker, refuted_s) VALUES (?1, ?2)
             ON CONFLICT (checker) DO UPDATE SET refuted_s = ?2 WHERE refuted_s IS NULL",
        )
        .bind(checker.as_bytes().as_slice())
        .bind(seconds(now))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Who is not hired to check: those refuted before, and those that are banned.
    pub async fn shunned(&self) -> Result<Vec<PublicKey>, Error> {
        let rows = sqlx::query(
            "SELECT checker FROM checkers WHERE refuted_s IS NOT NULL
             UNION SELECT provider FROM bans",
        )
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &SqliteRow| {
            let key: Vec<u8> = row.try_get("checker")?;
            PublicKey::from_slice(&key).map_err(|_| Error::Damaged)
        };
        rows.iter().map(read).collect()
    }
}

async fn read_dossier(
    connection: &mut SqliteConnection,
    subject: &Subject,
) -> Result<Dossier, Error> {
    let count = |row: &SqliteRow, column| {
        let count: i64 = row.try_get(column)?;
        u64::try_from(count).map_err(|_| Error::Damaged)
    };
    let streak =
        sqlx::query("SELECT streak FROM streaks WHERE provider = ? AND model = ? AND engine = ?")
            .bind(subject.provider.as_bytes().as_slice())
            .bind(subject.model.as_bytes().as_slice())
            .bind(&subject.engine)
            .fetch_optional(&mut *connection)
            .await?;
    let pool = sqlx::query("SELECT * FROM pools WHERE provider = ? AND model = ?")
        .bind(subject.provider.as_bytes().as_slice())
        .bind(subject.model.as_bytes().as_slice())
        .fetch_optional(&mut *connection)
        .await?;
    let mut dossier = Dossier::default();
    if let Some(row) = streak {
        let streak = u32::try_from(count(&row, "streak")?).map_err(|_| Error::Damaged)?;
        dossier.trust = Trust { streak };
    }
    if let Some(row) = pool {
        dossier.pool = Pool {
            results: count(&row, "results")?,
            tokens: count(&row, "tokens")?,
            margin_sum: row.try_get("margin_sum")?,
            evidence: row.try_get("evidence")?,
        };
    }
    Ok(dossier)
}

async fn write_dossier(
    connection: &mut SqliteConnection,
    subject: &Subject,
    dossier: &Dossier,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO streaks (provider, model, engine, streak) VALUES (?, ?, ?, ?)",
    )
    .bind(subject.provider.as_bytes().as_slice())
    .bind(subject.model.as_bytes().as_slice())
    .bind(&subject.engine)
    .bind(i64::from(dossier.trust.streak))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT OR REPLACE INTO pools (provider, model, results, tokens, margin_sum, evidence)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(subject.provider.as_bytes().as_slice())
    .bind(subject.model.as_bytes().as_slice())
    .bind(number(dossier.pool.results))
    .bind(number(dossier.pool.tokens))
    .bind(dossier.pool.margin_sum)
    .bind(dossier.pool.evidence)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Ends all of a provider's streaks: it may say of its engine what it likes.
async fn distrust(connection: &mut SqliteConnection, provider: &PublicKey) -> Result<(), Error> {
    sqlx::query("UPDATE streaks SET streak = 0 WHERE provider = ?")
        .bind(provider.as_bytes().as_slice())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_secs()).unwrap_or(i64::MAX)
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::Keys;

    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn a_rejection_ends_all_streaks_whatever_the_engine_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).await.unwrap();
        let books = Books::new(store.pool().clone());
        let subject = |keys: &Keys, engine: &str| Subject {
            provider: keys.public_key(),
            model: ModelId::from_bytes([1; 32]),
            engine: engine.into(),
        };
        let (cheat, other) = (Keys::generate(), Keys::generate());
        let subjects = [
            subject(&cheat, "one"),
            subject(&cheat, "two"),
            subject(&other, "one"),
        ];
        for subject in &subjects {
            for _ in 0..3 {
                let entered = books.enter(subject, Judgement::Accepted, None);
                entered.await.unwrap();
            }
        }
        let rejected = books.enter(&subjects[0], Judgement::Rejected, None);
        rejected.await.unwrap();
        let mut streaks = Vec::new();
        for subject in &subjects {
            streaks.push(books.dossier(subject).await.unwrap().trust.streak);
        }
        assert_eq!(streaks, [0, 0, 3]);
    }
}
