//! The last totals that each side has signed.

use infernet_protocol::money::Msat;
use nostr::secp256k1::schnorr::Signature;
use nostr::{EventId, PublicKey};

use super::{Error, Ledger, amount, key, msat};
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

impl Ledger {
    /// Keeps what one side has signed last for a job. An older statement, which comes later, changes nothing.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn keep(&self, signed: &Signed) -> Result<(), Error> {
        let Statement {
            buyer,
            provider,
            award,
            totals,
        } = &signed.statement;
        let (award, author) = (award.as_bytes().to_vec(), signed.author.as_bytes().to_vec());
        let (buyer, provider) = (buyer.as_bytes().to_vec(), provider.as_bytes().to_vec());
        let (input, output) = (
            amount(Msat(totals.input_tokens))?,
            amount(Msat(totals.output_tokens))?,
        );
        let (due, tab_due) = (amount(totals.due_msat)?, amount(totals.tab_due_msat)?);
        let tab_paid = amount(totals.tab_paid_msat)?;
        let signature = signed.signature.as_ref().to_vec();
        sqlx::query!(
            "INSERT INTO statements (award, author, buyer, provider, input_tokens, output_tokens,
                                     due_msat, tab_due_msat, tab_paid_msat, signature)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (award, author) DO UPDATE SET
                output_tokens = excluded.output_tokens, due_msat = excluded.due_msat,
                tab_due_msat = excluded.tab_due_msat, tab_paid_msat = excluded.tab_paid_msat,
                signature = excluded.signature
             WHERE excluded.output_tokens >= output_tokens AND excluded.input_tokens = input_tokens
                AND excluded.buyer = buyer AND excluded.provider = provider",
            award,
            author,
            buyer,
            provider,
            input,
            output,
            due,
            tab_due,
            tab_paid,
            signature
        )
        .execute(&self.pool)
        .await?;
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
}
