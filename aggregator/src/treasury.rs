//! The money: what is held for buyers, and what providers are owed and paid.
//!
//! Everything is in the ledger (`infernet_payments::ledger`) before it is done, and what a call has begun goes on after
//! a crash: [`Treasury::run`] asks the wallet how each hold and each payment stands, and tells it again what was
//! decided, until it is so. So every call here may be made again.
//!
//! - A group's hold: [`Treasury::hold`] makes its invoice, smaller by the buyer's credit; [`Treasury::claim`] takes it
//!   with the bill that is then booked; [`Treasury::cancel`] gives it back. Only the wallet's word counts as held, as
//!   income, or as given back. What nobody has claimed at its deadline goes back.
//! - Providers are paid by [`Treasury::run`] when what they are owed is worth a payment, less their [`bond`].
//! - Without a wallet there is no treasury's work: [`Treasury::takes_money`] says so, and only free work is done.

pub mod bond;
mod books;
mod holds;
mod payees;
mod payouts;
mod refunds;
mod rounds;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use infernet_payments::ledger::{self, Ledger, Posting};
use infernet_payments::{Cashier, PaymentRail, cashier};
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey, Timestamp};
use tokio::sync::{Notify, broadcast};

pub use self::books::{Books, Owed};
pub use self::holds::{HoldStanding, LONGEST_HOLD};
pub use self::payees::{NotPayable, Payees};
pub use infernet_payments::ledger::{Bill, HoldDue, Work};

use self::payouts::Patience;

/// The ledger's file in the aggregator's folder.
pub const LEDGER: &str = "ledger.sqlite";

/// Changes that may wait for a slow reader; one who misses some asks for what it waits for.
const MAX_UNREAD: usize = 1_024;

/// Tells the time: a process's is `infernet_node::clock::now`.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Why the treasury does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Give the aggregator a wallet, or order free work.
    #[error("this aggregator has no wallet, and does free work only")]
    NoWallet,
    /// Set an earlier deadline.
    #[error("money can be held for {} hours at most; set an earlier deadline", LONGEST_HOLD.as_secs() / 3_600)]
    TooLong,
    /// Set a later deadline.
    #[error("the deadline has passed")]
    TooLate,
    /// Wait until it is held.
    #[error("nothing is held for that group")]
    NotHeld,
    /// Nothing: it is taken, and cannot go back.
    #[error("that group's money is being claimed")]
    Claimed,
    /// Send another invoice.
    #[error("the invoice is no good: {0}")]
    Invoice(&'static str),
    /// Ask for no more than that.
    #[error("no more than {left} of the credit can be paid back")]
    NotLeft {
        /// What is left.
        left: Msat,
    },
    /// Send an invoice that is cheaper to reach, or use the credit for another batch.
    #[error(
        "it could not be paid with at most {max_fee} for routing; send an invoice that is cheaper to reach"
    )]
    TooFar {
        /// The most that routing might cost.
        max_fee: Msat,
    },
    /// Wait until it is done.
    #[error("another refund is on its way; ask again when it is done")]
    Refunding,
    /// See to the disk.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// See to the wallet.
    #[error(transparent)]
    Cashier(#[from] cashier::Error),
}

/// The treasury. Clones are cheap and share it.
#[derive(Clone)]
pub struct Treasury {
    shared: Arc<Shared>,
}

struct Shared {
    ledger: Ledger,
    cashier: Option<Cashier>,
    payees: Arc<dyn Payees>,
    clock: Clock,
    changes: broadcast::Sender<(EventId, u32)>,
    /// Holds are planned one at a time.
    holding: tokio::sync::Mutex<()>,
    /// Something has been decided: what follows is not left for the next round.
    decided: Notify,
    /// Providers who do not answer are asked more and more rarely.
    patience: Mutex<HashMap<PublicKey, Patience>>,
    refunding: refunds::Payees,
}

impl fmt::Debug for Treasury {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Treasury({:?})", self.shared.cashier)
    }
}

impl Treasury {
    /// Opens the ledger in the aggregator's folder. Without a wallet, only free work can be done. `payees` is how
    /// providers are reached.
    ///
    /// # Errors
    /// A ledger that cannot be used.
    pub async fn open(
        folder: &Path,
        wallet: Option<Arc<dyn PaymentRail>>,
        payees: Arc<dyn Payees>,
        clock: Clock,
    ) -> Result<Self, Error> {
        let ledger = Ledger::open(&folder.join(LEDGER)).await?;
        let cashier = wallet.map(|rail| Cashier::new(rail, ledger.clone()));
        Ok(Self {
            shared: Arc::new(Shared {
                ledger,
                cashier,
                payees,
                clock,
                changes: broadcast::channel(MAX_UNREAD).0,
                holding: tokio::sync::Mutex::new(()),
                decided: Notify::new(),
                patience: Mutex::default(),
                refunding: refunds::Payees::default(),
            }),
        })
    }

    /// Whether paid work can be done.
    pub fn takes_money(&self) -> bool {
        self.shared.cashier.is_some()
    }

    /// Follows which groups' money has changed its standing, from now on. One who lags asks for what it waits for.
    pub fn watch(&self) -> broadcast::Receiver<(EventId, u32)> {
        self.shared.changes.subscribe()
    }

    /// What is left of a buyer's money: claimed, not charged, and neither set aside for a group nor being paid back.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn credit(&self, buyer: &PublicKey) -> Result<Msat, Error> {
        Ok(self.shared.ledger.credit(buyer).await?.free)
    }

    /// Notes that a verdict went against a provider's work, or that it was caught otherwise: it is told with its next
    /// payout, and its bond goes to the buyers of its other work (`infernet_payments::ledger::Ledger::reject`). Again,
    /// it changes nothing. Answers how much went.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn reject(&self, provider: &PublicKey, award: &EventId) -> Result<Msat, Error> {
        Ok(self
            .shared
            .ledger
            .reject(provider, award, self.now())
            .await?)
    }

    /// Owes a provider for work that was bought at our own cost: questions of our own, and checks outside any group.
    /// Again, it changes nothing.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn owe(&self, award: EventId, provider: PublicKey, cost: Msat) -> Result<(), Error> {
        let work = Posting::WorkAccepted {
            award,
            provider,
            amount: cost,
        };
        self.shared.ledger.post(&work, self.now()).await?;
        Ok(())
    }

    /// Whether a provider's work was accepted, and is owed, or was rejected.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn is_answered(&self, award: &EventId) -> Result<bool, Error> {
        Ok(self.shared.ledger.is_answered(award).await?)
    }

    /// Closes the ledger, after what is being written.
    pub async fn close(&self) {
        self.shared.ledger.clone().close().await;
    }

    fn now(&self) -> Timestamp {
        (self.shared.clock)()
    }

    fn cashier(&self) -> Result<&Cashier, Error> {
        self.shared.cashier.as_ref().ok_or(Error::NoWallet)
    }

    fn changed(&self, order: EventId, group: u32) {
        // Nobody may be listening.
        let _ = self.shared.changes.send((order, group));
    }
}
