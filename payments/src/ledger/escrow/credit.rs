//! What is left of buyers' money.

use infernet_protocol::money::Msat;
use nostr::PublicKey;
use sqlx::{Sqlite, Transaction};

use crate::ledger::{Error, Ledger, msat};

/// A buyer's credit with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credit {
    /// What we have taken and not charged.
    pub all: Msat,
    /// Of that, what is neither set aside for a group nor being paid back.
    pub free: Msat,
}

impl Ledger {
    /// What we owe a buyer.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn credit(&self, buyer: &PublicKey) -> Result<Credit, Error> {
        let mut moment = self.pool.begin().await?;
        Ok(Credit {
            all: all(&mut moment, buyer).await?,
            free: free(&mut moment, buyer).await?,
        })
    }
}

/// What a buyer's batches have come to, and what paying back its credit has cost us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Custom {
    /// What it was charged.
    pub charged: Msat,
    /// What routing its refunds has cost us, those under way at the most they may.
    pub routed: Msat,
}

impl Ledger {
    /// What a buyer has brought and cost us.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn custom(&self, buyer: &PublicKey) -> Result<Custom, Error> {
        let buyer = buyer.as_bytes().to_vec();
        let row = sqlx::query!(
            r#"SELECT
                coalesce((SELECT sum(amount_msat) FROM entries
                          WHERE account = 'credit' AND counterparty = ?1 AND leg = 'charged'), 0)
                    AS "charged!: i64",
                coalesce((SELECT sum(fee.amount_msat) FROM entries AS fee
                          JOIN entries AS paid ON paid.posting = fee.posting
                          WHERE paid.account = 'credit' AND paid.counterparty = ?1
                             AND paid.leg = 'credited' AND fee.leg = 'routing'), 0)
                + coalesce((SELECT sum(max_fee_msat) FROM intents
                            WHERE direction = 'outgoing' AND reason = 'credit' AND counterparty = ?1
                               AND state IN ('planned', 'under-way')), 0) AS "routed!: i64""#,
            buyer
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Custom {
            charged: msat(row.charged.max(0))?,
            routed: msat(row.routed)?,
        })
    }
}

async fn all(change: &mut Transaction<'static, Sqlite>, buyer: &PublicKey) -> Result<Msat, Error> {
    let buyer = buyer.as_bytes().to_vec();
    let sum = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(-amount_msat), 0) AS "sum!: i64"
           FROM entries WHERE account = 'credit' AND counterparty = ?"#,
        buyer
    )
    .fetch_one(&mut **change)
    .await?;
    msat(sum.max(0))
}

/// What may be set aside or paid back. What is set aside for a group stays so until the group is charged or its money
/// has gone back.
pub(super) async fn free(
    change: &mut Transaction<'static, Sqlite>,
    buyer: &PublicKey,
) -> Result<Msat, Error> {
    let all = all(change, buyer).await?;
    let buyer = buyer.as_bytes().to_vec();
    let spoken_for = sqlx::query_scalar!(
        r#"SELECT (SELECT coalesce(sum(amount_msat), 0) FROM intents
                   WHERE direction = 'outgoing' AND reason = 'credit' AND counterparty = ?1
                      AND state IN ('planned', 'under-way'))
                + (SELECT coalesce(sum(reserved_msat), 0)
                   FROM holds LEFT JOIN intents ON intents.key = holds.key
                   WHERE buyer = ?1
                      AND coalesce(state IN ('planned', 'under-way', 'held'), will IS NULL))
                AS "sum!: i64""#,
        buyer
    )
    .fetch_one(&mut **change)
    .await?;
    Ok(Msat(all.0.saturating_sub(msat(spoken_for)?.0)))
}

/// Whether so much of a buyer's credit can be paid back.
pub(in crate::ledger) async fn is_left(
    change: &mut Transaction<'static, Sqlite>,
    buyer: &PublicKey,
    amount: Msat,
) -> Result<(), Error> {
    let left = free(change, buyer).await?;
    match amount <= left {
        true => Ok(()),
        false => Err(Error::NotLeft { left }),
    }
}
