//! Reading the ledger: balances, tabs and what happened.

use infernet_protocol::event::ReceiptSide;
use nostr::{PublicKey, Timestamp};
use sqlx::{Sqlite, Transaction};

use crate::tab::Carried;

use super::{Account, Error, Ledger, instant, key, seconds};

/// The tabs, each with its balance in msat: positive if the counterparty owes us.
pub type Tabs = Vec<(PublicKey, i64)>;

/// One entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was posted.
    pub at: Timestamp,
    /// Why: `top-up`, `refund`, `charge`, `outside`, `hold`, `payout`, `credit`, `bond`, `forfeit` or `write-off`.
    pub reason: String,
    /// The payment's hash, or the award's id for a charge.
    pub reference: [u8; 32],
    /// The counterparty, where there is one.
    pub counterparty: Option<PublicKey>,
    /// What it did to the account; positive if the account grew.
    pub amount_msat: i64,
}

impl Ledger {
    /// An account's balance in msat.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn balance(&self, account: &Account) -> Result<i64, Error> {
        self.change_since(account, Timestamp::from_secs(0)).await
    }

    /// What has happened to an account's balance since then, in msat.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn change_since(&self, account: &Account, since: Timestamp) -> Result<i64, Error> {
        let (account, counterparty) = account.columns();
        let since = seconds(since);
        let sum = sqlx::query_scalar!(
            r#"SELECT coalesce(sum(amount_msat), 0) AS "sum!: i64"
               FROM entries JOIN postings ON postings.id = entries.posting
               WHERE account = ? AND counterparty IS ? AND at_s >= ?"#,
            account,
            counterparty,
            since
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(sum)
    }

    /// All tabs that are not even.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn tabs(&self) -> Result<Tabs, Error> {
        let rows = sqlx::query!(
            r#"SELECT counterparty AS "counterparty!", sum(amount_msat) AS "balance!: i64"
               FROM entries WHERE account = 'tab'
               GROUP BY counterparty HAVING sum(amount_msat) <> 0 ORDER BY min(posting)"#
        )
        .fetch_all(&self.pool)
        .await?;
        let rows = rows.into_iter();
        rows.map(|row| Ok((key(&row.counterparty)?, row.balance)))
            .collect()
    }

    /// What the tab with a counterparty has seen so far, on which we are the buyer or the provider. What a provider
    /// is paying back, and may have paid, is not left on it; what a buyer is paying is not on it yet.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn carried(
        &self,
        counterparty: &PublicKey,
        our_side: ReceiptSide,
    ) -> Result<Carried, Error> {
        let mut change = self.pool.begin().await?;
        carried(&mut change, counterparty, our_side).await
    }

    /// The entries of an account since then, the oldest first. For income and spending the counterparty is that of
    /// the tab, credit or payout it was put on.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn lines(&self, account: &Account, since: Timestamp) -> Result<Vec<Line>, Error> {
        let (account, counterparty) = account.columns();
        let since = seconds(since);
        let rows = sqlx::query!(
            r#"SELECT at_s, reason, entries.reference, entries.amount_msat,
                      (SELECT tab.counterparty FROM entries AS tab
                       WHERE tab.posting = entries.posting
                          AND tab.account IN ('tab', 'credit', 'payout'))
                          AS "counterparty: Vec<u8>"
               FROM entries JOIN postings ON postings.id = entries.posting
               WHERE account = ? AND entries.counterparty IS ? AND at_s >= ?
               ORDER BY postings.id"#,
            account,
            counterparty,
            since
        )
        .fetch_all(&self.pool)
        .await?;
        let rows = rows.into_iter();
        rows.map(|row| {
            Ok(Line {
                at: instant(row.at_s),
                reason: row.reason,
                reference: super::bytes32(&row.reference)?,
                counterparty: row.counterparty.as_deref().map(key).transpose()?,
                amount_msat: row.amount_msat,
            })
        })
        .collect()
    }
}

/// What a tab has seen so far, as part of a larger change.
pub(super) async fn carried(
    change: &mut Transaction<'static, Sqlite>,
    counterparty: &PublicKey,
    our_side: ReceiptSide,
) -> Result<Carried, Error> {
    let counterparty = counterparty.as_bytes().to_vec();
    let row = sqlx::query!(
        r#"SELECT
            coalesce(sum(amount_msat) FILTER (WHERE
                (leg = 'credited' AND reason = 'top-up') OR (leg = 'accepted' AND reason = 'refund')), 0)
                AS "paid_by_us!: i64",
            coalesce(sum(-amount_msat) FILTER (WHERE leg = 'charged' AND amount_msat < 0), 0)
                AS "due_by_us!: i64",
            coalesce(sum(-amount_msat) FILTER (WHERE
                (leg = 'accepted' AND reason = 'top-up') OR (leg = 'credited' AND reason = 'refund')), 0)
                AS "paid_to_us!: i64",
            coalesce(sum(amount_msat) FILTER (WHERE leg = 'charged' AND amount_msat > 0), 0)
                AS "due_to_us!: i64",
            (SELECT coalesce(sum(amount_msat), 0) FROM intents
             WHERE direction = 'outgoing' AND reason = 'refund' AND state IN ('planned', 'under-way')
                AND intents.counterparty = ?) AS "going_back!: i64"
           FROM entries JOIN postings ON postings.id = entries.posting
           WHERE account = 'tab' AND counterparty = ?"#,
        counterparty,
        counterparty
    )
    .fetch_one(&mut **change)
    .await?;
    let (paid, due) = match our_side {
        ReceiptSide::Buyer => (row.paid_by_us, row.due_by_us),
        ReceiptSide::Provider => (row.paid_to_us.saturating_sub(row.going_back), row.due_to_us),
    };
    Ok(Carried {
        // More back than was paid is a present.
        paid: super::msat(paid.max(0))?,
        due: super::msat(due)?,
    })
}
