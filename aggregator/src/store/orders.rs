//! Quotes that may be taken, and orders that were.

use infernet_protocol::event::{Order, Signed};
use infernet_protocol::verification::Secret;
use nostr::{Event, EventId, JsonUtil, PublicKey, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Error, Store, read_bytes, read_key, read_time, seconds};

/// An order as it is kept.
#[derive(Debug, Clone)]
pub struct OrderRow {
    /// The order; its quote is inside.
    pub order: Signed<Order>,
    /// Chooses what is checked.
    pub secret: Secret,
    /// When it was taken.
    pub taken: Timestamp,
    /// Whether nothing more is begun.
    pub is_stopped: bool,
    /// When it was closed.
    pub closed: Option<Timestamp>,
}

/// What became of an order that was to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is taken, now or before.
    Yes,
    /// The quote is not ours, or was forgotten.
    UnknownQuote,
    /// Another order took that quote.
    QuoteGone,
}

impl Store {
    /// Keeps a quote's secret until the quote runs out; forgets those that have.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn quote(
        &self,
        quote: EventId,
        buyer: PublicKey,
        secret: &Secret,
        valid_until: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        sqlx::query("DELETE FROM quotes WHERE valid_until_s < ?")
            .bind(seconds(now))
            .execute(&self.pool)
            .await?;
        sqlx::query("INSERT INTO quotes (id, buyer, secret, valid_until_s) VALUES (?, ?, ?, ?)")
            .bind(quote.as_bytes().as_slice())
            .bind(buyer.as_bytes().as_slice())
            .bind(secret.as_bytes().as_slice())
            .bind(seconds(valid_until))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// How many quotes may still be taken.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn open_quotes(&self, now: Timestamp) -> Result<u64, Error> {
        let row = sqlx::query("SELECT count(*) AS n FROM quotes WHERE valid_until_s >= ?")
            .bind(seconds(now))
            .fetch_one(&self.pool)
            .await?;
        super::read_number(&row, "n")
    }

    /// Takes an order on its quote. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn take(&self, order: &Signed<Order>, now: Timestamp) -> Result<Taken, Error> {
        if self.order(&order.id()).await?.is_some() {
            return Ok(Taken::Yes);
        }
        let quote = order.quote.id;
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query("DELETE FROM quotes WHERE id = ? RETURNING secret")
            .bind(quote.as_bytes().as_slice())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else {
            let gone = sqlx::query("SELECT 1 FROM orders WHERE quote = ?")
                .bind(quote.as_bytes().as_slice())
                .fetch_optional(&mut *transaction)
                .await?;
            return Ok(match gone {
                Some(_) => Taken::QuoteGone,
                None => Taken::UnknownQuote,
            });
        };
        sqlx::query(
            "INSERT INTO orders (id, buyer, quote, event, secret, taken_s) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(order.id().as_bytes().as_slice())
        .bind(order.author().as_bytes().as_slice())
        .bind(quote.as_bytes().as_slice())
        .bind(order.event().as_json())
        .bind(read_bytes(&row, "secret")?.as_slice())
        .bind(seconds(now))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Taken::Yes)
    }

    /// An order, if it was taken.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn order(&self, id: &EventId) -> Result<Option<OrderRow>, Error> {
        let row = sqlx::query("SELECT * FROM orders WHERE id = ?")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The orders that are not closed, the oldest first.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn open_orders(&self) -> Result<Vec<OrderRow>, Error> {
        let rows = sqlx::query("SELECT * FROM orders WHERE closed_s IS NULL ORDER BY taken_s")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// The newest orders, closed or not.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn newest_orders(&self, most: u32) -> Result<Vec<OrderRow>, Error> {
        let rows = sqlx::query("SELECT * FROM orders ORDER BY taken_s DESC LIMIT ?")
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Orders that are open: in all, and this buyer's.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn count_open(&self, buyer: &PublicKey) -> Result<(u64, u64), Error> {
        let row = sqlx::query(
            "SELECT count(*) AS n, coalesce(sum(buyer = ?), 0) AS own FROM orders WHERE closed_s IS NULL",
        )
        .bind(buyer.as_bytes().as_slice())
        .fetch_one(&self.pool)
        .await?;
        Ok((
            super::read_number(&row, "n")?,
            super::read_number(&row, "own")?,
        ))
    }

    /// Begins nothing more of an order.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn stop_order(&self, id: &EventId) -> Result<(), Error> {
        sqlx::query("UPDATE orders SET is_stopped = 1 WHERE id = ?")
            .bind(id.as_bytes().as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Closes an order, together with the event that says so. False if it was closed
    /// before.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn close_order(
        &self,
        id: &EventId,
        settlement: &Event,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut transaction = self.pool.begin().await?;
        let closed =
            sqlx::query("UPDATE orders SET closed_s = ? WHERE id = ? AND closed_s IS NULL")
                .bind(seconds(now))
                .bind(id.as_bytes().as_slice())
                .execute(&mut *transaction)
                .await?;
        if closed.rows_affected() == 0 {
            return Ok(false);
        }
        super::outbox::post(&mut transaction, settlement, now).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

fn read(row: &SqliteRow) -> Result<OrderRow, Error> {
    let event: String = row.try_get("event")?;
    let event = Event::from_json(event).map_err(|_| Error::Damaged("an order"))?;
    let order: Signed<Order> =
        Signed::from_verified(event).map_err(|_| Error::Damaged("an order"))?;
    let closed: Option<i64> = row.try_get("closed_s")?;
    if read_key(row, "buyer")? != order.author() {
        return Err(Error::Damaged("an order's buyer"));
    }
    Ok(OrderRow {
        order,
        secret: Secret::from_bytes(read_bytes(row, "secret")?),
        taken: read_time(row, "taken_s")?,
        is_stopped: row.try_get("is_stopped")?,
        closed: closed.map(|s| Timestamp::from_secs(s.unsigned_abs())),
    })
}
