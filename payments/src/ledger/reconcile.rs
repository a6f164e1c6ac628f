//! Comparing the ledger with the wallet, and explaining every difference.

use std::collections::BTreeMap;
use std::fmt;

use infernet_protocol::money::Msat;

use super::{Account, Error, Intent, Ledger, Posting, Standing};
use crate::PaymentHash;
use crate::rail::{Direction, Payment, State};

/// One thing that the wallet and the ledger do not say alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Done in the wallet, not posted yet: the cashier's next round posts it.
    Unposted(Payment),
    /// Done in the wallet, and no intent of ours: somebody else uses the wallet, or the ledger is an old copy.
    /// [`Ledger::adopt`] posts it as coming from, or going to, elsewhere.
    Foreign(Payment),
    /// On its way out; the wallet may count it in its balance or not.
    UnderWay(Box<Intent>),
    /// Posted, but the wallet does not say that it was done.
    Missing {
        /// Which way it went.
        direction: Direction,
        /// The payment.
        hash: PaymentHash,
        /// What was posted; positive if it came in.
        posted_msat: i64,
    },
    /// Posted with another amount or fee than the wallet's.
    Amount {
        /// Which way it went.
        direction: Direction,
        /// The payment.
        hash: PaymentHash,
        /// What was posted, fee counted in; positive if it came in.
        posted_msat: i64,
        /// What the wallet says.
        wallet_msat: i64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unposted(payment) => {
                write!(
                    f,
                    "{}: {} is done and not posted yet",
                    payment.hash, payment.amount
                )
            }
            Self::Foreign(payment) => {
                write!(
                    f,
                    "{}: {} is not of our doing",
                    payment.hash, payment.amount
                )
            }
            Self::UnderWay(intent) => match intent.hash() {
                Some(hash) => write!(f, "{hash}: {} is on its way out", intent.amount),
                None => write!(f, "{} is on its way out", intent.amount),
            },
            Self::Missing {
                hash, posted_msat, ..
            } => write!(
                f,
                "{hash}: posted with {posted_msat} msat, unknown to the wallet"
            ),
            Self::Amount {
                hash,
                posted_msat,
                wallet_msat,
                ..
            } => write!(
                f,
                "{hash}: posted with {posted_msat} msat, the wallet says {wallet_msat}"
            ),
        }
    }
}

/// How ledger and wallet compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the ledger says is in the wallet, in msat.
    pub ledger_msat: i64,
    /// What the wallet says.
    pub wallet: Msat,
    /// Why these two are not the same.
    pub differences: Vec<Difference>,
    /// What the differences do not explain, in msat; positive if there is more in the wallet. Money that came on
    /// the chain, or went into opening a channel, shows here: [`Posting::CameIn`] and [`Posting::WentOut`] post it.
    pub unexplained_msat: i64,
}

impl Report {
    /// Whether nothing is left that somebody has to look into.
    pub fn is_explained(&self) -> bool {
        let is_fault = |difference: &Difference| {
            matches!(
                difference,
                Difference::Missing { .. } | Difference::Amount { .. }
            )
        };
        self.unexplained_msat == 0 && !self.differences.iter().any(is_fault)
    }

    /// Whether both say the same.
    pub fn is_even(&self) -> bool {
        self.differences.is_empty() && self.unexplained_msat == 0
    }
}

/// A payment by the way it goes and its hash.
type Name = (Direction, PaymentHash);

impl Ledger {
    /// Compares the ledger with the wallet: all its payments, and its balance.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn reconcile(&self, payments: &[Payment], wallet: Msat) -> Result<Report, Error> {
        let mut posted = self.posted().await?;
        let mut differences = Vec::new();
        for payment in payments {
            let Some(wallet_msat) = moved(payment)? else {
                continue;
            };
            let name = (payment.direction, payment.hash);
            match posted.remove(&name) {
                None => differences.push(self.unposted(payment).await?),
                Some(entry) if entry.amount_msat != wallet_msat => {
                    differences.push(Difference::Amount {
                        direction: payment.direction,
                        hash: payment.hash,
                        posted_msat: entry.amount_msat,
                        wallet_msat,
                    });
                }
                Some(_) => {}
            }
        }
        let missing = posted.into_iter().filter(|(_, entry)| entry.is_payment);
        differences.extend(
            missing.map(|((direction, hash), entry)| Difference::Missing {
                direction,
                hash,
                posted_msat: entry.amount_msat,
            }),
        );
        differences.extend(self.going_out(payments).await?);
        self.report(wallet, differences).await
    }

    /// Posts a payment that is not of our doing.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is one of ours; [`Error::Sqlite`].
    pub async fn adopt(&self, payment: &Payment) -> Result<(), Error> {
        let State::Settled { at, fee, .. } = payment.state else {
            return Ok(());
        };
        let (hash, amount) = (payment.hash, payment.amount);
        let posting = match payment.direction {
            Direction::Incoming => Posting::CameIn { hash, amount },
            Direction::Outgoing => Posting::WentOut { hash, amount, fee },
        };
        self.post(&posting, at).await.map(drop)
    }

    async fn report(&self, wallet: Msat, differences: Vec<Difference>) -> Result<Report, Error> {
        let ledger_msat = self.balance(&Account::Wallet).await?;
        // Saturating: what a wallet claims is bounded, how often it claims it is not.
        let (mut explained, mut unsure) = (0_i64, 0_i64);
        for difference in &differences {
            match difference {
                Difference::Unposted(payment) | Difference::Foreign(payment) => {
                    explained = explained.saturating_add(moved(payment)?.unwrap_or_default());
                }
                Difference::Missing { posted_msat, .. } => {
                    explained = explained.saturating_sub(*posted_msat);
                }
                Difference::Amount {
                    posted_msat,
                    wallet_msat,
                    ..
                } => explained = explained.saturating_add(wallet_msat.saturating_sub(*posted_msat)),
                Difference::UnderWay(intent) => {
                    let most = super::amount(intent.amount)? + super::amount(intent.max_fee)?;
                    unsure = unsure.saturating_add(most);
                }
            }
        }
        let rest = super::amount(wallet)?
            .saturating_sub(ledger_msat)
            .saturating_sub(explained);
        Ok(Report {
            ledger_msat,
            wallet,
            differences,
            unexplained_msat: match rest {
                less if (-unsure..0).contains(&less) => 0,
                other => other,
            },
        })
    }

    async fn unposted(&self, payment: &Payment) -> Result<Difference, Error> {
        let intent = self.intent(payment.direction, &payment.hash).await?;
        Ok(match intent {
            Some(_) => Difference::Unposted(payment.clone()),
            None => Difference::Foreign(payment.clone()),
        })
    }

    /// Our payments that may still go out, and that the wallet has not ended.
    async fn going_out(&self, payments: &[Payment]) -> Result<Vec<Difference>, Error> {
        let mut open = self.open_intents().await?;
        let is_ended = |intent: &Intent| {
            let same = |payment: &&Payment| {
                payment.direction == intent.direction && Some(payment.hash) == intent.hash()
            };
            let known = payments.iter().rfind(same);
            known.is_some_and(|payment| payment.state.is_final())
        };
        open.retain(|intent| {
            intent.direction == Direction::Outgoing
                && intent.standing == Standing::UnderWay
                && !is_ended(intent)
        });
        let open = open.into_iter().map(Box::new);
        Ok(open.map(Difference::UnderWay).collect())
    }

    /// All that was posted to the wallet.
    async fn posted(&self) -> Result<BTreeMap<Name, Entry>, Error> {
        let rows = sqlx::query!(
            "SELECT reference, leg, reason, amount_msat
             FROM entries JOIN postings ON postings.id = entries.posting
             WHERE account = 'wallet'"
        )
        .fetch_all(&self.pool)
        .await?;
        let rows = rows.into_iter();
        rows.map(|row| {
            let direction = match row.leg.as_str() {
                "received" => Direction::Incoming,
                "paid" => Direction::Outgoing,
                _ => return Err(Error::Damaged("a leg that no wallet has")),
            };
            let hash = PaymentHash::from_bytes(super::bytes32(&row.reference)?);
            let entry = Entry {
                amount_msat: row.amount_msat,
                is_payment: row.reason != "outside",
            };
            Ok(((direction, hash), entry))
        })
        .collect()
    }
}

struct Entry {
    amount_msat: i64,
    /// Whether the wallet has to know it; what came from elsewhere may have come on the chain.
    is_payment: bool,
}

/// What a payment did to the wallet's balance, if it is done.
fn moved(payment: &Payment) -> Result<Option<i64>, Error> {
    let State::Settled { fee, .. } = payment.state else {
        return Ok(None);
    };
    let amount = super::amount(payment.amount)?;
    Ok(Some(match payment.direction {
        Direction::Incoming => amount,
        Direction::Outgoing => -amount - super::amount(fee)?,
    }))
}
