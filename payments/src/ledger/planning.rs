//! Writing intents down, and taking them from one standing to the next.

use infernet_protocol::event::ReceiptSide;
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey, Timestamp};
use sqlx::{Sqlite, Transaction};

use super::entering::post;
use super::intent::{Budget, Caps, Due, Intent, Planned, Reason, Standing, direction_name};
use super::journal::carried;
use super::{Error, Ledger, amount, bytes32, escrow, instant, key, msat, seconds};
use crate::rail::{Direction, OrderKey};
use crate::{Invoice, PaymentHash};

/// A row as SQLite keeps it.
struct Row {
    key: Vec<u8>,
    direction: String,
    reason: String,
    counterparty: Vec<u8>,
    award: Option<Vec<u8>>,
    amount_msat: i64,
    max_fee_msat: i64,
    invoice: Option<String>,
    state: String,
    planned_s: i64,
    changed_s: i64,
}

impl Row {
    fn read(self) -> Result<Intent, Error> {
        let award = self.award.as_deref().map(bytes32).transpose()?;
        let invoice = self.invoice.map(|text| text.parse());
        let invoice = invoice.transpose();
        Ok(Intent {
            key: OrderKey::from_bytes(bytes32(&self.key)?),
            direction: match self.direction.as_str() {
                "incoming" => Direction::Incoming,
                "outgoing" => Direction::Outgoing,
                _ => return Err(Error::Damaged("an unknown direction")),
            },
            reason: Reason::of(&self.reason)?,
            counterparty: key(&self.counterparty)?,
            award: award.map(EventId::from_byte_array),
            amount: msat(self.amount_msat)?,
            max_fee: msat(self.max_fee_msat)?,
            invoice: invoice.map_err(|_| Error::Damaged("an invoice that is none"))?,
            standing: Standing::of(&self.state)?,
            planned_at: instant(self.planned_s),
            changed_at: instant(self.changed_s),
        })
    }
}

impl Ledger {
    /// Writes down that an invoice is to be paid, unless there is an intent for it.
    ///
    /// # Errors
    /// [`Error::OverBudget`]; [`Error::NotLeft`] for a refund; [`Error::Conflict`] if that invoice was for somebody
    /// else; [`Error::Sqlite`].
    pub async fn plan_payment(
        &self,
        due: &Due,
        invoice: &Invoice,
        max_fee: Msat,
        budget: Option<Budget>,
        now: Timestamp,
    ) -> Result<Planned, Error> {
        let mut change = self.change().await?;
        let hash = invoice.hash();
        if let Some(before) = find(&mut change, Direction::Outgoing, &hash).await? {
            let is_same = (before.reason, before.counterparty) == (due.reason, due.counterparty);
            return match is_same {
                true => Ok(Planned::Before(before)),
                // Somebody shows us an invoice that we were shown, and may have paid, for somebody else.
                false => Err(Error::Conflict),
            };
        }
        check_left(&mut change, due, invoice.amount()).await?;
        if let Some(budget) = budget {
            check(&mut change, budget, invoice.amount()).await?;
        }
        let intent = Intent {
            key: OrderKey::random(),
            direction: Direction::Outgoing,
            reason: due.reason,
            counterparty: due.counterparty,
            award: due.award,
            amount: invoice.amount(),
            max_fee,
            invoice: Some(invoice.clone()),
            standing: Standing::Planned,
            planned_at: now,
            changed_at: now,
        };
        insert(&mut change, &intent).await?;
        change.commit().await?;
        Ok(Planned::Now(intent))
    }

    /// Writes down that a payment is to be asked for.
    ///
    /// # Errors
    /// [`Error::TooManyInvoices`]; [`Error::Sqlite`].
    pub async fn plan_invoice(
        &self,
        due: &Due,
        amount: Msat,
        caps: Caps,
        now: Timestamp,
    ) -> Result<Intent, Error> {
        let mut change = self.change().await?;
        check_caps(&mut change, &due.counterparty, caps).await?;
        let intent = Intent {
            key: OrderKey::random(),
            direction: Direction::Incoming,
            reason: due.reason,
            counterparty: due.counterparty,
            award: due.award,
            amount,
            max_fee: Msat::ZERO,
            invoice: None,
            standing: Standing::Planned,
            planned_at: now,
            changed_at: now,
        };
        insert(&mut change, &intent).await?;
        change.commit().await?;
        Ok(intent)
    }

    /// Writes down the invoice that was made for an intent: from here on it may be paid. False if the intent was
    /// given up meanwhile, or that invoice is another intent's.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn invoiced(
        &self,
        intent: &OrderKey,
        invoice: &Invoice,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let (key, hash) = (intent.as_bytes().to_vec(), invoice.hash());
        let (hash, text) = (hash.as_bytes().to_vec(), invoice.as_str());
        let (expires_s, now) = (seconds(invoice.expires_at()), seconds(now));
        let done = sqlx::query!(
            "UPDATE intents SET hash = ?, invoice = ?, expires_s = ?, state = 'under-way', changed_s = ?
             WHERE key = ? AND state = 'planned' AND hash IS NULL
                AND NOT EXISTS (SELECT 1 FROM intents WHERE direction = 'incoming' AND hash = ?)",
            hash,
            text,
            expires_s,
            now,
            key,
            hash
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Changes an intent's standing, if it is what we think it is; false if it is not.
    ///
    /// # Errors
    /// [`Error::Sqlite`], also for a change that makes no sense.
    pub async fn change_standing(
        &self,
        intent: &OrderKey,
        from: Standing,
        to: Standing,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let (key, now) = (intent.as_bytes().to_vec(), seconds(now));
        let (from, to) = (from.name(), to.name());
        let done = sqlx::query!(
            "UPDATE intents SET state = ?, changed_s = ? WHERE key = ? AND state = ?",
            to,
            now,
            key,
            from
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// An intent is done: changes its standing and posts, both or neither; false if that was done before.
    ///
    /// # Errors
    /// [`Error::Conflict`]; [`Error::Sqlite`].
    pub async fn settle(
        &self,
        intent: &Intent,
        amount: Msat,
        fee: Msat,
        at: Timestamp,
    ) -> Result<bool, Error> {
        let hash = intent.hash();
        let hash = hash.ok_or(Error::Damaged("an intent that was never asked for"))?;
        let (key, now) = (intent.key.as_bytes().to_vec(), seconds(at));
        let mut change = self.change().await?;
        let done = sqlx::query!(
            "UPDATE intents SET state = 'settled', changed_s = ?
             WHERE key = ? AND state IN ('under-way', 'held', 'failed')",
            now,
            key
        )
        .execute(&mut *change)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        post(&mut change, &intent.posting(hash, amount, fee), at).await?;
        escrow::settled(&mut change, intent, at).await?;
        change.commit().await?;
        Ok(true)
    }

    /// The intents that are planned, under way or held, the oldest first.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn open_intents(&self) -> Result<Vec<Intent>, Error> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT key, direction, reason, counterparty, award, amount_msat, max_fee_msat,
                    invoice, state, planned_s, changed_s
             FROM intents WHERE state IN ('planned', 'under-way', 'held') ORDER BY planned_s, rowid"
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// What was to be paid or asked for during an award, however it stands now, the oldest first.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn intents_about(&self, award: &EventId) -> Result<Vec<Intent>, Error> {
        let award = award.as_bytes().to_vec();
        let rows = sqlx::query_as!(
            Row,
            "SELECT key, direction, reason, counterparty, award, amount_msat, max_fee_msat,
                    invoice, state, planned_s, changed_s
             FROM intents WHERE award = ? ORDER BY planned_s, rowid",
            award
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// The intent for a payment, if there is one.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn intent(
        &self,
        direction: Direction,
        hash: &PaymentHash,
    ) -> Result<Option<Intent>, Error> {
        let mut change = self.pool.begin().await?;
        find(&mut change, direction, hash).await
    }

    /// How many invoices wait to be paid: by one counterparty, and in all.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn unpaid_invoices(&self, of: &PublicKey) -> Result<(u64, u64), Error> {
        let mut change = self.pool.begin().await?;
        unpaid_invoices(&mut change, of).await
    }

    /// What was paid out, or is under way, since then, with the routing of what is done.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn paid_since(&self, since: Timestamp) -> Result<Msat, Error> {
        let mut change = self.pool.begin().await?;
        paid_since(&mut change, since).await
    }
}

/// What is planned or under way with a counterparty, the oldest first.
pub(super) async fn open_with(
    change: &mut Transaction<'static, Sqlite>,
    counterparty: &PublicKey,
) -> Result<Vec<Intent>, Error> {
    let counterparty = counterparty.as_bytes().to_vec();
    let rows = sqlx::query_as!(
        Row,
        "SELECT key, direction, reason, counterparty, award, amount_msat, max_fee_msat,
                invoice, state, planned_s, changed_s
         FROM intents WHERE counterparty = ? AND state IN ('planned', 'under-way')
         ORDER BY planned_s, rowid",
        counterparty
    )
    .fetch_all(&mut **change)
    .await?;
    rows.into_iter().map(Row::read).collect()
}

async fn unpaid_invoices(
    change: &mut Transaction<'static, Sqlite>,
    of: &PublicKey,
) -> Result<(u64, u64), Error> {
    let of = of.as_bytes().to_vec();
    let row = sqlx::query!(
        r#"SELECT count(*) AS "all!: i64",
                      coalesce(sum(counterparty = ?), 0) AS "theirs!: i64"
               FROM intents WHERE direction = 'incoming' AND state IN ('planned', 'under-way')"#,
        of
    )
    .fetch_one(&mut **change)
    .await?;
    Ok((row.theirs.unsigned_abs(), row.all.unsigned_abs()))
}

async fn paid_since(
    change: &mut Transaction<'static, Sqlite>,
    since: Timestamp,
) -> Result<Msat, Error> {
    let since = seconds(since);
    let spent = sqlx::query_scalar!(
        r#"SELECT coalesce(sum(amount_msat), 0)
                + (SELECT coalesce(sum(amount_msat), 0)
                   FROM entries JOIN postings ON postings.id = entries.posting
                   WHERE account = 'fees' AND at_s >= ?1) AS "spent!: i64"
           FROM intents WHERE direction = 'outgoing' AND planned_s >= ?1 AND state <> 'failed'"#,
        since
    )
    .fetch_one(&mut **change)
    .await?;
    msat(spent)
}

/// Whether one more invoice may wait for this one to pay it.
pub(super) async fn check_caps(
    change: &mut Transaction<'static, Sqlite>,
    of: &PublicKey,
    caps: Caps,
) -> Result<(), Error> {
    let (theirs, all) = unpaid_invoices(change, of).await?;
    match theirs >= caps.for_one || all >= caps.in_all {
        true => Err(Error::TooManyInvoices { theirs, all }),
        false => Ok(()),
    }
}

/// Whether we owe so much, where what is due is a debt of ours.
async fn check_left(
    change: &mut Transaction<'static, Sqlite>,
    due: &Due,
    amount: Msat,
) -> Result<(), Error> {
    match due.reason {
        Reason::Refund => is_left(change, &due.counterparty, amount).await,
        Reason::Credit => escrow::is_credit_left(change, &due.counterparty, amount).await,
        Reason::Payout => escrow::is_payout_left(change, &due.counterparty, amount).await,
        Reason::TopUp | Reason::Hold => Ok(()),
    }
}

/// Whether so much can be paid back.
async fn is_left(
    change: &mut Transaction<'static, Sqlite>,
    buyer: &PublicKey,
    amount: Msat,
) -> Result<(), Error> {
    let tab = carried(change, buyer, ReceiptSide::Provider).await?;
    let left = Msat(tab.paid.0.saturating_sub(tab.due.0));
    match amount <= left {
        true => Ok(()),
        false => Err(Error::NotLeft { left }),
    }
}

async fn check(
    change: &mut Transaction<'static, Sqlite>,
    budget: Budget,
    more: Msat,
) -> Result<(), Error> {
    let spent = paid_since(change, budget.since).await?;
    let would_be = spent.checked_add(more).ok_or(Error::OutOfBounds)?;
    match would_be <= budget.most {
        true => Ok(()),
        false => Err(Error::OverBudget {
            most: budget.most,
            spent,
        }),
    }
}

/// The intent for a payment.
pub(super) async fn find(
    change: &mut Transaction<'static, Sqlite>,
    direction: Direction,
    hash: &PaymentHash,
) -> Result<Option<Intent>, Error> {
    let (direction, hash) = (direction_name(direction), hash.as_bytes().to_vec());
    let row = sqlx::query_as!(
        Row,
        "SELECT key, direction, reason, counterparty, award, amount_msat, max_fee_msat,
                invoice, state, planned_s, changed_s
         FROM intents WHERE direction = ? AND hash = ?",
        direction,
        hash
    )
    .fetch_optional(&mut **change)
    .await?;
    row.map(Row::read).transpose()
}

/// The intent of this name.
pub(super) async fn by_key(
    change: &mut Transaction<'static, Sqlite>,
    name: &OrderKey,
) -> Result<Option<Intent>, Error> {
    let name = name.as_bytes().to_vec();
    let row = sqlx::query_as!(
        Row,
        "SELECT key, direction, reason, counterparty, award, amount_msat, max_fee_msat,
                invoice, state, planned_s, changed_s
         FROM intents WHERE key = ?",
        name
    )
    .fetch_optional(&mut **change)
    .await?;
    row.map(Row::read).transpose()
}

pub(super) async fn insert(
    change: &mut Transaction<'static, Sqlite>,
    intent: &Intent,
) -> Result<(), Error> {
    let key = intent.key.as_bytes().to_vec();
    let direction = direction_name(intent.direction);
    let reason = intent.reason.name();
    let counterparty = intent.counterparty.as_bytes().to_vec();
    let award = intent.award.map(|award| award.as_bytes().to_vec());
    let (what, max_fee) = (amount(intent.amount)?, amount(intent.max_fee)?);
    let hash = intent.hash().map(|hash| hash.as_bytes().to_vec());
    let invoice = intent.invoice.as_ref().map(Invoice::as_str);
    let expires_s = intent.invoice.as_ref().map(|one| seconds(one.expires_at()));
    let state = intent.standing.name();
    let now = seconds(intent.planned_at);
    sqlx::query!(
        "INSERT INTO intents (key, direction, reason, counterparty, award, amount_msat, max_fee_msat,
                              hash, invoice, expires_s, state, planned_s, changed_s)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        key,
        direction,
        reason,
        counterparty,
        award,
        what,
        max_fee,
        hash,
        invoice,
        expires_s,
        state,
        now,
        now
    )
    .execute(&mut **change)
    .await?;
    Ok(())
}
