//! Taking into the ledger what a wallet holds and has moved without us.

use infernet_protocol::money::Msat;
use nostr::Timestamp;

use crate::cashier::{Cashier, Error};
use crate::ledger::{Account, Difference, Posting, Report};
use crate::{PaymentHash, rail};

impl Cashier {
    /// Takes the wallet's contents into a ledger in which nothing has happened yet: all that is there came from
    /// elsewhere. Later it changes nothing.
    ///
    /// # Errors
    /// [`Error::Rail`] if the wallet cannot be asked.
    pub async fn open_books(&self, now: Timestamp) -> Result<(), Error> {
        if self.has_begun().await? {
            return Ok(());
        }
        let _alone = self.ledger().lock_adopting().await?;
        // Another process may have been first.
        match self.has_begun().await? {
            true => Ok(()),
            false => self.take_in(now).await.map(drop),
        }
    }

    /// Whether anything has ever come into the wallet, or left it, by the ledger.
    async fn has_begun(&self) -> Result<bool, Error> {
        let start = Timestamp::from_secs(0);
        let lines = self.ledger().lines(&Account::Wallet, start).await?;
        Ok(!lines.is_empty())
    }

    /// Posts what is not of our doing as come from, or gone, elsewhere, and compares again.
    ///
    /// # Errors
    /// [`Error::Rail`] if the wallet cannot be asked.
    pub async fn adopt(&self, now: Timestamp) -> Result<Report, Error> {
        let _alone = self.ledger().lock_adopting().await?;
        self.take_in(now).await
    }

    async fn take_in(&self, now: Timestamp) -> Result<Report, Error> {
        let before = self.reconcile(now).await?;
        for difference in &before.differences {
            if let Difference::Foreign(payment) = difference {
                self.ledger().adopt(payment).await?;
            }
        }
        let amount = Msat(before.unexplained_msat.unsigned_abs());
        // There is no payment to name it by.
        let hash = PaymentHash::from_bytes(*rail::OrderKey::random().as_bytes());
        let rest = match before.unexplained_msat {
            0 => return self.reconcile(now).await,
            1.. => Posting::CameIn { hash, amount },
            _ => Posting::WentOut {
                hash,
                amount,
                fee: Msat::ZERO,
            },
        };
        self.ledger().post(&rest, now).await?;
        self.reconcile(now).await
    }
}
