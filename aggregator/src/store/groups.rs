//! Groups of lines, and how far each is.

use infernet_protocol::batch::{BlobKey, Delivery, Group};
use infernet_protocol::job::Millis;
use nostr::{Event, EventId, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Error, Store, json, number, read_bytes, read_id, read_json, read_u32, seconds};
use crate::group::State;
use crate::tally::Tally;

/// A group as it is kept.
#[derive(Debug, Clone)]
pub struct GroupRow {
    /// Its order.
    pub order: EventId,
    /// What the buyer asked.
    pub asked: Group,
    /// How far it is.
    pub state: State,
    /// What stands for a payment's preimage where nothing is paid.
    pub token: BlobKey,
    /// What was delivered.
    pub delivery: Option<Delivery>,
    /// When it is claimed at the latest, once it is delivered.
    pub claim_at: Option<Millis>,
    /// What came of its lines.
    pub tally: Option<Tally>,
    /// Why it was cancelled.
    pub reason: Option<String>,
    /// When it was opened.
    pub opened: Timestamp,
}

/// A step of a group.
#[derive(Debug, Clone, PartialEq)]
pub enum Advance {
    /// The money is held.
    Held,
    /// Its lines are done.
    Worked(Tally),
    /// It can be fetched.
    Delivered {
        /// What.
        delivery: Delivery,
        /// When it is claimed at the latest.
        claim_at: Millis,
    },
    /// It can be fetched, and costs nothing; told by this settlement.
    HandedOver(Delivery, Box<Event>),
    /// The money is about to be claimed.
    Claiming,
    /// The wallet has the money; told by this settlement.
    Settled(Box<Event>),
    /// It came to nothing, for this reason.
    Cancelled(&'static str),
}

impl Store {
    /// Opens a group, or answers the one that was opened before.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn open_group(
        &self,
        order: &EventId,
        asked: &Group,
        state: State,
        token: &BlobKey,
        now: Timestamp,
    ) -> Result<GroupRow, Error> {
        sqlx::query(
            "INSERT OR IGNORE INTO groups (of_order, number, asked, state, lines, token, opened_s)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(order.as_bytes().as_slice())
        .bind(asked.number)
        .bind(json(asked)?)
        .bind(state.as_str())
        .bind(number(asked.size.lines))
        .bind(token.as_bytes().as_slice())
        .bind(seconds(now))
        .execute(&self.pool)
        .await?;
        let row = self.group(order, asked.number).await?;
        row.ok_or(Error::Damaged("a group that is not there"))
    }

    /// A group, if it was opened.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn group(&self, order: &EventId, group: u32) -> Result<Option<GroupRow>, Error> {
        let row = sqlx::query("SELECT * FROM groups WHERE of_order = ? AND number = ?")
            .bind(order.as_bytes().as_slice())
            .bind(group)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The groups of an order that are not over, by number.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn open_groups(&self, order: &EventId) -> Result<Vec<GroupRow>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM groups WHERE of_order = ? AND state NOT IN ('settled', 'cancelled')
             ORDER BY number",
        )
        .bind(order.as_bytes().as_slice())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// What came of the groups of an order that are settled, summed.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn settled(&self, order: &EventId) -> Result<Tally, Error> {
        let rows = sqlx::query("SELECT tally FROM groups WHERE of_order = ? AND state = 'settled'")
            .bind(order.as_bytes().as_slice())
            .fetch_all(&self.pool)
            .await?;
        let mut sum = Tally::default();
        for row in &rows {
            if let Some(tally) = read_json::<Tally>(row, "tally")? {
                sum.count(&tally);
            }
        }
        Ok(sum)
    }

    /// Lines of the groups of an order that were given and not cancelled.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn given_lines(&self, order: &EventId) -> Result<u64, Error> {
        let row = sqlx::query(
            "SELECT coalesce(sum(lines), 0) AS n FROM groups
             WHERE of_order = ? AND state <> 'cancelled'",
        )
        .bind(order.as_bytes().as_slice())
        .fetch_one(&self.pool)
        .await?;
        super::read_number(&row, "n")
    }

    /// How many groups of an order there are.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn count_groups(&self, order: &EventId) -> Result<u64, Error> {
        let row = sqlx::query("SELECT count(*) AS n FROM groups WHERE of_order = ?")
            .bind(order.as_bytes().as_slice())
            .fetch_one(&self.pool)
            .await?;
        super::read_number(&row, "n")
    }

    /// Moves a group on, if it stands where this step begins; false if it does not. A
    /// settlement goes into the outbox with it. Where the work on a group that is over
    /// came from is then in the settlement, and no longer here.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn advance(
        &self,
        order: &EventId,
        group: u32,
        step: &Advance,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let query = match step {
            Advance::Held => sqlx::query(
                "UPDATE groups SET state = 'working' WHERE of_order = ? AND number = ? AND state = 'unpaid'",
            ),
            Advance::Worked(_) => sqlx::query(
                "UPDATE groups SET state = 'delivering', tally = ?3
                 WHERE of_order = ?1 AND number = ?2 AND state = 'working'",
            ),
            Advance::Delivered { .. } => sqlx::query(
                "UPDATE groups SET state = 'delivered', delivery = ?3, claim_ms = ?4
                 WHERE of_order = ?1 AND number = ?2 AND state = 'delivering'",
            ),
            Advance::HandedOver(..) => sqlx::query(
                "UPDATE groups SET state = 'settled', delivery = ?4, ended_s = ?3,
                     tally = json_set(tally, '$.results', json('[]'), '$.owed', json('[]'))
                 WHERE of_order = ?1 AND number = ?2 AND state = 'delivering'",
            ),
            Advance::Claiming => sqlx::query(
                "UPDATE groups SET state = 'claiming' WHERE of_order = ? AND number = ? AND state = 'delivered'",
            ),
            Advance::Settled(_) => sqlx::query(
                "UPDATE groups SET state = 'settled', ended_s = ?3,
                     tally = json_set(tally, '$.results', json('[]'), '$.owed', json('[]'))
                 WHERE of_order = ?1 AND number = ?2 AND state = 'claiming'",
            ),
            Advance::Cancelled(_) => sqlx::query(
                "UPDATE groups SET state = 'cancelled', reason = ?3, ended_s = ?4
                 WHERE of_order = ?1 AND number = ?2 AND state NOT IN ('settled', 'cancelled')",
            ),
        };
        let query = query.bind(order.as_bytes().to_vec()).bind(group);
        let query = match step {
            Advance::Held | Advance::Claiming => query,
            Advance::Worked(tally) => query.bind(json(tally)?),
            Advance::Delivered { delivery, claim_at } => {
                query.bind(json(delivery)?).bind(number(claim_at.0))
            }
            Advance::HandedOver(delivery, _) => query.bind(seconds(now)).bind(json(delivery)?),
            Advance::Settled(_) => query.bind(seconds(now)),
            Advance::Cancelled(reason) => query.bind(*reason).bind(seconds(now)),
        };
        let mut transaction = self.pool.begin().await?;
        let moved = query.execute(&mut *transaction).await?;
        let has_moved = moved.rows_affected() > 0;
        if let (true, Advance::HandedOver(_, event) | Advance::Settled(event)) = (has_moved, step) {
            super::outbox::post(&mut transaction, event, now).await?;
        }
        transaction.commit().await?;
        Ok(has_moved)
    }

    /// Groups that ended before this, and whose shards and files are still there.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn ended_before(&self, before: Timestamp) -> Result<Vec<(EventId, u32)>, Error> {
        // By their shards: those are forgotten, and groups are kept for good.
        let rows = sqlx::query(
            "SELECT DISTINCT groups.of_order, groups.number FROM shards
             JOIN groups ON groups.of_order = shards.of_order AND groups.number = of_group
             WHERE ended_s < ?",
        )
        .bind(seconds(before))
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &SqliteRow| Ok((read_id(row, "of_order")?, read_u32(row, "number")?));
        rows.iter().map(read).collect()
    }
}

fn read(row: &SqliteRow) -> Result<GroupRow, Error> {
    let state: String = row.try_get("state")?;
    let claim_ms: Option<i64> = row.try_get("claim_ms")?;
    Ok(GroupRow {
        order: read_id(row, "of_order")?,
        asked: read_json(row, "asked")?.ok_or(Error::Damaged("a group"))?,
        state: State::named(&state).ok_or(Error::Damaged("a group's state"))?,
        token: BlobKey::from_bytes(read_bytes(row, "token")?),
        delivery: read_json(row, "delivery")?,
        claim_at: claim_ms.map(|ms| Millis(ms.unsigned_abs())),
        tally: read_json(row, "tally")?,
        reason: row.try_get("reason")?,
        opened: super::read_time(row, "opened_s")?,
    })
}
