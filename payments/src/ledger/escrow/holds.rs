//! Planning holds and deciding over them.

use infernet_protocol::batch::Charge;
use infernet_protocol::money::Msat;
use nostr::{EventId, Timestamp};
use sqlx::{Sqlite, Transaction};

use super::credit::free;
use super::work::{enter, post_works};
use super::{Bill, Hold, HoldDue, PlannedHold, Will, Work};
use crate::Preimage;
use crate::ledger::entering::post;
use crate::ledger::intent::{Caps, Intent, Reason, Standing};
use crate::ledger::planning::{by_key, check_caps, insert};
use crate::ledger::posting::{GroupName, Posting};
use crate::ledger::{Error, Ledger, amount, bytes32, instant, key, msat, seconds};
use crate::rail::{Direction, OrderKey};

/// No invoice asks for less, if the group may cost as much: not every channel carries it.
const LEAST: Msat = Msat(1_000);

/// A row as SQLite keeps it.
struct Row {
    key: Vec<u8>,
    batch: Vec<u8>,
    part: i64,
    buyer: Vec<u8>,
    most_msat: i64,
    reserved_msat: i64,
    preimage: Vec<u8>,
    until_s: i64,
    will: Option<String>,
    work_msat: Option<i64>,
    checking_msat: Option<i64>,
    fee_msat: Option<i64>,
}

impl Row {
    async fn read(self, change: &mut Transaction<'static, Sqlite>) -> Result<Hold, Error> {
        let name = OrderKey::from_bytes(bytes32(&self.key)?);
        let group = u32::try_from(self.part);
        Ok(Hold {
            key: name,
            due: HoldDue {
                order: EventId::from_byte_array(bytes32(&self.batch)?),
                group: group.map_err(|_| Error::Damaged("a group beyond all numbers"))?,
                buyer: key(&self.buyer)?,
                most: msat(self.most_msat)?,
                until: instant(self.until_s),
            },
            reserved: msat(self.reserved_msat)?,
            preimage: Preimage::from_bytes(bytes32(&self.preimage)?),
            will: self.will()?,
            intent: by_key(change, &name).await?,
        })
    }

    fn will(&self) -> Result<Option<Will>, Error> {
        let charged = |part: Option<i64>| msat(part.unwrap_or_default());
        match self.will.as_deref() {
            None => Ok(None),
            Some("cancel") => Ok(Some(Will::Cancel)),
            Some("claim") => Ok(Some(Will::Claim(Charge {
                work_msat: charged(self.work_msat)?,
                checking_msat: charged(self.checking_msat)?,
                fee_msat: charged(self.fee_msat)?,
            }))),
            Some(_) => Err(Error::Damaged("an unknown will")),
        }
    }
}

impl Ledger {
    /// Writes down that money is to be held for a group, with the preimage that takes it, unless there is a hold for
    /// it that has not failed. Where the buyer's credit covers all, it is held from then on.
    ///
    /// # Errors
    /// [`Error::TooManyInvoices`]; [`Error::Conflict`] if there is one of another buyer; [`Error::Sqlite`].
    pub async fn plan_hold(
        &self,
        due: &HoldDue,
        preimage: &Preimage,
        caps: Caps,
        now: Timestamp,
    ) -> Result<PlannedHold, Error> {
        let mut change = self.change().await?;
        match current(&mut change, &due.order, due.group).await? {
            Some(before) if before.due.buyer != due.buyer => return Err(Error::Conflict),
            Some(before) if before.standing() != Standing::Failed => {
                return Ok(PlannedHold::Before(before));
            }
            Some(_) | None => {}
        }
        let credit = free(&mut change, &due.buyer).await?;
        let ask = to_ask(due.most, credit);
        let mut hold = Hold {
            key: OrderKey::random(),
            due: *due,
            reserved: Msat(due.most.0 - ask.0),
            preimage: *preimage,
            will: None,
            intent: None,
        };
        if ask != Msat::ZERO {
            check_caps(&mut change, &due.buyer, caps).await?;
            let intent = intent(&hold, ask, now);
            insert(&mut change, &intent).await?;
            hold.intent = Some(intent);
        }
        put(&mut change, &hold).await?;
        change.commit().await?;
        Ok(PlannedHold::Now(hold))
    }

    /// The latest hold for a group.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn hold(&self, order: &EventId, group: u32) -> Result<Option<Hold>, Error> {
        let mut moment = self.pool.begin().await?;
        current(&mut moment, order, group).await
    }

    /// The hold of an incoming intent.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn hold_of(&self, intent: &OrderKey) -> Result<Option<Hold>, Error> {
        let mut moment = self.pool.begin().await?;
        by_name(&mut moment, intent).await
    }

    /// The holds that something may still come of, the oldest first.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn open_holds(&self) -> Result<Vec<Hold>, Error> {
        let mut moment = self.pool.begin().await?;
        let rows = sqlx::query_as!(
            Row,
            "SELECT holds.key, batch, part, buyer, most_msat, reserved_msat, preimage, until_s, will,
                    work_msat, checking_msat, fee_msat
             FROM holds LEFT JOIN intents ON intents.key = holds.key
             WHERE coalesce(state IN ('planned', 'under-way', 'held'), will IS NULL)
             ORDER BY holds.rowid"
        )
        .fetch_all(&mut *moment)
        .await?;
        read_all(&mut moment, rows).await
    }

    /// Decides to take what is held for a group, and writes down what is then charged and owed. Again, it changes
    /// nothing. What the credit covers is charged at once. False if it is not held, or is to be given back.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] for a charge over what was held for; [`Error::Conflict`] if work in it is in another
    /// bill; [`Error::Sqlite`].
    pub async fn will_claim(
        &self,
        hold: &OrderKey,
        bill: &Bill,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut change = self.change().await?;
        let hold = known(&mut change, hold).await?;
        match (hold.will, hold.standing()) {
            (Some(Will::Claim(_)), _) => return Ok(true),
            (None, Standing::Held) => {}
            _ => return Ok(false),
        }
        if bill.charge.total() > hold.due.most {
            return Err(Error::OutOfBounds);
        }
        claim(&mut change, &hold.key, bill.charge).await?;
        enter(&mut change, &hold.key, &bill.works, now).await?;
        if hold.intent.is_none() {
            charge(&mut change, &hold.due, bill.charge, now).await?;
            post_works(&mut change, &hold.key, now).await?;
        }
        change.commit().await?;
        Ok(true)
    }

    /// Decides to give back what is held for a group, or to have it never paid. Work that was accepted is owed all the
    /// same, also what is told later. Again, it changes nothing. False if it is to be taken.
    ///
    /// # Errors
    /// [`Error::Conflict`] if work in it is in another bill; [`Error::Sqlite`].
    pub async fn will_cancel(
        &self,
        hold: &OrderKey,
        works: &[Work],
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut change = self.change().await?;
        let hold = known(&mut change, hold).await?;
        match hold.will {
            Some(Will::Claim(_)) => return Ok(false),
            Some(Will::Cancel) => {}
            None => cancel(&mut change, &hold.key).await?,
        }
        enter(&mut change, &hold.key, works, now).await?;
        post_works(&mut change, &hold.key, now).await?;
        change.commit().await?;
        Ok(true)
    }
}

/// How much to have held for what may cost so much, where there is so much credit.
fn to_ask(most: Msat, credit: Msat) -> Msat {
    match most.checked_sub(credit) {
        None | Some(Msat::ZERO) => Msat::ZERO,
        Some(rest) => rest.max(LEAST.min(most)),
    }
}

fn intent(hold: &Hold, amount: Msat, now: Timestamp) -> Intent {
    Intent {
        key: hold.key,
        direction: Direction::Incoming,
        reason: Reason::Hold,
        counterparty: hold.due.buyer,
        award: None,
        amount,
        max_fee: Msat::ZERO,
        invoice: None,
        standing: Standing::Planned,
        planned_at: now,
        changed_at: now,
    }
}

/// Charges a group to its buyer's credit.
pub(super) async fn charge(
    change: &mut Transaction<'static, Sqlite>,
    due: &HoldDue,
    charge: Charge,
    now: Timestamp,
) -> Result<(), Error> {
    let posting = Posting::GroupEarned {
        group: GroupName::new(&due.order, due.group),
        buyer: due.buyer,
        charge,
    };
    post(change, &posting, now).await.map(drop)
}

async fn claim(
    change: &mut Transaction<'static, Sqlite>,
    hold: &OrderKey,
    charge: Charge,
) -> Result<(), Error> {
    let name = hold.as_bytes().to_vec();
    let work = amount(charge.work_msat)?;
    let checking = amount(charge.checking_msat)?;
    let fee = amount(charge.fee_msat)?;
    sqlx::query!(
        "UPDATE holds SET will = 'claim', work_msat = ?, checking_msat = ?, fee_msat = ? WHERE key = ?",
        work,
        checking,
        fee,
        name
    )
    .execute(&mut **change)
    .await?;
    Ok(())
}

async fn cancel(change: &mut Transaction<'static, Sqlite>, hold: &OrderKey) -> Result<(), Error> {
    let name = hold.as_bytes().to_vec();
    sqlx::query!("UPDATE holds SET will = 'cancel' WHERE key = ?", name)
        .execute(&mut **change)
        .await?;
    Ok(())
}

async fn put(change: &mut Transaction<'static, Sqlite>, hold: &Hold) -> Result<(), Error> {
    let name = hold.key.as_bytes().to_vec();
    let preimage = hold.preimage.as_bytes().to_vec();
    let (batch, part) = (hold.due.order.as_bytes().to_vec(), hold.due.group);
    let buyer = hold.due.buyer.as_bytes().to_vec();
    let (most, reserved) = (amount(hold.due.most)?, amount(hold.reserved)?);
    let until = seconds(hold.due.until);
    sqlx::query!(
        "INSERT INTO holds (key, batch, part, buyer, most_msat, reserved_msat, preimage, until_s)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        name,
        batch,
        part,
        buyer,
        most,
        reserved,
        preimage,
        until
    )
    .execute(&mut **change)
    .await?;
    Ok(())
}

async fn current(
    change: &mut Transaction<'static, Sqlite>,
    order: &EventId,
    group: u32,
) -> Result<Option<Hold>, Error> {
    let batch = order.as_bytes().to_vec();
    let rows = sqlx::query_as!(
        Row,
        "SELECT key, batch, part, buyer, most_msat, reserved_msat, preimage, until_s, will,
                work_msat, checking_msat, fee_msat
         FROM holds WHERE batch = ? AND part = ? ORDER BY rowid DESC LIMIT 1",
        batch,
        group
    )
    .fetch_all(&mut **change)
    .await?;
    Ok(read_all(change, rows).await?.pop())
}

async fn known(change: &mut Transaction<'static, Sqlite>, hold: &OrderKey) -> Result<Hold, Error> {
    let hold = by_name(change, hold).await?;
    hold.ok_or(Error::Damaged("a hold that is gone"))
}

pub(super) async fn by_name(
    change: &mut Transaction<'static, Sqlite>,
    hold: &OrderKey,
) -> Result<Option<Hold>, Error> {
    let name = hold.as_bytes().to_vec();
    let rows = sqlx::query_as!(
        Row,
        "SELECT key, batch, part, buyer, most_msat, reserved_msat, preimage, until_s, will,
                work_msat, checking_msat, fee_msat
         FROM holds WHERE key = ?",
        name
    )
    .fetch_all(&mut **change)
    .await?;
    Ok(read_all(change, rows).await?.pop())
}

async fn read_all(
    change: &mut Transaction<'static, Sqlite>,
    rows: Vec<Row>,
) -> Result<Vec<Hold>, Error> {
    let mut holds = Vec::with_capacity(rows.len());
    for row in rows {
        holds.push(row.read(change).await?);
    }
    Ok(holds)
}
