//! What every job writes, many jobs at a time: whatever comes while the disk is
//! waited for is written together after that, in one transaction.

use std::time::Duration;

use nostr::{Event, EventId, Timestamp};
use sqlx::{SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::tickets::{self, Outcome, Ticket};
use super::{Answered, Error, post, seconds};

/// Entries that may wait; who brings more waits with them.
const MAX_WAITING: usize = 1_024;

/// Entries of one transaction, at most.
const MAX_TOGETHER: usize = 64;

/// How long entries wait for others that nobody is in a hurry for.
const PATIENCE: Duration = Duration::from_millis(100);

/// Something to be written.
#[derive(Debug)]
pub(super) enum Entry {
    /// An award is taken on, with its ticket if it is paid.
    Accept(Answered, Option<Box<Ticket>>),
    /// An attempt has ended with this result.
    Deliver(EventId, Box<Event>, Outcome),
    /// A relay has this event. Without it the next start publishes it once more.
    Acknowledge(EventId, Timestamp),
}

impl Entry {
    /// Whether somebody waits for it.
    const fn is_urgent(&self) -> bool {
        !matches!(self, Self::Acknowledge(..))
    }

    /// Whether one statement does it, which is a transaction by itself.
    const fn is_single(&self) -> bool {
        matches!(self, Self::Accept(_, None) | Self::Acknowledge(..))
    }

    /// Writes it; false if it comes too late to mean anything.
    async fn write(&self, connection: &mut SqliteConnection) -> Result<bool, Error> {
        match self {
            Self::Accept(answered, ticket) => accept(connection, answered, ticket.as_deref()).await,
            Self::Deliver(award, result, outcome) => {
                deliver(connection, award, result, outcome).await
            }
            Self::Acknowledge(event, now) => acknowledge(connection, event, *now).await,
        }
    }
}

/// An entry and who waits for it.
struct Asked {
    entry: Entry,
    written: oneshot::Sender<Result<bool, Error>>,
}

/// Where entries are handed in. With its last clone the scribe ends.
#[derive(Debug, Clone)]
pub(super) struct Scribe {
    asked: mpsc::Sender<Asked>,
}

impl Scribe {
    /// A scribe that writes to this database.
    pub fn start(pool: SqlitePool) -> Self {
        let (asked, entries) = mpsc::channel(MAX_WAITING);
        tokio::spawn(run(pool, entries));
        Self { asked }
    }

    /// Writes an entry down; answers when it is on the disk, and whether it meant
    /// anything.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn write(&self, entry: Entry) -> Result<bool, Error> {
        let (written, answer) = oneshot::channel();
        let asked = Asked { entry, written };
        let closed = || Error::Sqlite(sqlx::Error::PoolClosed);
        self.asked.send(asked).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

async fn run(pool: SqlitePool, mut entries: mpsc::Receiver<Asked>) {
    while let Some(first) = entries.recv().await {
        let mut together = vec![first];
        let until = Instant::now() + PATIENCE;
        while together.len() < MAX_TOGETHER {
            let next = match together.iter().any(|asked| asked.entry.is_urgent()) {
                true => entries.try_recv().ok(),
                false => timeout_at(until, entries.recv()).await.unwrap_or(None),
            };
            let Some(next) = next else { break };
            together.push(next);
        }
        write_down(&pool, together).await;
    }
}

/// Writes all of them or none; where that fails, one by one, so that each has its
/// own answer.
async fn write_down(pool: &SqlitePool, together: Vec<Asked>) {
    match write_all(pool, &together).await {
        Ok(answers) => {
            for (asked, answer) in together.into_iter().zip(answers) {
                // Who has gone does not want to know.
                let _ = asked.written.send(Ok(answer));
            }
        }
        Err(_) => {
            for asked in together {
                let alone = write_all(pool, std::slice::from_ref(&asked)).await;
                let answer = alone.map(|answers| answers.first().copied().unwrap_or(false));
                let _ = asked.written.send(answer);
            }
        }
    }
}

async fn write_all(pool: &SqlitePool, together: &[Asked]) -> Result<Vec<bool>, Error> {
    if let [alone] = together
        && alone.entry.is_single()
    {
        let mut connection = pool.acquire().await?;
        return Ok(vec![alone.entry.write(&mut connection).await?]);
    }
    let mut transaction = pool.begin().await?;
    let mut answers = Vec::with_capacity(together.len());
    for asked in together {
        answers.push(asked.entry.write(&mut transaction).await?);
    }
    transaction.commit().await?;
    Ok(answers)
}

/// Takes an award on, unless it was answered before or a later attempt of its job
/// was taken on.
async fn accept(
    connection: &mut SqliteConnection,
    answered: &Answered,
    ticket: Option<&Ticket>,
) -> Result<bool, Error> {
    let done = sqlx::query(
        "INSERT INTO attempts (award, job, buyer, number, state, arrived_s, forget_s)
         SELECT ?1, ?2, ?3, ?4, 'accepted', ?5, ?6 WHERE NOT EXISTS (
             SELECT 1 FROM attempts
             WHERE buyer = ?3 AND job = ?2 AND number >= ?4 AND state <> 'declined')
         ON CONFLICT DO NOTHING",
    )
    .bind(answered.award.as_bytes().as_slice())
    .bind(answered.job.as_bytes().as_slice())
    .bind(answered.buyer.as_bytes().as_slice())
    .bind(i64::from(answered.number))
    .bind(seconds(answered.arrived))
    .bind(seconds(answered.forget))
    .execute(&mut *connection)
    .await?;
    let is_new = done.rows_affected() == 1;
    if let Some(ticket) = ticket.filter(|_| is_new) {
        tickets::open(connection, ticket).await?;
    }
    Ok(is_new)
}

async fn deliver(
    connection: &mut SqliteConnection,
    award: &EventId,
    result: &Event,
    outcome: &Outcome,
) -> Result<bool, Error> {
    let is_first = super::end(connection, award, "ended").await?;
    if is_first {
        post(connection, award, result).await?;
        tickets::decide(connection, award, outcome).await?;
    }
    Ok(is_first)
}

async fn acknowledge(
    connection: &mut SqliteConnection,
    event: &EventId,
    now: Timestamp,
) -> Result<bool, Error> {
    let done = sqlx::query("UPDATE outbox SET acknowledged_s = ? WHERE event = ?")
        .bind(seconds(now))
        .bind(event.as_bytes().as_slice())
        .execute(&mut *connection)
        .await?;
    Ok(done.rows_affected() == 1)
}
