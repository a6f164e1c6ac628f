//! What follows from rejected work.
//!
//! The whole bond of its provider goes to those who have paid for other work of that provider within the last
//! [`REACH`], each in proportion to what it was charged for work that nobody had checked; if all was checked, for all
//! of it. Who has paid for the rejected work itself has had that bought again. If nobody has paid, the bond is ours:
//! the loss was.

use std::collections::BTreeMap;
use std::time::Duration;

use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey, Timestamp};
use sqlx::{Sqlite, Transaction};

use crate::ledger::entering::post;
use crate::ledger::posting::Posting;
use crate::ledger::{Error, Ledger, key, msat, seconds};

/// How old work may be that is made good.
const REACH: Duration = Duration::from_secs(30 * 86_400);

impl Ledger {
    /// Notes that work was rejected, once: its provider is told with the next payout, and its bond goes to the buyers
    /// of its other work. Answers how much of it went.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn reject(
        &self,
        provider: &PublicKey,
        award: &EventId,
        now: Timestamp,
    ) -> Result<Msat, Error> {
        let mut change = self.change().await?;
        if !note(&mut change, provider, award, now).await? {
            return Ok(Msat::ZERO);
        }
        let bond = bond(&mut change, provider).await?;
        let buyers = buyers(&mut change, provider, now).await?;
        for (buyer, amount) in shares(bond, &buyers) {
            let posting = Posting::BondForfeited {
                award: *award,
                provider: *provider,
                buyer,
                amount,
            };
            post(&mut change, &posting, now).await?;
        }
        change.commit().await?;
        Ok(bond)
    }
}

impl Ledger {
    /// Whether a provider's work was accepted, and is owed, or was rejected.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn is_answered(&self, award: &EventId) -> Result<bool, Error> {
        let award = award.as_bytes().to_vec();
        let is_answered = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT 1 FROM rejections WHERE award = ?1)
                   OR EXISTS (SELECT 1 FROM entries WHERE reference = ?1 AND leg = 'charged') AS "is!: bool""#,
            award
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(is_answered)
    }
}

async fn note(
    change: &mut Transaction<'static, Sqlite>,
    provider: &PublicKey,
    award: &EventId,
    now: Timestamp,
) -> Result<bool, Error> {
    let provider = provider.as_bytes().to_vec();
    let (award, now) = (award.as_bytes().to_vec(), seconds(now));
    let done = sqlx::query!(
        "INSERT INTO rejections (award, provider, at_s) VALUES (?, ?, ?) ON CONFLICT (award) DO NOTHING",
        award,
        provider,
        now
    )
    .execute(&mut **change)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn bond(
    change: &mut Transaction<'static, Sqlite>,
    provider: &PublicKey,
) -> Result<Msat, Error> {
    let provider = provider.as_bytes().to_vec();
    let sum = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(-amount_msat), 0) AS "sum!: i64"
           FROM entries WHERE account = 'bond' AND counterparty = ?"#,
        provider
    )
    .fetch_one(&mut **change)
    .await?;
    msat(sum)
}

/// Who has paid how much for a provider's unchecked work; if all was checked, for all.
async fn buyers(
    change: &mut Transaction<'static, Sqlite>,
    provider: &PublicKey,
    now: Timestamp,
) -> Result<BTreeMap<PublicKey, u64>, Error> {
    let (provider, since) = (provider.as_bytes().to_vec(), seconds(now - REACH));
    let rows = sqlx::query!(
        r#"SELECT buyer AS "buyer!", sum(cost_msat) AS "all!: i64",
                  coalesce(sum(cost_msat) FILTER (WHERE NOT checked), 0) AS "unchecked!: i64"
           FROM works JOIN holds ON holds.key = works.hold
                LEFT JOIN intents ON intents.key = holds.key
           WHERE provider = ? AND chance_ppm > 0 AND at_s >= ?
              AND will = 'claim' AND coalesce(state = 'settled', TRUE)
           GROUP BY buyer"#,
        provider,
        since
    )
    .fetch_all(&mut **change)
    .await?;
    let is_unchecked = rows.iter().any(|row| row.unchecked > 0);
    let mut buyers = BTreeMap::new();
    for row in rows {
        let paid = if is_unchecked { row.unchecked } else { row.all };
        buyers.insert(key(&row.buyer)?, paid.unsigned_abs());
    }
    buyers.retain(|_, paid| *paid > 0);
    Ok(buyers)
}

/// Divides a bond in proportion to what each has paid; the last one has what rounding leaves.
fn shares(bond: Msat, buyers: &BTreeMap<PublicKey, u64>) -> Vec<(Option<PublicKey>, Msat)> {
    if buyers.is_empty() {
        return vec![(None, bond)];
    }
    let all: u128 = buyers.values().map(|paid| u128::from(*paid)).sum();
    let (mut left, mut shares) = (bond.0, Vec::new());
    for (number, (buyer, paid)) in buyers.iter().enumerate() {
        // Not over the bond: what one has paid is not over what all have.
        let share = (u128::from(bond.0) * u128::from(*paid) / all) as u64;
        let share = if number + 1 == buyers.len() {
            left
        } else {
            share
        };
        left -= share;
        shares.push((Some(*buyer), Msat(share)));
    }
    shares
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::Keys;

    use super::*;

    #[test]
    fn a_bond_is_divided_by_what_was_paid_and_nothing_is_lost() {
        let keys: Vec<_> = (0..3).map(|_| Keys::generate().public_key()).collect();
        let buyers = BTreeMap::from([(keys[0], 1), (keys[1], 1), (keys[2], 5)]);
        let shares = shares(Msat(100), &buyers);
        let all: u64 = shares.iter().map(|(_, share)| share.0).sum();
        assert_eq!(all, 100);
        let of = |key| shares.iter().find(|one| one.0 == Some(key)).unwrap().1.0;
        assert!((71..=73).contains(&of(keys[2])), "{shares:?}");
        assert_eq!(super::shares(Msat(7), &BTreeMap::new()), [(None, Msat(7))]);
    }
}
