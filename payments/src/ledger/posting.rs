//! What can happen to money, and which accounts it touches.

use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey, Timestamp};
use sqlx::{Sqlite, Transaction};

use super::{Error, Ledger, amount, seconds};
use crate::PaymentHash;

/// An account of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// What the Lightning wallet holds of ours.
    Wallet,
    /// What a counterparty owes us; negative: what we owe it.
    Tab(PublicKey),
    /// What our work has brought: the opposite of the balance.
    Income,
    /// What others' work has cost us.
    Spending,
    /// What routing has cost us.
    Fees,
    /// What came from, and went to, anywhere else.
    Outside,
}

impl Account {
    const fn name(&self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::Tab(_) => "tab",
            Self::Income => "income",
            Self::Spending => "spending",
            Self::Fees => "fees",
            Self::Outside => "outside",
        }
    }

    pub(super) const fn counterparty(&self) -> Option<&PublicKey> {
        match self {
            Self::Tab(counterparty) => Some(counterparty),
            _ => None,
        }
    }

    /// Its name and its counterparty, as SQLite keeps them.
    pub(super) fn columns(&self) -> (&'static str, Option<Vec<u8>>) {
        let counterparty = self.counterparty().map(|key| key.as_bytes().to_vec());
        (self.name(), counterparty)
    }
}

/// Something that happened to money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posting {
    /// We topped up our tab with a provider.
    TopUpPaid {
        /// The payment.
        hash: PaymentHash,
        /// Who was paid.
        provider: PublicKey,
        /// What the provider got.
        amount: Msat,
        /// What routing cost.
        fee: Msat,
    },
    /// A buyer topped up its tab with us.
    TopUpReceived {
        /// The payment.
        hash: PaymentHash,
        /// Who paid.
        buyer: PublicKey,
        /// What we got.
        amount: Msat,
    },
    /// We paid back what was left of a buyer's tab.
    RefundPaid {
        /// The payment.
        hash: PaymentHash,
        /// Who was paid.
        buyer: PublicKey,
        /// What the buyer got.
        amount: Msat,
        /// What routing cost.
        fee: Msat,
    },
    /// A provider paid back what was left of our tab.
    RefundReceived {
        /// The payment.
        hash: PaymentHash,
        /// Who paid.
        provider: PublicKey,
        /// What we got.
        amount: Msat,
    },
    /// A provider's work was put on our tab; once for an award.
    Spent {
        /// For which work.
        award: EventId,
        /// Whose.
        provider: PublicKey,
        /// What it cost.
        amount: Msat,
    },
    /// Our work was put on a buyer's tab; once for an award.
    Earned {
        /// For which work.
        award: EventId,
        /// For whom.
        buyer: PublicKey,
        /// What it cost.
        amount: Msat,
    },
    /// Money came into the wallet from elsewhere.
    CameIn {
        /// The payment, or 32 random bytes where there is none.
        hash: PaymentHash,
        /// How much.
        amount: Msat,
    },
    /// Money went from the wallet to elsewhere.
    WentOut {
        /// The payment, or 32 random bytes where there is none.
        hash: PaymentHash,
        /// How much arrived there.
        amount: Msat,
        /// What routing cost.
        fee: Msat,
    },
}

/// Whether something was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// Now.
    Now,
    /// Before, in the same way.
    Before,
}

/// One entry of a posting.
struct Leg {
    name: &'static str,
    account: Account,
    /// Positive if the account grows.
    amount_msat: i64,
}

impl Posting {
    const fn reason(&self) -> &'static str {
        match self {
            Self::TopUpPaid { .. } | Self::TopUpReceived { .. } => "top-up",
            Self::RefundPaid { .. } | Self::RefundReceived { .. } => "refund",
            Self::Spent { .. } | Self::Earned { .. } => "charge",
            Self::CameIn { .. } | Self::WentOut { .. } => "outside",
        }
    }

    fn reference(&self) -> [u8; 32] {
        match self {
            Self::TopUpPaid { hash, .. }
            | Self::TopUpReceived { hash, .. }
            | Self::RefundPaid { hash, .. }
            | Self::RefundReceived { hash, .. }
            | Self::CameIn { hash, .. }
            | Self::WentOut { hash, .. } => *hash.as_bytes(),
            Self::Spent { award, .. } | Self::Earned { award, .. } => *award.as_bytes(),
        }
    }

    /// The entries; they sum to zero. Those of nothing are left out.
    fn legs(&self) -> Result<Vec<Leg>, Error> {
        let mut legs = match *self {
            Self::TopUpPaid {
                provider: other,
                amount,
                fee,
                ..
            }
            | Self::RefundPaid {
                buyer: other,
                amount,
                fee,
                ..
            } => paid(Account::Tab(other), amount, fee)?,
            Self::WentOut { amount, fee, .. } => paid(Account::Outside, amount, fee)?,
            Self::TopUpReceived {
                buyer: other,
                amount,
                ..
            }
            | Self::RefundReceived {
                provider: other,
                amount,
                ..
            } => received(Account::Tab(other), amount)?,
            Self::CameIn { amount, .. } => received(Account::Outside, amount)?,
            Self::Spent {
                provider, amount, ..
            } => {
                let cost = self::amount(amount)?;
                let tab = Account::Tab(provider);
                vec![
                    leg("charged", tab, -cost),
                    leg("spent", Account::Spending, cost),
                ]
            }
            Self::Earned { buyer, amount, .. } => {
                let cost = self::amount(amount)?;
                let tab = Account::Tab(buyer);
                vec![
                    leg("charged", tab, cost),
                    leg("earned", Account::Income, -cost),
                ]
            }
        };
        legs.retain(|leg| leg.amount_msat != 0);
        Ok(legs)
    }
}

const fn leg(name: &'static str, account: Account, amount_msat: i64) -> Leg {
    Leg {
        name,
        account,
        amount_msat,
    }
}

fn paid(to: Account, what: Msat, fee: Msat) -> Result<Vec<Leg>, Error> {
    let total = what.checked_add(fee).ok_or(Error::OutOfBounds)?;
    Ok(vec![
        leg("paid", Account::Wallet, -amount(total)?),
        leg("routing", Account::Fees, amount(fee)?),
        leg("credited", to, amount(what)?),
    ])
}

fn received(from: Account, what: Msat) -> Result<Vec<Leg>, Error> {
    let what = amount(what)?;
    Ok(vec![
        leg("received", Account::Wallet, what),
        leg("accepted", from, -what),
    ])
}

impl Ledger {
    /// Posts what happened, once: again it changes nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the ledger says something else about that payment; [`Error::Sqlite`].
    pub async fn post(&self, posting: &Posting, at: Timestamp) -> Result<Posted, Error> {
        let mut change = self.change().await?;
        let posted = post(&mut change, posting, at).await?;
        change.commit().await?;
        Ok(posted)
    }
}

/// Posts as part of a larger change.
pub(super) async fn post(
    change: &mut Transaction<'static, Sqlite>,
    posting: &Posting,
    at: Timestamp,
) -> Result<Posted, Error> {
    let legs = posting.legs()?;
    let reference = posting.reference();
    let mut before = 0;
    for leg in &legs {
        before += usize::from(was_posted(change, &reference, leg).await?);
    }
    match before {
        0 => {}
        all if all == legs.len() => return Ok(Posted::Before),
        _ => return Err(Error::Conflict),
    }
    if legs.is_empty() {
        return Ok(Posted::Before);
    }
    let id = sqlx::query_scalar!(r#"SELECT coalesce(max(id), 0) + 1 AS "id!: i64" FROM postings"#)
        .fetch_one(&mut **change)
        .await?;
    for leg in &legs {
        enter(change, id, &reference, leg).await?;
    }
    let (reason, at_s) = (posting.reason(), seconds(at));
    sqlx::query!(
        "INSERT INTO postings (id, reason, at_s) VALUES (?, ?, ?)",
        id,
        reason,
        at_s
    )
    .execute(&mut **change)
    .await?;
    Ok(Posted::Now)
}

/// Whether this very leg has been posted.
async fn was_posted(
    change: &mut Transaction<'static, Sqlite>,
    reference: &[u8],
    leg: &Leg,
) -> Result<bool, Error> {
    let row = sqlx::query!(
        "SELECT account, counterparty, amount_msat FROM entries WHERE reference = ? AND leg = ?",
        reference,
        leg.name
    )
    .fetch_optional(&mut **change)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let (account, counterparty) = leg.account.columns();
    let same = row.account == account
        && row.counterparty == counterparty
        && row.amount_msat == leg.amount_msat;
    match same {
        true => Ok(true),
        false => Err(Error::Conflict),
    }
}

async fn enter(
    change: &mut Transaction<'static, Sqlite>,
    posting: i64,
    reference: &[u8],
    leg: &Leg,
) -> Result<(), Error> {
    let (account, counterparty) = leg.account.columns();
    sqlx::query!(
        "INSERT INTO entries (posting, reference, leg, account, counterparty, amount_msat)
         VALUES (?, ?, ?, ?, ?, ?)",
        posting,
        reference,
        leg.name,
        account,
        counterparty,
        leg.amount_msat
    )
    .execute(&mut **change)
    .await?;
    Ok(())
}
