//! Reading what is in escrow: a provider's debtors, and an aggregator's books.

use infernet_protocol::money::Msat;
use nostr::{PublicKey, Timestamp};

use crate::ledger::entering::post;
use crate::ledger::journal::Tabs;
use crate::ledger::posting::Posting;
use crate::ledger::{Account, Error, Ledger, key, msat};

/// What an aggregator and we, a provider, have had with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Escrow {
    /// What all our work would have come to.
    pub earned: Msat,
    /// Of that, what was rejected.
    pub rejected: Msat,
    /// Of that, what was kept of our bond.
    pub forfeited: Msat,
    /// Of that, what was paid.
    pub paid: Msat,
    /// What is still owed to us, our bond counted in.
    pub owed: Msat,
}

/// An aggregator's books.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sums {
    /// What is in the wallet, by the ledger.
    pub wallet_msat: i64,
    /// What is held for buyers' groups, and not claimed.
    pub held: Msat,
    /// What is owed to buyers.
    pub credits: Tabs,
    /// What is owed to providers.
    pub payouts: Tabs,
    /// What is held back of providers' pay.
    pub bonds: Tabs,
    /// The fees on accepted work.
    pub fees_earned: Msat,
    /// What buyers were charged for work and checks.
    pub charged: Msat,
    /// What work and checks have cost us.
    pub spent: Msat,
    /// What routing has cost us.
    pub routing: Msat,
}

impl Ledger {
    /// What an aggregator and we have had with each other, we being a provider.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn escrow(&self, aggregator: &PublicKey) -> Result<Escrow, Error> {
        let aggregator = aggregator.as_bytes().to_vec();
        let row = sqlx::query!(
            r#"SELECT
                coalesce(sum(amount_msat) FILTER (WHERE leg = 'charged'), 0) AS "earned!: i64",
                coalesce(sum(-amount_msat) FILTER (WHERE leg = 'written-off'), 0) AS "rejected!: i64",
                coalesce(sum(-amount_msat) FILTER (WHERE leg = 'forfeited'), 0) AS "forfeited!: i64",
                coalesce(sum(-amount_msat) FILTER (WHERE leg = 'accepted'), 0) AS "paid!: i64"
               FROM entries WHERE account = 'payout' AND counterparty = ?"#,
            aggregator
        )
        .fetch_one(&self.pool)
        .await?;
        let gone = row.rejected + row.forfeited + row.paid;
        Ok(Escrow {
            owed: msat(row.earned.saturating_sub(gone).max(0))?,
            earned: msat(row.earned)?,
            rejected: msat(row.rejected)?,
            forfeited: msat(row.forfeited)?,
            paid: msat(row.paid)?,
        })
    }

    /// The same of all aggregators that we have worked for.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn escrows(&self) -> Result<Vec<(PublicKey, Escrow)>, Error> {
        let rows = sqlx::query_scalar!(
            r#"SELECT counterparty AS "counterparty!" FROM entries WHERE account = 'payout'
               GROUP BY counterparty ORDER BY min(posting)"#
        )
        .fetch_all(&self.pool)
        .await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let aggregator = key(&row)?;
            all.push((aggregator, self.escrow(&aggregator).await?));
        }
        Ok(all)
    }

    /// An aggregator says that it has kept so much of our bond in all: what is new of that is written off. Again it
    /// changes nothing. Answers how much was new.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn lose_bond_to(
        &self,
        aggregator: &PublicKey,
        total: Msat,
        now: Timestamp,
    ) -> Result<Msat, Error> {
        let id = aggregator.as_bytes().to_vec();
        let mut change = self.change().await?;
        let before = sqlx::query_scalar!(
            r#"SELECT coalesce(sum(-amount_msat), 0) AS "sum!: i64" FROM entries
               WHERE account = 'payout' AND counterparty = ? AND leg = 'forfeited'"#,
            id
        )
        .fetch_one(&mut *change)
        .await?;
        let Some(amount) = total.checked_sub(msat(before)?) else {
            return Ok(Msat::ZERO);
        };
        let lost = Posting::BondLost {
            aggregator: *aggregator,
            total,
            amount,
        };
        post(&mut change, &lost, now).await?;
        change.commit().await?;
        Ok(amount)
    }

    /// An aggregator's books, as of now.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn sums(&self) -> Result<Sums, Error> {
        let income = sqlx::query!(
            r#"SELECT coalesce(sum(-amount_msat) FILTER (WHERE leg = 'fee'), 0) AS "fee!: i64",
                      coalesce(sum(-amount_msat) FILTER (WHERE leg = 'earned'), 0) AS "earned!: i64"
               FROM entries WHERE account = 'income'"#
        )
        .fetch_one(&self.pool)
        .await?;
        let held = sqlx::query_scalar!(
            r#"SELECT coalesce(sum(amount_msat), 0) AS "sum!: i64" FROM intents WHERE state = 'held'"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Sums {
            wallet_msat: self.balance(&Account::Wallet).await?,
            held: msat(held)?,
            credits: self.owed_on("credit").await?,
            payouts: self.owed_on("payout").await?,
            bonds: self.owed_on("bond").await?,
            fees_earned: msat(income.fee)?,
            charged: msat(income.earned)?,
            spent: msat(self.balance(&Account::Spending).await?)?,
            routing: msat(self.balance(&Account::Fees).await?)?,
        })
    }

    /// What we owe whom on one kind of account.
    async fn owed_on(&self, account: &str) -> Result<Tabs, Error> {
        let rows = sqlx::query!(
            r#"SELECT counterparty AS "counterparty!", sum(-amount_msat) AS "balance!: i64"
               FROM entries WHERE account = ?
               GROUP BY counterparty HAVING sum(amount_msat) <> 0 ORDER BY min(posting)"#,
            account
        )
        .fetch_all(&self.pool)
        .await?;
        let rows = rows.into_iter();
        rows.map(|row| Ok((key(&row.counterparty)?, row.balance)))
            .collect()
    }
}
