//! Shards of groups that were begun.

use nostr::EventId;
use sqlx::sqlite::SqliteRow;

use super::{Error, Store, json, read_json, read_u32};
use crate::tally::{CheckOf, Ended};

/// A shard as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardRow {
    /// Its number in the group.
    pub number: u32,
    /// Its lines' numbers in the group.
    pub lines: Vec<u32>,
    /// Purchases that came to nothing so far.
    pub tries: u32,
    /// How it ended.
    pub ended: Option<Ended>,
}

impl Store {
    /// Writes down how a group was cut, unless that was done before.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn cut(&self, order: &EventId, group: u32, shards: &[Vec<u32>]) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query("SELECT 1 FROM shards WHERE of_order = ? AND of_group = ? LIMIT 1")
            .bind(order.as_bytes().as_slice())
            .bind(group)
            .fetch_optional(&mut *transaction)
            .await?;
        if row.is_some() {
            return Ok(());
        }
        for (number, lines) in (0_u32..).zip(shards) {
            sqlx::query(
                "INSERT INTO shards (of_order, of_group, number, lines) VALUES (?, ?, ?, ?)",
            )
            .bind(order.as_bytes().as_slice())
            .bind(group)
            .bind(number)
            .bind(json(lines)?)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The shards of a group, by number; none if it was not cut yet.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn shards(&self, order: &EventId, group: u32) -> Result<Vec<ShardRow>, Error> {
        let rows =
            sqlx::query("SELECT * FROM shards WHERE of_order = ? AND of_group = ? ORDER BY number")
                .bind(order.as_bytes().as_slice())
                .bind(group)
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(read).collect()
    }

    /// A shard has ended. Lines that are to be tried again become a shard of their own,
    /// which is answered.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn end_shard(
        &self,
        order: &EventId,
        group: u32,
        shard: u32,
        ended: &Ended,
        again: Option<(&[u32], u32)>,
    ) -> Result<Option<ShardRow>, Error> {
        let mut transaction = self.pool.begin().await?;
        let moved = sqlx::query(
            "UPDATE shards SET ended = ? WHERE of_order = ? AND of_group = ? AND number = ?
             AND ended IS NULL",
        )
        .bind(json(ended)?)
        .bind(order.as_bytes().as_slice())
        .bind(group)
        .bind(shard)
        .execute(&mut *transaction)
        .await?;
        let mut made = None;
        if let Some((lines, tries)) = again.filter(|_| moved.rows_affected() > 0) {
            let row = sqlx::query(
                "INSERT INTO shards (of_order, of_group, number, lines, tries)
                 SELECT ?1, ?2, 1 + max(number), ?3, ?4 FROM shards
                 WHERE of_order = ?1 AND of_group = ?2
                 RETURNING *",
            )
            .bind(order.as_bytes().as_slice())
            .bind(group)
            .bind(json(&lines)?)
            .bind(tries)
            .fetch_one(&mut *transaction)
            .await?;
            made = Some(read(&row)?);
        }
        transaction.commit().await?;
        Ok(made)
    }

    /// A purchase came to nothing.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn tried(&self, order: &EventId, group: u32, shard: u32) -> Result<(), Error> {
        sqlx::query(
            "UPDATE shards SET tries = tries + 1 WHERE of_order = ? AND of_group = ? AND number = ?",
        )
        .bind(order.as_bytes().as_slice())
        .bind(group)
        .bind(shard)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What a provider brought was rejected.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn reject(&self, order: &EventId, group: u32, check: &CheckOf) -> Result<(), Error> {
        sqlx::query(
            "INSERT OR IGNORE INTO rejected (result, of_order, of_group, checked) VALUES (?, ?, ?, ?)",
        )
        .bind(check.result.result.as_bytes().as_slice())
        .bind(order.as_bytes().as_slice())
        .bind(group)
        .bind(json(check)?)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What was rejected of the work on a group.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn rejected(&self, order: &EventId, group: u32) -> Result<Vec<CheckOf>, Error> {
        let rows = sqlx::query("SELECT checked FROM rejected WHERE of_order = ? AND of_group = ?")
            .bind(order.as_bytes().as_slice())
            .bind(group)
            .fetch_all(&self.pool)
            .await?;
        let read =
            |row: &SqliteRow| read_json(row, "checked")?.ok_or(Error::Damaged("a rejected result"));
        rows.iter().map(read).collect()
    }

    /// Forgets the shards of a group that is over.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn forget_shards(&self, order: &EventId, group: u32) -> Result<(), Error> {
        sqlx::query("DELETE FROM shards WHERE of_order = ? AND of_group = ?")
            .bind(order.as_bytes().as_slice())
            .bind(group)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

fn read(row: &SqliteRow) -> Result<ShardRow, Error> {
    Ok(ShardRow {
        number: read_u32(row, "number")?,
        lines: read_json(row, "lines")?.ok_or(Error::Damaged("a shard"))?,
        tries: read_u32(row, "tries")?,
        ended: read_json(row, "ended")?,
    })
}
