//! Who was there, and for how much of the time that we watched.

use std::collections::HashSet;
use std::time::Duration;

use nostr::{PublicKey, Timestamp};
use sqlx::SqlitePool;

use super::{Error, seconds};

const DAY_S: u64 = 24 * 3_600;

/// Days that count.
const DAYS: u64 = 30;

/// Nothing is said before it was watched for this long.
const LEAST_WATCHED_S: i64 = 3_600;

pub(super) struct Presence<'a>(pub &'a SqlitePool);

impl Presence<'_> {
    /// Notes the while that has just passed: all who were ever seen in the last days
    /// were watched, and some of them were there.
    pub async fn note(
        &self,
        there: &HashSet<PublicKey>,
        since: Duration,
        now: Timestamp,
    ) -> Result<(), Error> {
        let day = today(now);
        let passed = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let mut transaction = self.0.begin().await?;
        sqlx::query("DELETE FROM presence WHERE day <= ?")
            .bind(day - days())
            .execute(&mut *transaction)
            .await?;
        // Those who are not there were watched too.
        sqlx::query(
            "INSERT INTO presence (provider, day, watched_s, there_s)
             SELECT DISTINCT provider, ?1, ?2, 0 FROM presence WHERE true
             ON CONFLICT (provider, day) DO UPDATE SET watched_s = watched_s + ?2",
        )
        .bind(day)
        .bind(passed)
        .execute(&mut *transaction)
        .await?;
        for provider in there {
            sqlx::query(
                "INSERT INTO presence (provider, day, watched_s, there_s) VALUES (?1, ?2, ?3, ?3)
                 ON CONFLICT (provider, day) DO UPDATE SET there_s = there_s + ?3",
            )
            .bind(provider.as_bytes().as_slice())
            .bind(day)
            .bind(passed)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The share of the time, from 0 to 1; nothing where it was not watched for long.
    pub async fn uptime(&self, provider: &PublicKey, now: Timestamp) -> Result<Option<f64>, Error> {
        let (watched, there): (i64, i64) = sqlx::query_as(
            "SELECT coalesce(sum(watched_s), 0), coalesce(sum(there_s), 0) FROM presence
             WHERE provider = ? AND day > ?",
        )
        .bind(provider.as_bytes().as_slice())
        .bind(today(now) - days())
        .fetch_one(self.0)
        .await?;
        Ok((watched >= LEAST_WATCHED_S).then(|| there as f64 / watched as f64))
    }
}

fn today(now: Timestamp) -> i64 {
    seconds(now) / DAY_S as i64
}

const fn days() -> i64 {
    DAYS as i64
}
