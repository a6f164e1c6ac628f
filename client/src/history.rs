//! What this user has had done: a list on this machine, without prompts and answers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use infernet_node::database;
use nostr::{EventId, Timestamp};
use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
};

/// How long another process of the same user may hold the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the list cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there to be opened, or is not ours.
    #[error("cannot open the list of jobs {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: sqlx::Error,
    },
    /// Its tables cannot be made.
    #[error("cannot bring the list of jobs up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A row cannot be read or written.
    #[error("cannot use the list of jobs: {0}")]
    Use(#[from] sqlx::Error),
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It runs.
    Running,
    /// It is done.
    Done,
    /// There is no (whole) answer.
    Failed,
    /// The user stopped it.
    Stopped,
    /// The program that ran it was killed, and its deadline is over. Never stored: a job that still runs by then
    /// is one.
    Lost,
}

impl Status {
    /// Its name, as it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Running, Self::Done, Self::Failed, Self::Stopped]
            .into_iter()
            .find(|status| status.as_str() == name)
    }
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// Its id.
    pub id: EventId,
    /// When it began.
    pub began: Timestamp,
    /// When it is over, done or not.
    pub deadline: Timestamp,
    /// The model that was asked.
    pub model: String,
    /// Who was asked last.
    pub provider: String,
    /// How it stands.
    pub status: Status,
    /// Tokens that came.
    pub tokens: u64,
}

/// The list. Clones share it.
#[derive(Debug, Clone)]
pub struct History {
    pool: SqlitePool,
}

impl History {
    /// Opens the list, and makes it if it is not there.
    ///
    /// # Errors
    /// A file that cannot be opened, or that is something else.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY_TIMEOUT);
        let failed = |source| Error::Open {
            path: path.to_owned(),
            source,
        };
        let locked = database::lock(path, database::TABLES).await;
        let _alone = locked.map_err(|error| failed(error.into()))?;
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(failed)?;
        sqlx::migrate!().run(&pool).await?;
        Ok(Self { pool })
    }

    /// Writes a job down, or how it stands now.
    ///
    /// # Errors
    /// A disk that refuses.
    pub async fn put(&self, job: &Job) -> Result<(), Error> {
        let put = "INSERT INTO jobs (id, began, deadline, model, provider, status, tokens) VALUES (?, ?, ?, ?, ?, ?, ?)
                   ON CONFLICT (id) DO UPDATE SET model = excluded.model, provider = excluded.provider,
                   status = excluded.status, tokens = excluded.tokens";
        sqlx::query(put)
            .bind(job.id.to_hex())
            .bind(signed(job.began.as_secs()))
            .bind(signed(job.deadline.as_secs()))
            .bind(&job.model)
            .bind(&job.provider)
            .bind(job.status.as_str())
            .bind(signed(job.tokens))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The newest jobs, the newest first, as they stand at `now`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub async fn list(&self, limit: u32, now: Timestamp) -> Result<Vec<Job>, Error> {
        let list = "SELECT * FROM jobs ORDER BY began DESC, rowid DESC LIMIT ?";
        let rows = sqlx::query(list).bind(limit).fetch_all(&self.pool).await?;
        let mut jobs = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        for job in &mut jobs {
            if job.status == Status::Running && job.deadline < now {
                job.status = Status::Lost;
            }
        }
        Ok(jobs)
    }

    /// Jobs whose id begins so; two at most, since two are one too many.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub async fn beginning(&self, digits: &str) -> Result<Vec<Job>, Error> {
        let find = "SELECT * FROM jobs WHERE substr(id, 1, ?) = ? LIMIT 2";
        let rows = sqlx::query(find)
            .bind(signed(digits.len() as u64))
            .bind(digits)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Writes what is pending, and closes the file.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

/// SQLite's integers are signed; ours are far from the end of either.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn read(row: &SqliteRow) -> Result<Job, Error> {
    let unsigned =
        |column: &str| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(column)?.unsigned_abs());
    let id = row.try_get::<String, _>("id")?;
    let status = row.try_get::<String, _>("status")?;
    Ok(Job {
        id: EventId::from_hex(&id).map_err(|e| sqlx::Error::Decode(Box::new(e)))?,
        began: Timestamp::from_secs(unsigned("began")?),
        deadline: Timestamp::from_secs(unsigned("deadline")?),
        model: row.try_get("model")?,
        provider: row.try_get("provider")?,
        status: Status::named(&status).ok_or_else(|| sqlx::Error::Decode(status.into()))?,
        tokens: unsigned("tokens")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn job(first: u8, status: Status) -> Job {
        let mut id = [0; 32];
        id[0] = first;
        Job {
            id: EventId::from_byte_array(id),
            began: Timestamp::from_secs(u64::from(first)),
            deadline: Timestamp::from_secs(1_000),
            model: "m".into(),
            provider: "ada".into(),
            status,
            tokens: 0,
        }
    }

    #[tokio::test]
    async fn jobs_are_kept_and_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.sqlite");
        let history = History::open(&path).await.unwrap();
        history.put(&job(0xab, Status::Running)).await.unwrap();
        history.put(&job(0xac, Status::Running)).await.unwrap();
        let done = Job {
            tokens: 7,
            ..job(0xab, Status::Done)
        };
        history.put(&done).await.unwrap();
        history.close().await;
        let history = History::open(&path).await.unwrap();
        let at = Timestamp::from_secs;
        let list = history.list(10, at(1_000)).await.unwrap();
        assert_eq!(list, [job(0xac, Status::Running), done.clone()]);
        let list = history.list(10, at(1_001)).await.unwrap();
        assert_eq!(list, [job(0xac, Status::Lost), done.clone()]);
        assert_eq!(history.beginning("ab").await.unwrap(), [done]);
        assert_eq!(history.beginning("a").await.unwrap().len(), 2);
        assert!(history.beginning("%").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_file_that_is_something_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.sqlite");
        std::fs::write(
            &path,
            "certainly not a database, and long enough to be looked at",
        )
        .unwrap();
        let error = History::open(&path).await.unwrap_err().to_string();
        assert!(
            error.contains("client.sqlite") || error.contains("list of jobs"),
            "{error}"
        );
    }
}
