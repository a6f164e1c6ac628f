//! What providers are owed, and planning to pay it.

use infernet_protocol::bounds::MAX_REJECTED;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::Payout;
use nostr::{EventId, PublicKey, Timestamp};
use sqlx::{Sqlite, Transaction};

use crate::ledger::entering::post;
use crate::ledger::intent::{Due, Intent, Reason, Standing};
use crate::ledger::planning::{find, insert};
use crate::ledger::posting::Posting;
use crate::ledger::{Error, Ledger, bytes32, instant, key, msat};
use crate::rail::{Direction, OrderKey};
use crate::{Invoice, PaymentHash};

/// Results whose mean price a bond is sized by: the latest.
const RECENT: u32 = 100;

/// What we owe a provider, in running totals, and what its bond is sized by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dues {
    /// The latest award of accepted work.
    pub award: EventId,
    /// What all accepted work has come to.
    pub accepted: Msat,
    /// What of that is held back.
    pub bond: Msat,
    /// What was forfeited of the bond.
    pub forfeited: Msat,
    /// What was paid.
    pub paid: Msat,
    /// Whether a payment is on its way, or may be.
    pub is_being_paid: bool,
    /// Rejected work that the provider was not told of, the oldest first; no more than a message has room for.
    pub rejected: Vec<EventId>,
    /// When work was accepted last.
    pub last_at: Timestamp,
    /// The mean price of its latest results.
    pub mean: Msat,
    /// How probable it was that a result be checked, in millionths: the least of its latest results.
    pub chance_ppm: u32,
}

impl Dues {
    /// What is owed, bond counted in.
    pub fn unpaid(&self) -> Msat {
        let gone = self.forfeited.0.saturating_add(self.paid.0);
        Msat(self.accepted.0.saturating_sub(gone))
    }
}

impl Ledger {
    /// Providers whose account or bond is not even.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn owed(&self) -> Result<Vec<PublicKey>, Error> {
        let rows = sqlx::query_scalar!(
            r#"SELECT counterparty AS "counterparty!" FROM entries
               WHERE account IN ('payout', 'bond')
               GROUP BY counterparty HAVING sum(amount_msat) < 0 ORDER BY min(posting)"#
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| key(row)).collect()
    }

    /// What we owe a provider; nothing if no paid work of its was ever accepted.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn dues(&self, provider: &PublicKey) -> Result<Option<Dues>, Error> {
        let mut moment = self.pool.begin().await?;
        dues(&mut moment, provider).await
    }

    /// Writes down that a provider is going to be paid, and what is held back or released with that, unless there is
    /// an intent for its invoice. `payout` is what the provider has been told.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the totals have changed since, or the invoice is another's; [`Error::NotLeft`] if it is
    /// more than is owed; [`Error::Sqlite`].
    pub async fn plan_payout(
        &self,
        due: &Due,
        payout: &Payout,
        invoice: &Invoice,
        max_fee: Msat,
        now: Timestamp,
    ) -> Result<Intent, Error> {
        let mut change = self.change().await?;
        let hash = invoice.hash();
        if find(&mut change, Direction::Outgoing, &hash)
            .await?
            .is_some()
        {
            return Err(Error::Conflict);
        }
        let provider = due.counterparty;
        let known = dues(&mut change, &provider).await?;
        let known = known.filter(|dues| is_as_told(dues, payout));
        let known = known.ok_or(Error::Conflict)?;
        if invoice.amount() != payout.pay_msat || due.reason != Reason::Payout {
            return Err(Error::Conflict);
        }
        let bond = bond(&hash, provider, known.bond, payout.bond_msat);
        post(&mut change, &bond, now).await?;
        is_left(&mut change, &provider, invoice.amount()).await?;
        let intent = Intent {
            key: OrderKey::random(),
            direction: Direction::Outgoing,
            reason: Reason::Payout,
            counterparty: provider,
            award: due.award,
            amount: invoice.amount(),
            max_fee,
            invoice: Some(invoice.clone()),
            standing: Standing::Planned,
            planned_at: now,
            changed_at: now,
        };
        insert(&mut change, &intent).await?;
        told(&mut change, &hash, &payout.rejected).await?;
        change.commit().await?;
        Ok(intent)
    }
}

/// Whether nothing has changed since a provider was told this; what was accepted meanwhile is for the next time.
fn is_as_told(dues: &Dues, payout: &Payout) -> bool {
    !dues.is_being_paid
        && dues.accepted >= payout.accepted_msat
        && (dues.forfeited, dues.paid) == (payout.forfeited_msat, payout.paid_msat)
}

/// Brings a bond from one size to another.
fn bond(hash: &PaymentHash, provider: PublicKey, from: Msat, to: Msat) -> Posting {
    let hash = *hash;
    match to.checked_sub(from) {
        Some(amount) => Posting::BondKept {
            hash,
            provider,
            amount,
        },
        None => Posting::BondReleased {
            hash,
            provider,
            amount: Msat(from.0 - to.0),
        },
    }
}

/// Notes with which payment a provider was told of rejected work.
async fn told(
    change: &mut Transaction<'static, Sqlite>,
    hash: &PaymentHash,
    rejected: &[EventId],
) -> Result<(), Error> {
    let hash = hash.as_bytes().to_vec();
    for award in rejected {
        let award = award.as_bytes().to_vec();
        sqlx::query!(
            "UPDATE rejections SET payout = ? WHERE award = ?",
            hash,
            award
        )
        .execute(&mut **change)
        .await?;
    }
    Ok(())
}

async fn dues(
    change: &mut Transaction<'static, Sqlite>,
    provider: &PublicKey,
) -> Result<Option<Dues>, Error> {
    let id = provider.as_bytes().to_vec();
    let Some(last) = last(change, provider).await? else {
        return Ok(None);
    };
    let sums = sqlx::query!(
        r#"SELECT
            coalesce(sum(-amount_msat) FILTER (WHERE account = 'payout' AND leg = 'charged'), 0)
                AS "accepted!: i64",
            coalesce(sum(amount_msat) FILTER (WHERE account = 'payout' AND leg = 'credited'), 0)
                AS "paid!: i64",
            coalesce(sum(amount_msat) FILTER (WHERE account = 'bond' AND leg = 'forfeited'), 0)
                AS "forfeited!: i64",
            coalesce(sum(-amount_msat) FILTER (WHERE account = 'bond'), 0) AS "bond!: i64",
            (SELECT count(*) FROM intents
             WHERE direction = 'outgoing' AND reason = 'payout' AND intents.counterparty = ?1
                AND state IN ('planned', 'under-way')) AS "going_out!: i64"
           FROM entries WHERE account IN ('payout', 'bond') AND counterparty = ?1"#,
        id
    )
    .fetch_one(&mut **change)
    .await?;
    let (mean, chance_ppm) = recent(change, provider).await?;
    Ok(Some(Dues {
        award: last.0,
        accepted: msat(sums.accepted)?,
        bond: msat(sums.bond)?,
        forfeited: msat(sums.forfeited)?,
        paid: msat(sums.paid)?,
        is_being_paid: sums.going_out > 0,
        rejected: untold(change, provider).await?,
        last_at: last.1,
        mean,
        chance_ppm,
    }))
}

/// The latest award of a provider that is owed for, and when that was.
async fn last(
    change: &mut Transaction<'static, Sqlite>,
    provider: &PublicKey,
) -> Result<Option<(EventId, Timestamp)>, Error> {
    let provider = provider.as_bytes().to_vec();
    let row = sqlx::query!(
        "SELECT reference, at_s FROM entries JOIN postings ON postings.id = entries.posting
         WHERE account = 'payout' AND counterparty = ? AND leg = 'charged'
         ORDER BY posting DESC LIMIT 1",
        provider
    )
    .fetch_optional(&mut **change)
    .await?;
    row.map(|row| {
        let award = EventId::from_byte_array(bytes32(&row.reference)?);
        Ok((award, instant(row.at_s)))
    })
    .transpose()
}

/// The mean price of a provider's latest results, and the least chance with which one of them was checked: a few that
/// were checked for certain set no bond free. Checks of others' work are not counted.
async fn recent(
    change: &mut Transaction<'static, Sqlite>,
    provider: &PublicKey,
) -> Result<(Msat, u32), Error> {
    let provider = provider.as_bytes().to_vec();
    let rows = sqlx::query!(
        "SELECT cost_msat, chance_ppm FROM works
         WHERE provider = ? AND chance_ppm > 0 ORDER BY rowid DESC LIMIT ?",
        provider,
        RECENT
    )
    .fetch_all(&mut **change)
    .await?;
    let Some(chance) = rows.iter().map(|row| row.chance_ppm).min() else {
        return Ok((Msat::ZERO, 0));
    };
    let sum: u128 = rows
        .iter()
        .map(|row| u128::from(row.cost_msat.unsigned_abs()))
        .sum();
    let mean = u64::try_from(sum.div_ceil(rows.len() as u128));
    let chance = u32::try_from(chance);
    Ok((
        Msat(mean.map_err(|_| Error::OutOfBounds)?),
        chance.map_err(|_| Error::Damaged("a chance over one"))?,
    ))
}

/// Rejected work that a provider was not told of with a payment that came about.
async fn untold(
    change: &mut Transaction<'static, Sqlite>,
    provider: &PublicKey,
) -> Result<Vec<EventId>, Error> {
    let provider = provider.as_bytes().to_vec();
    // Fits: it is 64.
    let most = MAX_REJECTED as i64;
    let rows = sqlx::query_scalar!(
        "SELECT award FROM rejections
         WHERE provider = ? AND (payout IS NULL OR EXISTS
            (SELECT 1 FROM intents WHERE direction = 'outgoing' AND hash = payout AND state = 'failed'))
         ORDER BY rowid LIMIT ?",
        provider,
        most
    )
    .fetch_all(&mut **change)
    .await?;
    let award = |row: &Vec<u8>| Ok(EventId::from_byte_array(bytes32(row)?));
    rows.iter().map(award).collect()
}

/// Whether we owe a provider so much, bond and payments under way taken off.
pub(in crate::ledger) async fn is_left(
    change: &mut Transaction<'static, Sqlite>,
    provider: &PublicKey,
    amount: Msat,
) -> Result<(), Error> {
    let provider = provider.as_bytes().to_vec();
    let left = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(-amount_msat), 0)
                - (SELECT coalesce(sum(amount_msat), 0) FROM intents
                   WHERE direction = 'outgoing' AND reason = 'payout' AND counterparty = ?1
                      AND state IN ('planned', 'under-way')) AS "left!: i64"
           FROM entries WHERE account = 'payout' AND counterparty = ?1"#,
        provider
    )
    .fetch_one(&mut **change)
    .await?;
    let left = msat(left.max(0))?;
    match amount <= left {
        true => Ok(()),
        false => Err(Error::NotLeft { left }),
    }
}
