//! The money of groups: what the treasury says of them. Free orders never touch it.

use std::sync::Arc;
use std::time::Duration;

use infernet_client::Client;
use infernet_node::clock;
use infernet_protocol::batch::{BlobKey, Reply};
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::checks::Hire;
use crate::house::House;
use crate::open::Open;
use crate::status::Account;
use crate::tally::{Owed, Tally};
use crate::treasury::{Bill, Books, Error, HoldDue, HoldStanding, LONGEST_HOLD, Treasury, Work};

/// How the hold of a group stands, as its life needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    /// There is none yet, or it is on its way somewhere.
    None,
    /// It can be paid by this invoice.
    Invoiced(String),
    /// The money is held.
    Held,
    /// The money is ours.
    Taken,
    /// The money went back, or cannot come any more.
    Gone,
}

impl From<HoldStanding> for Hold {
    fn from(standing: HoldStanding) -> Self {
        match standing {
            HoldStanding::None | HoldStanding::Claiming => Self::None,
            HoldStanding::Invoiced(invoice) => Self::Invoiced(invoice.as_str().to_owned()),
            HoldStanding::Held => Self::Held,
            HoldStanding::Settled => Self::Taken,
            HoldStanding::Cancelling | HoldStanding::Cancelled => Self::Gone,
        }
    }
}

/// The money of groups. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct Money {
    treasury: Treasury,
    home: Arc<std::path::Path>,
}

impl Money {
    /// Opens the books.
    ///
    /// # Errors
    /// A ledger that cannot be used.
    pub async fn open(options: &Options, client: &Client) -> Result<Self, Error> {
        let payees = Arc::new(client.clone());
        let wallet = options.wallet.clone();
        let treasury = Treasury::open(&options.home, wallet, payees, Arc::new(clock::now));
        Ok(Self {
            treasury: treasury.await?,
            home: options.home.clone().into(),
        })
    }

    /// Does what the books say until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        if let Err(error) = self.treasury.run(stop).await {
            tracing::error!(%error, "the treasury has stopped: nothing more is claimed or paid");
        }
    }

    /// Closes the books.
    pub async fn close(&self) {
        self.treasury.close().await;
    }

    /// Whether money can be held.
    pub fn takes_money(&self) -> bool {
        self.treasury.takes_money()
    }

    /// The longest that money is held, in seconds; 0 if none is.
    pub fn longest_hold_s(&self) -> u64 {
        match self.takes_money() {
            true => LONGEST_HOLD.as_secs(),
            false => 0,
        }
    }

    /// Tells groups whose money has changed its standing.
    pub async fn follow(&self, house: &House) {
        let mut changes = self.treasury.watch();
        loop {
            let changed = changes.recv().await;
            match changed {
                Ok((order, group)) => {
                    if let Some(handle) = house.group(&order, group) {
                        handle.look();
                    }
                }
                // Who missed something looks by itself from time to time.
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                    tokio::time::sleep(Duration::MAX).await;
                }
            }
        }
    }

    /// Has the most that a group may cost held until then.
    ///
    /// # Errors
    /// As [`Treasury::hold`].
    pub async fn hold(
        &self,
        order: &Open,
        group: u32,
        most: Msat,
        until: Timestamp,
    ) -> Result<Hold, Error> {
        let due = HoldDue {
            order: order.id,
            group,
            buyer: order.buyer,
            most,
            until,
        };
        self.treasury.hold(&due).await.map(Hold::from)
    }

    /// How a group's hold stands.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn standing(&self, order: &EventId, group: u32) -> Result<Hold, Error> {
        self.treasury.standing(order, group).await.map(Hold::from)
    }

    /// The preimage that claims a group's hold and opens its answers.
    ///
    /// # Errors
    /// [`Error::NotHeld`].
    pub async fn preimage(&self, order: &EventId, group: u32) -> Result<BlobKey, Error> {
        let preimage = self.treasury.preimage(order, group).await?;
        let preimage = preimage.ok_or(Error::NotHeld)?;
        Ok(BlobKey::from_bytes(*preimage.as_bytes()))
    }

    /// Takes what is held for a group, and charges what its lines came to.
    ///
    /// # Errors
    /// As [`Treasury::claim`].
    pub async fn claim(&self, order: &EventId, group: u32, tally: &Tally) -> Result<Hold, Error> {
        let bill = Bill {
            charge: tally.charge,
            works: works(tally),
        };
        let claimed = self.treasury.claim(order, group, &bill).await;
        claimed.map(Hold::from)
    }

    /// Gives back what is held for a group. Work that was accepted all the same is our
    /// loss.
    ///
    /// # Errors
    /// As [`Treasury::cancel`].
    pub async fn release(&self, order: &EventId, group: u32, tally: &Tally) -> Result<(), Error> {
        let released = self.treasury.cancel(order, group, &works(tally)).await;
        released.map(drop)
    }

    /// What was held for a group and taken.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn taken(&self, order: &EventId, group: u32) -> Result<Msat, Error> {
        self.treasury.taken(order, group).await
    }

    /// A provider's work was rejected: its bond is forfeit.
    pub async fn reject(&self, provider: &PublicKey, award: &EventId) {
        match self.treasury.reject(provider, award).await {
            Ok(Msat::ZERO) => {}
            Ok(forfeited) => tracing::info!(%provider, %forfeited, "a bond is forfeit"),
            Err(error) => tracing::error!(%provider, %error, "a rejection is not in the books"),
        }
    }

    /// Work of our own, outside any group, is to be paid.
    pub async fn owe(&self, hire: &Hire) {
        let owed = self.treasury.owe(hire.award, hire.checker, hire.cost).await;
        if let Err(error) = owed {
            tracing::error!(provider = %hire.checker, %error, "work of our own is not in the books");
        }
    }

    /// Whether a provider's work was accepted, and is owed, or was rejected.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn is_answered(&self, award: &EventId) -> Result<bool, Error> {
        self.treasury.is_answered(award).await
    }

    /// What is left of a buyer's money.
    pub async fn credit(&self, buyer: &PublicKey) -> Msat {
        self.treasury.credit(buyer).await.unwrap_or_default()
    }

    /// Pays back what is left of a buyer's money.
    pub async fn refund(&self, order: &Open, invoice: &str) -> Reply {
        match self.treasury.refund(&order.buyer, &order.id, invoice).await {
            Ok(()) => Reply::Refunding,
            Err(error) => {
                tracing::warn!(order = %order.id, %error, "a refund was refused");
                Reply::Refused {
                    reason: error.to_string(),
                }
            }
        }
    }

    /// What is owed to providers in all.
    pub async fn owed(&self) -> Msat {
        let books = Books::read(&self.home, clock::now()).await;
        let owed = books.map(|books| books.providers.iter().map(|one| one.owed_msat).sum::<i64>());
        Msat(owed.unwrap_or(0).unsigned_abs())
    }

    /// What each provider is owed, and what is held back of that.
    pub async fn accounts(&self) -> std::collections::HashMap<PublicKey, Account> {
        let mut accounts = std::collections::HashMap::new();
        let Ok(books) = Books::read(&self.home, clock::now()).await else {
            return accounts;
        };
        for one in &books.providers {
            let account: &mut Account = accounts.entry(one.key).or_default();
            account.owed_msat = Msat(one.owed_msat.unsigned_abs());
        }
        for one in &books.bonds {
            let account = accounts.entry(one.key).or_default();
            account.bond_msat = Msat(one.owed_msat.unsigned_abs());
        }
        accounts
    }
}

fn works(tally: &Tally) -> Vec<Work> {
    let work = |owed: &Owed| Work {
        award: owed.award,
        provider: owed.provider,
        cost: owed.amount,
        chance_ppm: owed.chance_ppm,
        checked: owed.is_checked,
    };
    tally.owed.iter().map(work).collect()
}
