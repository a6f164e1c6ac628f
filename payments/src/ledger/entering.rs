//! Writing postings down.

use nostr::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::posting::{Leg, Posted, Posting};
use super::{Error, Ledger, seconds};

impl Ledger {
    /// Posts what happened, once: again it changes nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the ledger says something else about that payment; [`Error::Sqlite`].
    pub async fn post(&self, posting: &Posting, at: Timestamp) -> Result<Posted, Error> {
        let mut change = self.change().await?;
        let posted = post(&mut change, posting, at).await?;
        change.commit().await?;
        Ok(posted)
    }
}

/// Posts as part of a larger change.
pub(super) async fn post(
    change: &mut Transaction<'static, Sqlite>,
    posting: &Posting,
    at: Timestamp,
) -> Result<Posted, Error> {
    let legs = posting.legs()?;
    let reference = posting.reference();
    let mut before = 0;
    for leg in &legs {
        before += usize::from(was_posted(change, &reference, leg).await?);
    }
    match before {
        0 => {}
        all if all == legs.len() => return Ok(Posted::Before),
        _ => return Err(Error::Conflict),
    }
    if legs.is_empty() {
        return Ok(Posted::Before);
    }
    let id = sqlx::query_scalar!(r#"SELECT coalesce(max(id), 0) + 1 AS "id!: i64" FROM postings"#)
        .fetch_one(&mut **change)
        .await?;
    for leg in &legs {
        enter(change, id, &reference, leg).await?;
    }
    let (reason, at_s) = (posting.reason(), seconds(at));
    sqlx::query!(
        "INSERT INTO postings (id, reason, at_s) VALUES (?, ?, ?)",
        id,
        reason,
        at_s
    )
    .execute(&mut **change)
    .await?;
    Ok(Posted::Now)
}

/// Whether this very leg has been posted.
async fn was_posted(
    change: &mut Transaction<'static, Sqlite>,
    reference: &[u8],
    leg: &Leg,
) -> Result<bool, Error> {
    let row = sqlx::query!(
        "SELECT account, counterparty, amount_msat FROM entries WHERE reference = ? AND leg = ?",
        reference,
        leg.name
    )
    .fetch_optional(&mut **change)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let (account, counterparty) = leg.account.columns();
    let same = row.account == account
        && row.counterparty == counterparty
        && row.amount_msat == leg.amount_msat;
    match same {
        true => Ok(true),
        false => Err(Error::Conflict),
    }
}

async fn enter(
    change: &mut Transaction<'static, Sqlite>,
    posting: i64,
    reference: &[u8],
    leg: &Leg,
) -> Result<(), Error> {
    let (account, counterparty) = leg.account.columns();
    sqlx::query!(
        "INSERT INTO entries (posting, reference, leg, account, counterparty, amount_msat)
         VALUES (?, ?, ?, ?, ?, ?)",
        posting,
        reference,
        leg.name,
        account,
        counterparty,
        leg.amount_msat
    )
    .execute(&mut **change)
    .await?;
    Ok(())
}
