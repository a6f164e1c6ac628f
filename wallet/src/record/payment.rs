//! Payments: the intent is recorded before LDK is asked, and an invoice is paid once.

use rusqlite::{OptionalExtension, Row, Transaction};

use super::connection::Connection;
use super::{Error, Records, signed, unsigned};

/// What is to be paid.
#[derive(Clone, Debug)]
pub struct Order {
    /// The hash, hex.
    pub payment_hash: String,
    /// The invoice.
    pub invoice: String,
    /// What it says.
    pub description: Option<String>,
    /// Or the hash of what it says, hex.
    pub description_hash: Option<String>,
    /// The amount, without fees.
    pub amount_msat: u64,
    /// The highest fee to be paid on top.
    pub fee_limit_msat: u64,
    /// When the invoice expires.
    pub expires_at: Option<u64>,
    /// What the client wants to remember with it, JSON.
    pub metadata: Option<String>,
}

/// What becomes of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is recorded: pay it now, with at most this fee.
    Pay {
        /// The highest fee.
        fee_limit_msat: u64,
    },
    /// It is being paid already.
    Pending,
    /// It has been paid.
    Paid(Box<Payment>),
    /// Another connection has paid it, or is about to.
    Elsewhere,
    /// The invoice is this wallet's own.
    Own,
    /// It is more than what is left of the budget.
    OverBudget {
        /// What is left.
        left_msat: u64,
    },
}

/// How a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentState {
    /// LDK has been asked, or is about to be.
    Pending,
    /// The payee has it.
    Paid,
    /// The payee does not have it and will not get it from this attempt.
    Failed,
}

impl PaymentState {
    fn of(name: &str) -> Self {
        match name {
            "paid" => Self::Paid,
            "failed" => Self::Failed,
            _ => Self::Pending,
        }
    }
}

/// A payment as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The hash, hex.
    pub payment_hash: String,
    /// Who ordered it.
    pub connection: i64,
    /// The invoice.
    pub invoice: String,
    /// What it says.
    pub description: Option<String>,
    /// Or the hash of what it says, hex.
    pub description_hash: Option<String>,
    /// The amount, without fees.
    pub amount_msat: u64,
    /// The highest fee.
    pub fee_limit_msat: u64,
    /// The fee paid.
    pub fee_paid_msat: Option<u64>,
    /// When the last attempt began.
    pub created_at: u64,
    /// When the invoice expires.
    pub expires_at: Option<u64>,
    /// How it stands.
    pub state: PaymentState,
    /// How often it has been tried.
    pub attempts: u64,
    /// The proof of payment, hex.
    pub preimage: Option<String>,
    /// Why it failed.
    pub failure: Option<String>,
    /// When it was paid.
    pub settled_at: Option<u64>,
    /// What the client wants to remember with it, JSON.
    pub metadata: Option<String>,
}

const COLUMNS: &str = "payment_hash, connection, invoice, description, description_hash, amount_msat, fee_limit_msat, \
                       fee_paid_msat, created_at, expires_at, state, attempts, preimage, failure, settled_at, metadata";

impl Records {
    /// Records the intent to pay, unless it is paid, being paid, or more than the budget has left.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn begin_payment(&self, order: &Order, by: &Connection, now: u64) -> Result<Begun, Error> {
        self.write(|change| {
            if is_own(change, &order.payment_hash)? {
                return Ok(Begun::Own);
            }
            let before = find(change, &order.payment_hash)?;
            let attempts = match before {
                Some(payment) if payment.state == PaymentState::Failed => payment.attempts + 1,
                Some(payment) if payment.connection != by.id => return Ok(Begun::Elsewhere),
                Some(payment) if payment.state == PaymentState::Paid => {
                    return Ok(Begun::Paid(Box::new(payment)));
                }
                Some(_) => return Ok(Begun::Pending),
                None => 1,
            };
            let Some(fee_limit_msat) = affordable_fee(change, order, by, now)? else {
                let left_msat = left(change, by, now)?.unwrap_or(0);
                return Ok(Begun::OverBudget { left_msat });
            };
            insert(change, order, by.id, fee_limit_msat, attempts, now)?;
            Ok(Begun::Pay { fee_limit_msat })
        })
    }

    /// The payment for a hash.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn payment(&self, payment_hash: &str) -> Result<Option<Payment>, Error> {
        self.read(|database| find(database, payment_hash))
    }

    /// Payments by time, newest first: of one connection, or of all; those under way and those that failed too, or not.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn payments(
        &self,
        of: Option<i64>,
        from: u64,
        until: u64,
        unpaid: bool,
        most: u64,
    ) -> Result<Vec<Payment>, Error> {
        self.read(|database| {
            let query = format!(
                "SELECT {COLUMNS} FROM payments WHERE (?1 IS NULL OR connection = ?1) AND created_at BETWEEN ?2 AND ?3 \
                 AND (?4 OR state = 'paid') ORDER BY created_at DESC, payment_hash LIMIT ?5"
            );
            let mut query = database.prepare(&query)?;
            query.query_map((of, signed(from), signed(until), unpaid, signed(most)), payment)?.collect()
        })
    }

    /// Payments that nothing has come of yet.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn pending_payments(&self) -> Result<Vec<Payment>, Error> {
        self.read(|database| {
            let query = format!(
                "SELECT {COLUMNS} FROM payments WHERE state = 'pending' ORDER BY created_at"
            );
            database.prepare(&query)?.query_map([], payment)?.collect()
        })
    }

    /// Records that a payment was made; answers whether that is news.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn payment_paid(
        &self,
        payment_hash: &str,
        preimage: &str,
        fee_msat: u64,
        now: u64,
    ) -> Result<bool, Error> {
        self.write(|change| {
            // A late success outweighs a failure: the money is gone.
            let update = "UPDATE payments SET state = 'paid', preimage = ?2, fee_paid_msat = ?3, settled_at = ?4, \
                          failure = NULL WHERE payment_hash = ?1 AND state != 'paid'";
            Ok(change.execute(update, (payment_hash, preimage, signed(fee_msat), signed(now)))? > 0)
        })
    }

    /// Records that a payment that was pending has failed; answers whether that is news.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn payment_failed(&self, payment_hash: &str, failure: &str) -> Result<bool, Error> {
        self.write(|change| {
            let update = "UPDATE payments SET state = 'failed', failure = ?2 \
                          WHERE payment_hash = ?1 AND state = 'pending'";
            Ok(change.execute(update, [payment_hash, failure])? > 0)
        })
    }

    /// What a connection may still spend; nothing if it has no budget.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn budget_left(&self, by: &Connection, now: u64) -> Result<Option<u64>, Error> {
        self.read(|database| left(database, by, now))
    }
}

fn is_own(change: &Transaction<'_>, payment_hash: &str) -> rusqlite::Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM invoices WHERE payment_hash = ?1)";
    change.query_row(query, [payment_hash], |row| row.get(0))
}

fn find(database: &rusqlite::Connection, payment_hash: &str) -> rusqlite::Result<Option<Payment>> {
    let query = format!("SELECT {COLUMNS} FROM payments WHERE payment_hash = ?1");
    database
        .query_row(&query, [payment_hash], payment)
        .optional()
}

/// The highest fee that the budget has room for beside the amount; nothing if not even the amount fits.
fn affordable_fee(
    change: &Transaction<'_>,
    order: &Order,
    by: &Connection,
    now: u64,
) -> rusqlite::Result<Option<u64>> {
    Ok(match left(change, by, now)? {
        None => Some(order.fee_limit_msat),
        Some(left) => left
            .checked_sub(order.amount_msat)
            .map(|room| room.min(order.fee_limit_msat)),
    })
}

fn left(
    database: &rusqlite::Connection,
    by: &Connection,
    now: u64,
) -> rusqlite::Result<Option<u64>> {
    let Some(budget) = by.budget else {
        return Ok(None);
    };
    let since = budget
        .period
        .seconds()
        .map_or(0, |seconds| now.saturating_sub(seconds));
    // Until its fee is known, a payment counts with the highest one.
    let query = "SELECT COALESCE(SUM(amount_msat + COALESCE(fee_paid_msat, fee_limit_msat)), 0) FROM payments \
                 WHERE connection = ?1 AND (created_at > ?2 OR state = 'pending') AND state != 'failed'";
    let spent: i64 = database.query_row(query, (by.id, signed(since)), |row| row.get(0))?;
    Ok(Some(budget.msat.saturating_sub(unsigned(spent))))
}

fn insert(
    change: &Transaction<'_>,
    order: &Order,
    connection: i64,
    fee_limit_msat: u64,
    attempts: u64,
    now: u64,
) -> rusqlite::Result<()> {
    let insert = "INSERT OR REPLACE INTO payments \
        (payment_hash, connection, invoice, description, description_hash, amount_msat, fee_limit_msat, created_at, \
         expires_at, state, attempts, metadata) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'pending', ?10, ?11)";
    let row = rusqlite::params![
        order.payment_hash,
        connection,
        order.invoice,
        order.description,
        order.description_hash,
        signed(order.amount_msat),
        signed(fee_limit_msat),
        signed(now),
        order.expires_at.map(signed),
        signed(attempts),
        order.metadata,
    ];
    change.execute(insert, row).map(drop)
}

fn payment(row: &Row<'_>) -> rusqlite::Result<Payment> {
    Ok(Payment {
        payment_hash: row.get(0)?,
        connection: row.get(1)?,
        invoice: row.get(2)?,
        description: row.get(3)?,
        description_hash: row.get(4)?,
        amount_msat: unsigned(row.get(5)?),
        fee_limit_msat: unsigned(row.get(6)?),
        fee_paid_msat: row.get::<_, Option<i64>>(7)?.map(unsigned),
        created_at: unsigned(row.get(8)?),
        expires_at: row.get::<_, Option<i64>>(9)?.map(unsigned),
        state: PaymentState::of(&row.get::<_, String>(10)?),
        attempts: unsigned(row.get(11)?),
        preimage: row.get(12)?,
        failure: row.get(13)?,
        settled_at: row.get::<_, Option<i64>>(14)?.map(unsigned),
        metadata: row.get(15)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;
    use std::path::Path;

    use nostr::Keys;

    use super::*;
    use crate::record::{Budget, NewConnection, Period};

    fn order(hash: &str, amount_msat: u64) -> Order {
        Order {
            payment_hash: hash.to_owned(),
            invoice: "lnbcrt1".to_owned(),
            description: None,
            description_hash: None,
            amount_msat,
            fee_limit_msat: 100,
            expires_at: None,
            metadata: None,
        }
    }

    fn connect(records: &Records, name: &str, msat: u64) -> Connection {
        let budget = Budget {
            msat,
            period: Period::Day,
        };
        let new = NewConnection {
            name: name.to_owned(),
            client: Keys::generate().public_key(),
            methods: BTreeSet::new(),
            budget: Some(budget),
            whole_history: false,
        };
        records.connect(&new, 1).unwrap().unwrap()
    }

    #[test]
    fn a_budget_counts_what_is_pending_with_its_fee_and_survives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        let day = 86_400;
        let begin = |records: &Records, hash: &str, msat, now| {
            let by = records.connections().unwrap().remove(0);
            records.begin_payment(&order(hash, msat), &by, now).unwrap()
        };
        let records = Records::open(&path).unwrap();
        connect(&records, "one", 1_000);
        assert_eq!(
            begin(&records, "a", 500, 10),
            Begun::Pay {
                fee_limit_msat: 100
            }
        );
        assert_eq!(begin(&records, "a", 500, 11), Begun::Pending);
        drop(records);

        let records = Records::open(&path).unwrap();
        assert_eq!(
            begin(&records, "b", 401, 20),
            Begun::OverBudget { left_msat: 400 }
        );
        assert!(records.payment_paid("a", "00", 7, 21).unwrap());
        assert!(!records.payment_paid("a", "00", 7, 21).unwrap());
        // What is left of the budget bounds the fee.
        assert_eq!(
            begin(&records, "b", 490, 22),
            Begun::Pay { fee_limit_msat: 3 }
        );
        assert!(records.payment_failed("b", "no route").unwrap());
        assert_eq!(
            begin(&records, "c", 493, 23),
            Begun::Pay { fee_limit_msat: 0 }
        );
        assert!(matches!(begin(&records, "a", 500, 24), Begun::Paid(_)));
        // A day later, what was paid is forgotten, and what is pending is not.
        assert_eq!(
            begin(&records, "d", 600, 10 + day),
            Begun::OverBudget { left_msat: 507 }
        );
        assert_eq!(
            begin(&records, "d", 500, 10 + day),
            Begun::Pay { fee_limit_msat: 7 }
        );
    }

    #[test]
    fn another_connection_neither_pays_again_nor_gets_the_preimage() {
        let records = Records::open(Path::new(":memory:")).unwrap();
        let one = connect(&records, "one", 1_000);
        let two = connect(&records, "two", 1_000);
        let begin = |by| records.begin_payment(&order("a", 1), by, 5).unwrap();
        assert!(matches!(begin(&one), Begun::Pay { .. }));
        assert_eq!(begin(&two), Begun::Elsewhere);
        records.payment_paid("a", "00", 0, 6).unwrap();
        assert_eq!(begin(&two), Begun::Elsewhere);
        let listed = |unpaid| records.payments(None, 0, 9, unpaid, 9).unwrap().len();
        records.begin_payment(&order("b", 1), &two, 7).unwrap();
        assert_eq!((listed(true), listed(false)), (2, 1));
        // A failed one is free for anybody; a failure never undoes a payment.
        assert!(!records.payment_failed("a", "late").unwrap());
    }
}
