//! Accepted work: written down with the bill that it is in, and owed once that is over.

use infernet_protocol::money::Msat;
use nostr::{EventId, Timestamp};
use sqlx::{Sqlite, Transaction};

use super::Work;
use crate::ledger::entering::post;
use crate::ledger::posting::Posting;
use crate::ledger::{Error, amount, bytes32, key, msat, seconds};
use crate::rail::OrderKey;

/// Writes work down; again it changes nothing. What is in another bill, or was told differently, is an error.
pub(super) async fn enter(
    change: &mut Transaction<'static, Sqlite>,
    hold: &OrderKey,
    works: &[Work],
    now: Timestamp,
) -> Result<(), Error> {
    let hold = hold.as_bytes().to_vec();
    let now = seconds(now);
    for work in works.iter().filter(|work| work.cost > Msat::ZERO) {
        let award = work.award.as_bytes().to_vec();
        let provider = work.provider.as_bytes().to_vec();
        let cost = amount(work.cost)?;
        let done = sqlx::query!(
            "INSERT INTO works (award, hold, provider, cost_msat, chance_ppm, checked, at_s)
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (award) DO NOTHING",
            award,
            hold,
            provider,
            cost,
            work.chance_ppm,
            work.checked,
            now
        )
        .execute(&mut **change)
        .await?;
        if done.rows_affected() == 0 && !is_known(change, &hold, work).await? {
            return Err(Error::Conflict);
        }
    }
    Ok(())
}

async fn is_known(
    change: &mut Transaction<'static, Sqlite>,
    hold: &[u8],
    work: &Work,
) -> Result<bool, Error> {
    let award = work.award.as_bytes().to_vec();
    let row = sqlx::query!(
        "SELECT hold, provider, cost_msat FROM works WHERE award = ?",
        award
    )
    .fetch_one(&mut **change)
    .await?;
    let is_same = row.hold == hold && key(&row.provider)? == work.provider;
    Ok(is_same && msat(row.cost_msat)? == work.cost)
}

/// Posts what is owed for a bill's work; again it changes nothing.
pub(super) async fn post_works(
    change: &mut Transaction<'static, Sqlite>,
    hold: &OrderKey,
    now: Timestamp,
) -> Result<(), Error> {
    let hold = hold.as_bytes().to_vec();
    let rows = sqlx::query!(
        "SELECT award, provider, cost_msat FROM works WHERE hold = ? ORDER BY rowid",
        hold
    )
    .fetch_all(&mut **change)
    .await?;
    for row in rows {
        let posting = Posting::WorkAccepted {
            award: EventId::from_byte_array(bytes32(&row.award)?),
            provider: key(&row.provider)?,
            amount: msat(row.cost_msat)?,
        };
        post(change, &posting, now).await?;
    }
    Ok(())
}
