//! What follows from the end of a hold's payment.

use nostr::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::Will;
use super::holds::{by_name, charge};
use super::work::post_works;
use crate::ledger::intent::{Intent, Reason, Standing};
use crate::ledger::{Error, Ledger, seconds};
use crate::rail::{Direction, OrderKey};

/// The money of a hold is ours: charges the group and owes its work, in the same change.
pub(in crate::ledger) async fn settled(
    change: &mut Transaction<'static, Sqlite>,
    intent: &Intent,
    at: Timestamp,
) -> Result<(), Error> {
    if (intent.direction, intent.reason) != (Direction::Incoming, Reason::Hold) {
        return Ok(());
    }
    if let Some(hold) = by_name(change, &intent.key).await?
        && let Some(Will::Claim(what)) = hold.will
    {
        charge(change, &hold.due, what, at).await?;
        post_works(change, &hold.key, at).await?;
    }
    Ok(())
}

impl Ledger {
    /// The wallet holds the whole of an incoming hold; false if that was known, or it is over.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn held(&self, intent: &OrderKey, now: Timestamp) -> Result<bool, Error> {
        let (from, to) = (Standing::UnderWay, Standing::Held);
        self.change_standing(intent, from, to, now).await
    }

    /// A hold's money went back, or never came: its intent has failed, and what was accepted for it is owed all the
    /// same. False if that was known, or it is ours.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn went_back(&self, intent: &OrderKey, now: Timestamp) -> Result<bool, Error> {
        let (name, at) = (intent.as_bytes().to_vec(), seconds(now));
        let mut change = self.change().await?;
        let done = sqlx::query!(
            "UPDATE intents SET state = 'failed', changed_s = ?
             WHERE key = ? AND reason = 'hold' AND direction = 'incoming'
                AND state IN ('planned', 'under-way', 'held')",
            at,
            name
        )
        .execute(&mut *change)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        post_works(&mut change, intent, now).await?;
        change.commit().await?;
        Ok(true)
    }
}
