//! Attempts that are paid, by a tab or in escrow, until they are charged.

use infernet_protocol::money::Msat;
use infernet_protocol::seal::Salt;
use nostr::{Event, EventId, PublicKey, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Error, Store, post, seconds};

/// An attempt that is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Its award.
    pub award: EventId,
    /// Its job.
    pub job: EventId,
    /// Who pays.
    pub buyer: PublicKey,
    /// Its number in the job.
    pub number: u32,
    /// What is sold, by name.
    pub model: String,
    /// The salt of the award's input.
    pub salt: Salt,
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the prefix.
    pub prefix_tokens: u64,
    /// Whether it is paid after its check, and not by a tab.
    pub is_escrow: bool,
    /// When it came.
    pub opened_at: Timestamp,
}

/// What came of one, decided once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// What it costs.
    pub due: Msat,
    /// Tokens that were drawn.
    pub output_tokens: u64,
    /// The result, if there is one.
    pub result: Option<EventId>,
}

/// A ticket as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The ticket.
    pub ticket: Ticket,
    /// What came of it, once that is decided.
    pub outcome: Option<Outcome>,
}

impl Store {
    /// Writes a ticket down, if it is not there.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn open_ticket(&self, ticket: &Ticket) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        open(&mut transaction, ticket).await?;
        Ok(transaction.commit().await?)
    }

    /// The ticket of an award, if there is one.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn ticket(&self, award: &EventId) -> Result<Option<Kept>, Error> {
        let row = sqlx::query("SELECT * FROM tickets WHERE award = ?")
            .bind(award.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// All tickets that were not settled, the oldest first.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn unsettled(&self) -> Result<Vec<Kept>, Error> {
        let query = "SELECT * FROM tickets WHERE is_settled = 0 ORDER BY opened_s, rowid";
        let rows = sqlx::query(query).fetch_all(&self.pool).await?;
        rows.iter().map(read).collect()
    }

    /// Awards that waited for money when an earlier process died count as taken
    /// on from now: a replay of them does nothing, so that none is charged twice.
    /// They are remembered until then.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn take_on_guests(&self, forget: Timestamp) -> Result<(), Error> {
        let taken = sqlx::query(
            "INSERT INTO attempts (award, job, buyer, number, state, arrived_s, forget_s)
             SELECT award, job, buyer, number, 'accepted', opened_s, ? FROM tickets
             WHERE is_settled = 0 ON CONFLICT DO NOTHING RETURNING award",
        )
        .bind(seconds(forget))
        .fetch_all(&self.pool)
        .await?;
        self.memory.remember_rows(&taken)
    }

    /// Decides what came of an attempt, unless that was decided before.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn conclude(&self, award: &EventId, outcome: &Outcome) -> Result<(), Error> {
        self.memory.remember(*award);
        let mut transaction = self.pool.begin().await?;
        decide(&mut transaction, award, outcome).await?;
        Ok(transaction.commit().await?)
    }

    /// An attempt is charged, and this is its receipt, which has to reach a relay.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn settle(&self, award: &EventId, receipt: &Event) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("UPDATE tickets SET is_settled = 1 WHERE award = ?")
            .bind(award.as_bytes().as_slice())
            .execute(&mut *transaction)
            .await?;
        post(&mut transaction, award, receipt).await?;
        Ok(transaction.commit().await?)
    }

    /// An attempt is charged that is paid for later, together with others. One that
    /// has cost nothing is forgotten.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn settle_unpaid(&self, award: &EventId, due: Msat) -> Result<(), Error> {
        if due == Msat::ZERO {
            return self.forget_ticket(award).await;
        }
        sqlx::query("UPDATE tickets SET is_settled = 1 WHERE award = ?")
            .bind(award.as_bytes().as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// An attempt has cost and brought nothing: its ticket is forgotten.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn forget_ticket(&self, award: &EventId) -> Result<(), Error> {
        sqlx::query("DELETE FROM tickets WHERE award = ? AND is_settled = 0")
            .bind(award.as_bytes().as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Which model each award was for.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn models_sold(&self) -> Result<Vec<(EventId, String)>, Error> {
        let rows = sqlx::query("SELECT award, model FROM tickets")
            .fetch_all(&self.pool)
            .await?;
        let read = |row: &SqliteRow| Ok((id(row, "award")?, row.try_get("model")?));
        rows.iter().map(read).collect()
    }
}

pub(super) async fn open(connection: &mut SqliteConnection, ticket: &Ticket) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO tickets (award, job, buyer, number, model, salt, input_tokens, prefix_tokens,
                              is_escrow, opened_s)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(ticket.award.as_bytes().as_slice())
    .bind(ticket.job.as_bytes().as_slice())
    .bind(ticket.buyer.as_bytes().as_slice())
    .bind(i64::from(ticket.number))
    .bind(&ticket.model)
    .bind(ticket.salt.as_bytes().as_slice())
    .bind(number(ticket.input_tokens))
    .bind(number(ticket.prefix_tokens))
    .bind(ticket.is_escrow)
    .bind(seconds(ticket.opened_at))
    .execute(&mut *connection)
    .await?;
    Ok(())
}

pub(super) async fn decide(
    connection: &mut SqliteConnection,
    award: &EventId,
    outcome: &Outcome,
) -> Result<(), Error> {
    let result = outcome.result.map(|result| result.as_bytes().to_vec());
    sqlx::query(
        "UPDATE tickets SET output_tokens = ?, due_msat = ?, result = ?
         WHERE award = ? AND due_msat IS NULL",
    )
    .bind(number(outcome.output_tokens))
    .bind(number(outcome.due.0))
    .bind(result)
    .bind(award.as_bytes().as_slice())
    .execute(&mut *connection)
    .await?;
    Ok(())
}

fn read(row: &SqliteRow) -> Result<Kept, Error> {
    let buyer: Vec<u8> = row.try_get("buyer")?;
    let salt: Vec<u8> = row.try_get("salt")?;
    let salt = salt.try_into().map_err(|_| Error::Damaged("a salt"))?;
    let opened_s: i64 = row.try_get("opened_s")?;
    let count: i64 = row.try_get("number")?;
    let ticket = Ticket {
        award: id(row, "award")?,
        job: id(row, "job")?,
        buyer: PublicKey::from_slice(&buyer).map_err(|_| Error::Damaged("a key"))?,
        number: u32::try_from(count).map_err(|_| Error::Damaged("a number"))?,
        model: row.try_get("model")?,
        salt: Salt::from_bytes(salt),
        input_tokens: positive(row.try_get("input_tokens")?)?,
        prefix_tokens: positive(row.try_get("prefix_tokens")?)?,
        is_escrow: row.try_get("is_escrow")?,
        opened_at: Timestamp::from_secs(positive(opened_s)?),
    };
    Ok(Kept {
        ticket,
        outcome: outcome(row)?,
    })
}

fn outcome(row: &SqliteRow) -> Result<Option<Outcome>, Error> {
    let due: Option<i64> = row.try_get("due_msat")?;
    let output_tokens: Option<i64> = row.try_get("output_tokens")?;
    let result: Option<Vec<u8>> = row.try_get("result")?;
    let result = result.map(|bytes| EventId::from_slice(&bytes)).transpose();
    let (Some(due), Some(output_tokens)) = (due, output_tokens) else {
        return Ok(None);
    };
    Ok(Some(Outcome {
        due: Msat(positive(due)?),
        output_tokens: positive(output_tokens)?,
        result: result.map_err(|_| Error::Damaged("an event's id"))?,
    }))
}

pub(super) fn id(row: &SqliteRow, name: &str) -> Result<EventId, Error> {
    let bytes: Vec<u8> = row.try_get(name)?;
    EventId::from_slice(&bytes).map_err(|_| Error::Damaged("an event's id"))
}

/// A count or an amount as SQLite keeps it: all of ours are below 2^63.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn positive(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::Damaged("a negative number"))
}
