//! Awards that were placed, until each is answered.

use nostr::{EventId, PublicKey, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};

use super::{Error, Store, read_id, read_key, read_time, read_u32, seconds};

/// Awards that are looked at in one round.
const AT_ONCE: i64 = 64;

/// How soon an award is looked at again.
const LOOKED_AGAIN_S: i64 = 20;

/// How long an award that was answered is remembered.
const KEPT_S: u64 = 7 * 24 * 3_600;

/// An award that was placed at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The award.
    pub award: EventId,
    /// Who is to do it.
    pub provider: PublicKey,
    /// The shard that it is for; none for a check, or questions of our own.
    pub shard: Option<(EventId, u32, u32)>,
    /// Whether it is paid in escrow.
    pub is_paid: bool,
    /// When its result must be there.
    pub until: Timestamp,
}

/// Writes an award down; again, it changes nothing but what it is for, if that was not
/// known.
///
/// # Errors
/// [`Error::Sqlite`].
pub async fn place(pool: &SqlitePool, placed: &Placed) -> Result<(), Error> {
    let shard = placed.shard.as_ref();
    sqlx::query(
        "INSERT INTO placed (award, provider, of_order, of_group, shard, is_paid, until_s)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (award) DO UPDATE SET of_order = excluded.of_order,
             of_group = excluded.of_group, shard = excluded.shard
         WHERE of_order IS NULL",
    )
    .bind(placed.award.as_bytes().as_slice())
    .bind(placed.provider.as_bytes().as_slice())
    .bind(shard.map(|(order, ..)| order.as_bytes().as_slice()))
    .bind(shard.map(|(_, group, _)| *group))
    .bind(shard.map(|(.., shard)| *shard))
    .bind(placed.is_paid)
    .bind(seconds(placed.until))
    .execute(pool)
    .await?;
    Ok(())
}

impl Store {
    /// The awards of a shard that were not answered.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn placed(
        &self,
        order: &EventId,
        group: u32,
        shard: u32,
    ) -> Result<Vec<Placed>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM placed
             WHERE of_order = ? AND of_group = ? AND shard = ? AND answered_s IS NULL",
        )
        .bind(order.as_bytes().as_slice())
        .bind(group)
        .bind(shard)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Awards whose result nobody waits for: their group is over, or, where they have
    /// none, their time. Those that were looked at longest ago come first.
    ///
    /// # Errors
    /// [`Error::Sqlite`], a damaged row.
    pub async fn unanswered(&self, now: Timestamp) -> Result<Vec<Placed>, Error> {
        let rows = sqlx::query(
            "SELECT placed.* FROM placed
             LEFT JOIN groups ON groups.of_order = placed.of_order AND groups.number = of_group
             WHERE answered_s IS NULL AND looked_s <= ?
               AND (state IN ('settled', 'cancelled') OR (state IS NULL AND until_s < ?))
             ORDER BY looked_s, award LIMIT ?",
        )
        .bind(seconds(now) - LOOKED_AGAIN_S)
        .bind(seconds(now))
        .bind(AT_ONCE)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// An award is answered.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn answered(&self, award: &EventId, now: Timestamp) -> Result<(), Error> {
        sqlx::query("UPDATE placed SET answered_s = ? WHERE award = ?")
            .bind(seconds(now))
            .bind(award.as_bytes().as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The result of an award was looked for in vain.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn looked(&self, award: &EventId, now: Timestamp) -> Result<(), Error> {
        sqlx::query("UPDATE placed SET looked_s = ? WHERE award = ?")
            .bind(seconds(now))
            .bind(award.as_bytes().as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets awards that were answered long ago.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn forget_answered(&self, now: Timestamp) -> Result<(), Error> {
        let oldest = Timestamp::from_secs(now.as_secs().saturating_sub(KEPT_S));
        sqlx::query("DELETE FROM placed WHERE answered_s < ?")
            .bind(seconds(oldest))
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

fn read(row: &SqliteRow) -> Result<Placed, Error> {
    let order: Option<Vec<u8>> = row.try_get("of_order")?;
    let shard = match order {
        Some(_) => Some((
            read_id(row, "of_order")?,
            read_u32(row, "of_group")?,
            read_u32(row, "shard")?,
        )),
        None => None,
    };
    Ok(Placed {
        award: read_id(row, "award")?,
        provider: read_key(row, "provider")?,
        shard,
        is_paid: row.try_get("is_paid")?,
        until: read_time(row, "until_s")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_protocol::batch::{Blob, BlobKey, Group, Size};
    use infernet_protocol::seal::Digest;
    use infernet_protocol::verification::Secret;
    use nostr::Keys;

    use super::*;
    use crate::group::State;
    use crate::store::Advance;
    use crate::testing;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn id(n: u8) -> EventId {
        EventId::from_byte_array([n; 32])
    }

    fn placed(n: u8, shard: Option<(EventId, u32, u32)>) -> Placed {
        Placed {
            award: id(n),
            provider: Keys::generate().public_key(),
            shard,
            is_paid: true,
            until: Timestamp::from_secs(NOW.as_secs() + 60),
        }
    }

    /// A store with a group that is being worked on.
    async fn with_group() -> (Store, tempfile::TempDir, EventId) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.sqlite")).await;
        let store = store.unwrap();
        let (us, buyer) = (Keys::generate(), Keys::generate());
        let secret = Secret::from_bytes([3; 32]);
        let order = testing::order(&us, &buyer, &secret, NOW);
        let until = Timestamp::from_secs(NOW.as_secs() + 60);
        let kept = store.quote(order.quote.id, buyer.public_key(), &secret, until, NOW);
        kept.await.unwrap();
        store.take(&order, NOW).await.unwrap();
        let group = Group {
            number: 0,
            size: Size::default(),
            input: Blob {
                sha256: Digest::from_bytes([1; 32]),
                bytes: 1,
                servers: vec!["http://127.0.0.1".into()],
            },
            key: BlobKey::from_bytes([2; 32]),
        };
        let (order, token) = (order.id(), BlobKey::from_bytes([4; 32]));
        let opened = store.open_group(&order, &group, State::Working, &token, NOW);
        opened.await.unwrap();
        (store, folder, order)
    }

    async fn unanswered(store: &Store, now: Timestamp) -> Vec<EventId> {
        let placed = store.unanswered(now).await.unwrap();
        placed.iter().map(|placed| placed.award).collect()
    }

    #[tokio::test]
    async fn an_award_is_looked_after_once_its_group_is_over_until_it_is_answered() {
        let (store, _folder, order) = with_group().await;
        let (first, other) = (
            placed(1, Some((order, 0, 7))),
            placed(2, Some((order, 0, 8))),
        );
        for placed in [&first, &other, &first] {
            place(store.pool(), placed).await.unwrap();
        }
        let of_shard = store.placed(&order, 0, 7).await.unwrap();
        assert_eq!(of_shard, std::slice::from_ref(&first));
        let later = Timestamp::from_secs(NOW.as_secs() + 3_600);
        assert!(
            unanswered(&store, later).await.is_empty(),
            "it is worked on"
        );
        let over = Advance::Cancelled("late");
        assert!(store.advance(&order, 0, &over, NOW).await.unwrap());
        assert_eq!(unanswered(&store, NOW).await, [id(1), id(2)]);
        store.looked(&id(1), NOW).await.unwrap();
        assert_eq!(unanswered(&store, NOW).await, [id(2)]);
        assert_eq!(unanswered(&store, later).await, [id(2), id(1)]);
        store.answered(&id(2), NOW).await.unwrap();
        assert_eq!(unanswered(&store, later).await, [id(1)]);
        let unknown = Placed {
            shard: None,
            ..first
        };
        place(store.pool(), &unknown).await.unwrap();
        assert_eq!(store.placed(&order, 0, 7).await.unwrap().len(), 1);
        assert!(store.placed(&order, 0, 8).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_check_is_looked_after_once_its_time_is_over() {
        let (store, _folder, order) = with_group().await;
        place(store.pool(), &placed(1, None)).await.unwrap();
        assert!(unanswered(&store, NOW).await.is_empty());
        let later = Timestamp::from_secs(NOW.as_secs() + 61);
        assert_eq!(unanswered(&store, later).await, [id(1)]);
        store.answered(&id(1), NOW).await.unwrap();
        let much_later = Timestamp::from_secs(NOW.as_secs() + 2 * KEPT_S);
        store.forget_answered(much_later).await.unwrap();
        place(store.pool(), &placed(1, None)).await.unwrap();
        assert_eq!(unanswered(&store, much_later).await, [id(1)]);
        // It is heard of what it was for after all.
        let known = placed(1, Some((order, 0, 3)));
        place(store.pool(), &known).await.unwrap();
        assert_eq!(store.placed(&order, 0, 3).await.unwrap().len(), 1);
        assert!(unanswered(&store, much_later).await.is_empty());
    }
}
