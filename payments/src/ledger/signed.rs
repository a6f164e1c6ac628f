//! The last totals that each side has signed.

use infernet_protocol::event::ReceiptSide;
use infernet_protocol::money::Msat;
use nostr::secp256k1::schnorr::Signature;
use nostr::{EventId, PublicKey, Timestamp};
use sqlx::{Sqlite, Transaction};

use super::entering::post;
use super::{Error, Ledger, Posting, amount, bytes32, key, msat};
use crate::tab::{Statement, Totals};

/// Totals with who signed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// What was signed.
    pub statement: Statement,
    /// By whom: the buyer or the provider.
    pub author: PublicKey,
    /// The signature, checked before it was kept.
    pub signature: Signature,
}

impl Signed {
    /// Whether it says more than the other one, of the same side and job.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        let said = |one: &Self| {
            let totals = one.statement.totals;
            (totals.output_tokens, totals.tab_paid_msat)
        };
        said(self) > said(other)
    }
}

/// A statement as SQLite keeps it.
pub(super) struct Row {
    award: Vec<u8>,
    author: Vec<u8>,
    buyer: Vec<u8>,
    provider: Vec<u8>,
    input: i64,
    output: i64,
    due: i64,
    tab_due: i64,
    tab_paid: i64,
    signature: Vec<u8>,
}

impl Row {
    pub(super) fn of(signed: &Signed) -> Result<Self, Error> {
        let Statement {
            buyer,
            provider,
            award,
            totals,
        } = &signed.statement;
        if signed.author != *buyer && signed.author != *provider {
            return Err(Error::Stranger);
        }
        Ok(Self {
            award: award.as_bytes().to_vec(),
            author: signed.author.as_bytes().to_vec(),
            buyer: buyer.as_bytes().to_vec(),
            provider: provider.as_bytes().to_vec(),
            input: amount(Msat(totals.input_tokens))?,
            output: amount(Msat(totals.output_tokens))?,
            due: amount(totals.due_msat)?,
            tab_due: amount(totals.tab_due_msat)?,
            tab_paid: amount(totals.tab_paid_msat)?,
            signature: signed.signature.as_ref().to_vec(),
        })
    }
}

/// Keeps a statement as part of a larger change.
pub(super) async fn keep(
    change: &mut Transaction<'static, Sqlite>,
    signed: &Signed,
) -> Result<(), Error> {
    let row = Row::of(signed)?;
    sqlx::query!(
        "INSERT INTO statements (award, author, buyer, provider, input_tokens, output_tokens,
                                 due_msat, tab_due_msat, tab_paid_msat, signature)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (award, author) DO UPDATE SET
            output_tokens = excluded.output_tokens, due_msat = excluded.due_msat,
            tab_due_msat = excluded.tab_due_msat, tab_paid_msat = excluded.tab_paid_msat,
            signature = excluded.signature
         WHERE (excluded.output_tokens, excluded.tab_paid_msat) >= (output_tokens, tab_paid_msat)
            AND excluded.input_tokens = input_tokens
            AND excluded.buyer = buyer AND excluded.provider = provider",
        row.award,
        row.author,
        row.buyer,
        row.provider,
        row.input,
        row.output,
        row.due,
        row.tab_due,
        row.tab_paid,
        row.signature
    )
    .execute(&mut **change)
    .await?;
    Ok(())
}

impl Ledger {
    /// Keeps what one side has signed last for a job, and returns once it is on the disk: for what is signed once,
    /// like the last word. A stream uses [`keep_soon`](Self::keep_soon). An older statement, which comes later,
    /// changes nothing.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn keep(&self, signed: &Signed) -> Result<(), Error> {
        let mut change = self.change().await?;
        keep(&mut change, signed).await?;
        change.commit().await?;
        Ok(())
    }

    /// What this side has signed last for a job.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn signed(
        &self,
        award: &EventId,
        author: &PublicKey,
    ) -> Result<Option<Signed>, Error> {
        self.flush().await?;
        let (award_bytes, author_bytes) = (award.as_bytes().to_vec(), author.as_bytes().to_vec());
        let row = sqlx::query!(
            "SELECT buyer, provider, input_tokens, output_tokens, due_msat, tab_due_msat,
                    tab_paid_msat, signature
             FROM statements WHERE award = ? AND author = ?",
            award_bytes,
            author_bytes
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let signature = Signature::from_slice(&row.signature);
        Ok(Some(Signed {
            statement: Statement {
                buyer: key(&row.buyer)?,
                provider: key(&row.provider)?,
                award: *award,
                totals: Totals {
                    input_tokens: msat(row.input_tokens)?.0,
                    output_tokens: msat(row.output_tokens)?.0,
                    due_msat: msat(row.due_msat)?,
                    tab_due_msat: msat(row.tab_due_msat)?,
                    tab_paid_msat: msat(row.tab_paid_msat)?,
                },
            },
            author: *author,
            signature: signature.map_err(|_| Error::Damaged("a signature that is none"))?,
        }))
    }

    /// Charges what a process that died had agreed to with a counterparty and not charged: for each such job the
    /// last totals that we have signed. Again it changes nothing. To be called before the tab's machine is made, and
    /// while nobody else keeps that tab ([`lock_tab`](Self::lock_tab)): its jobs that run would be charged twice
    /// over, which is a [`Error::Conflict`] when they end.
    ///
    /// Before its first output a job costs nothing.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn charge_what_was_left(
        &self,
        us: &PublicKey,
        counterparty: &PublicKey,
        our_side: ReceiptSide,
        now: Timestamp,
    ) -> Result<Vec<Posting>, Error> {
        self.flush().await?;
        let (buyer, provider) = match our_side {
            ReceiptSide::Buyer => (us, counterparty),
            ReceiptSide::Provider => (counterparty, us),
        };
        let author = us.as_bytes().to_vec();
        let (buyer, provider) = (buyer.as_bytes().to_vec(), provider.as_bytes().to_vec());
        let mut change = self.change().await?;
        let rows = sqlx::query!(
            "SELECT award, due_msat FROM statements
             WHERE author = ? AND buyer = ? AND provider = ? AND output_tokens > 0 AND due_msat > 0
                AND NOT EXISTS (SELECT 1 FROM entries WHERE reference = award AND leg = 'charged')",
            author,
            buyer,
            provider
        )
        .fetch_all(&mut *change)
        .await?;
        let mut charged = Vec::new();
        for row in rows {
            let award = EventId::from_byte_array(bytes32(&row.award)?);
            let (amount, other) = (msat(row.due_msat)?, *counterparty);
            let posting = match our_side {
                ReceiptSide::Buyer => Posting::Spent {
                    award,
                    provider: other,
                    amount,
                },
                ReceiptSide::Provider => Posting::Earned {
                    award,
                    buyer: other,
                    amount,
                },
            };
            post(&mut change, &posting, now).await?;
            charged.push(posting);
        }
        change.commit().await?;
        Ok(charged)
    }
}
