//! Invoices, and the holds among them: what may come, what has come, what became of it.

use rusqlite::{OptionalExtension, Row};

use super::{Error, Records, signed, unsigned};

/// An invoice to be recorded.
#[derive(Clone, Debug)]
pub struct NewInvoice {
    /// The hash, hex.
    pub payment_hash: String,
    /// Who asked for it; nobody for what comes without an invoice.
    pub connection: Option<i64>,
    /// Whether the payment is held until somebody settles it.
    pub hold: bool,
    /// The invoice.
    pub invoice: Option<String>,
    /// What it says.
    pub description: Option<String>,
    /// Or the hash of what it says, hex.
    pub description_hash: Option<String>,
    /// The amount.
    pub amount_msat: u64,
    /// When it was made.
    pub created_at: u64,
    /// When it expires.
    pub expires_at: Option<u64>,
    /// What the client wants to remember with it, JSON.
    pub metadata: Option<String>,
}

/// How an invoice stands. Whether an open one has expired is a question of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvoiceState {
    /// Nothing has come.
    Open,
    /// The payment is held: it is neither ours nor the payer's.
    Accepted,
    /// We have the preimage and claim; it is not income before LDK says so.
    Settling,
    /// It is ours.
    Settled,
    /// It went back, or will be refused.
    Cancelled,
}

impl InvoiceState {
    /// Its name in the records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Accepted => "accepted",
            Self::Settling => "settling",
            Self::Settled => "settled",
            Self::Cancelled => "cancelled",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "accepted" => Self::Accepted,
            "settling" => Self::Settling,
            "settled" => Self::Settled,
            "cancelled" => Self::Cancelled,
            _ => Self::Open,
        }
    }
}

/// An invoice as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// The hash, hex.
    pub payment_hash: String,
    /// Who asked for it.
    pub connection: Option<i64>,
    /// Whether the payment is held.
    pub hold: bool,
    /// The invoice.
    pub invoice: Option<String>,
    /// What it says.
    pub description: Option<String>,
    /// Or the hash of what it says, hex.
    pub description_hash: Option<String>,
    /// The amount asked for.
    pub amount_msat: u64,
    /// When it was made.
    pub created_at: u64,
    /// When it expires.
    pub expires_at: Option<u64>,
    /// How it stands.
    pub state: InvoiceState,
    /// The preimage, hex, once it may be known.
    pub preimage: Option<String>,
    /// What has come, or is held.
    pub received_msat: Option<u64>,
    /// The block at which LDK fails a held payment.
    pub claim_deadline: Option<u32>,
    /// When it became ours.
    pub settled_at: Option<u64>,
    /// What the client wants to remember with it, JSON.
    pub metadata: Option<String>,
}

const COLUMNS: &str = "payment_hash, connection, hold, invoice, description, description_hash, amount_msat, created_at, \
                       expires_at, state, preimage, received_msat, claim_deadline, settled_at, metadata";

impl Records {
    /// Records an invoice; answers whether its hash is new to this wallet.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn add_invoice(&self, new: &NewInvoice) -> Result<bool, Error> {
        self.write(|change| {
            let insert = "INSERT OR IGNORE INTO invoices \
                (payment_hash, connection, hold, invoice, description, description_hash, amount_msat, created_at, \
                 expires_at, state, metadata) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'open', ?10 \
                 WHERE NOT EXISTS (SELECT 1 FROM payments WHERE payment_hash = ?1)";
            let row = rusqlite::params![
                new.payment_hash,
                new.connection,
                new.hold,
                new.invoice,
                new.description,
                new.description_hash,
                signed(new.amount_msat),
                signed(new.created_at),
                new.expires_at.map(signed),
                new.metadata,
            ];
            Ok(change.execute(insert, row)? > 0)
        })
    }

    /// Gives a recorded hash its invoice.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_invoice(
        &self,
        payment_hash: &str,
        invoice: &str,
        expires_at: Option<u64>,
    ) -> Result<(), Error> {
        self.write(|change| {
            let update =
                "UPDATE invoices SET invoice = ?2, expires_at = ?3 WHERE payment_hash = ?1";
            change
                .execute(update, (payment_hash, invoice, expires_at.map(signed)))
                .map(drop)
        })
    }

    /// The invoice for a hash.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn invoice(&self, payment_hash: &str) -> Result<Option<Invoice>, Error> {
        self.read(|database| {
            let query = format!("SELECT {COLUMNS} FROM invoices WHERE payment_hash = ?1");
            database
                .query_row(&query, [payment_hash], invoice)
                .optional()
        })
    }

    /// Invoices by time, newest first: of one connection, or of all; `unpaid` ones too, or not.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn invoices(
        &self,
        of: Option<i64>,
        from: u64,
        until: u64,
        unpaid: bool,
        most: u64,
    ) -> Result<Vec<Invoice>, Error> {
        self.read(|database| {
            let query = format!(
                "SELECT {COLUMNS} FROM invoices WHERE (?1 IS NULL OR connection = ?1) AND created_at BETWEEN ?2 AND ?3 \
                 AND (?4 OR state = 'settled') ORDER BY created_at DESC, payment_hash LIMIT ?5"
            );
            let mut query = database.prepare(&query)?;
            query.query_map((of, signed(from), signed(until), unpaid, signed(most)), invoice)?.collect()
        })
    }

    /// All invoices that stand so.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn invoices_in(&self, state: InvoiceState) -> Result<Vec<Invoice>, Error> {
        self.read(|database| {
            let query =
                format!("SELECT {COLUMNS} FROM invoices WHERE state = ?1 ORDER BY created_at");
            database
                .prepare(&query)?
                .query_map([state.name()], invoice)?
                .collect()
        })
    }

    /// How many of a connection's invoices are open and not expired.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open_invoices(&self, of: i64, now: u64) -> Result<u64, Error> {
        self.read(|database| {
            let query = "SELECT COUNT(*) FROM invoices \
                         WHERE connection = ?1 AND state = 'open' AND COALESCE(expires_at, ?2) >= ?2";
            database.query_row(query, (of, signed(now)), |row| row.get(0)).map(unsigned)
        })
    }

    /// Records that a payment is held; answers whether that is news. One that was held before keeps its state and
    /// learns its deadline.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn hold_accepted(
        &self,
        payment_hash: &str,
        msat: u64,
        deadline: Option<u32>,
    ) -> Result<bool, Error> {
        self.write(|change| {
            let known = "UPDATE invoices SET received_msat = ?2, claim_deadline = ?3 \
                         WHERE payment_hash = ?1 AND state IN ('accepted', 'settling')";
            change.execute(known, (payment_hash, signed(msat), deadline))?;
            let update = "UPDATE invoices SET state = 'accepted', received_msat = ?2, claim_deadline = ?3 \
                          WHERE payment_hash = ?1 AND state = 'open'";
            Ok(change.execute(update, (payment_hash, signed(msat), deadline))? > 0)
        })
    }

    /// Records the preimage of a hold that is to be claimed; answers whether it was held.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn hold_settling(&self, payment_hash: &str, preimage: &str) -> Result<bool, Error> {
        self.write(|change| {
            let update = "UPDATE invoices SET state = 'settling', preimage = ?2 \
                          WHERE payment_hash = ?1 AND state = 'accepted'";
            Ok(change.execute(update, [payment_hash, preimage])? > 0)
        })
    }

    /// Records that a hold is to go back, or not to be accepted; answers whether it could still be.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn hold_cancelled(&self, payment_hash: &str) -> Result<bool, Error> {
        self.write(|change| {
            let update = "UPDATE invoices SET state = 'cancelled' \
                          WHERE payment_hash = ?1 AND hold AND state IN ('open', 'accepted')";
            Ok(change.execute(update, [payment_hash])? > 0)
        })
    }

    /// Records that a claim came to nothing; answers whether that is news. Should LDK say otherwise later, it is
    /// [received](Self::received) all the same.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn hold_lost(&self, payment_hash: &str) -> Result<bool, Error> {
        self.write(|change| {
            let update = "UPDATE invoices SET state = 'cancelled' \
                          WHERE payment_hash = ?1 AND state = 'settling'";
            Ok(change.execute(update, [payment_hash])? > 0)
        })
    }

    /// Records that money is ours; answers whether that is news.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn received(
        &self,
        payment_hash: &str,
        msat: u64,
        preimage: Option<&str>,
        now: u64,
    ) -> Result<bool, Error> {
        self.write(|change| {
            let update = "UPDATE invoices SET state = 'settled', received_msat = ?2, settled_at = ?4, \
                          preimage = COALESCE(?3, preimage) WHERE payment_hash = ?1 AND state != 'settled'";
            Ok(change.execute(update, (payment_hash, signed(msat), preimage, signed(now)))? > 0)
        })
    }
}

fn invoice(row: &Row<'_>) -> rusqlite::Result<Invoice> {
    Ok(Invoice {
        payment_hash: row.get(0)?,
        connection: row.get(1)?,
        hold: row.get(2)?,
        invoice: row.get(3)?,
        description: row.get(4)?,
        description_hash: row.get(5)?,
        amount_msat: unsigned(row.get(6)?),
        created_at: unsigned(row.get(7)?),
        expires_at: row.get::<_, Option<i64>>(8)?.map(unsigned),
        state: InvoiceState::of(&row.get::<_, String>(9)?),
        preimage: row.get(10)?,
        received_msat: row.get::<_, Option<i64>>(11)?.map(unsigned),
        claim_deadline: row.get(12)?,
        settled_at: row.get::<_, Option<i64>>(13)?.map(unsigned),
        metadata: row.get(14)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn held() -> Records {
        let records = Records::open(Path::new(":memory:")).unwrap();
        let new = NewInvoice {
            payment_hash: "a".into(),
            connection: None,
            hold: true,
            invoice: None,
            description: None,
            description_hash: None,
            amount_msat: 5,
            created_at: 1,
            expires_at: None,
            metadata: None,
        };
        assert!(records.add_invoice(&new).unwrap());
        assert!(!records.add_invoice(&new).unwrap());
        records
    }

    #[test]
    fn settling_and_cancelling_exclude_each_other() {
        let records = held();
        assert!(!records.hold_settling("a", "00").unwrap());
        assert!(records.hold_accepted("a", 5, Some(9)).unwrap());
        assert!(!records.hold_accepted("a", 5, Some(9)).unwrap());
        assert!(records.hold_settling("a", "00").unwrap());
        assert!(!records.hold_cancelled("a").unwrap());
        assert!(records.received("a", 5, None, 3).unwrap());
        assert!(!records.received("a", 5, None, 4).unwrap());
        assert!(!records.hold_lost("a").unwrap());
        let row = records.invoice("a").unwrap().unwrap();
        assert_eq!(
            (row.state, row.preimage.as_deref()),
            (InvoiceState::Settled, Some("00"))
        );

        let records = held();
        assert!(records.hold_cancelled("a").unwrap());
        assert!(!records.hold_accepted("a", 5, None).unwrap());
        assert!(!records.hold_settling("a", "00").unwrap());
    }

    #[test]
    fn a_claim_that_came_to_nothing_ends_and_is_overruled_by_money() {
        let records = held();
        assert!(!records.hold_lost("a").unwrap());
        records.hold_accepted("a", 5, Some(9)).unwrap();
        assert!(!records.hold_lost("a").unwrap());
        records.hold_settling("a", "00").unwrap();
        assert!(records.hold_lost("a").unwrap());
        assert!(!records.hold_lost("a").unwrap());
        assert!(records.received("a", 5, None, 3).unwrap());
        let row = records.invoice("a").unwrap().unwrap();
        assert_eq!(row.state, InvoiceState::Settled);
    }
}
