//! What aggregators said last of our work in escrow.

use infernet_protocol::money::Msat;
use infernet_protocol::payload::Payout;
use nostr::PublicKey;
use sqlx::Row;

use super::tickets::{number, positive};
use super::{Error, Store};

/// The running totals that an aggregator stated last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stated {
    /// What all accepted work has come to.
    pub accepted: Msat,
    /// What of it is held back as our bond.
    pub bond: Msat,
    /// What of it was forfeited.
    pub forfeited: Msat,
}

impl Store {
    /// Keeps what an aggregator states.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn state(&self, aggregator: &PublicKey, payout: &Payout) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO payouts (aggregator, accepted_msat, bond_msat, forfeited_msat)
             VALUES (?, ?, ?, ?)
             ON CONFLICT (aggregator) DO UPDATE SET accepted_msat = excluded.accepted_msat,
                bond_msat = excluded.bond_msat, forfeited_msat = excluded.forfeited_msat",
        )
        .bind(aggregator.as_bytes().as_slice())
        .bind(number(payout.accepted_msat.0))
        .bind(number(payout.bond_msat.0))
        .bind(number(payout.forfeited_msat.0))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What an aggregator stated last; nothing if it has not.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn stated(&self, aggregator: &PublicKey) -> Result<Stated, Error> {
        let row = sqlx::query(
            "SELECT accepted_msat, bond_msat, forfeited_msat FROM payouts WHERE aggregator = ?",
        )
        .bind(aggregator.as_bytes().as_slice())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else {
            return Ok(Stated::default());
        };
        let amount = |column: &str| positive(row.try_get(column)?).map(Msat);
        Ok(Stated {
            accepted: amount("accepted_msat")?,
            bond: amount("bond_msat")?,
            forfeited: amount("forfeited_msat")?,
        })
    }
}
