//! The money of a buyer: its wallet, its ledger, and a tab with each provider that is paid.
//!
//! A job's driver takes a `Lease` on a provider's tab before it awards to it, tells the tab what came and what the
//! provider claims, and hears what to acknowledge and when to stop. Everything that takes time (payments, postings,
//! receipts) is done by tasks of the purse, which go on when the job is over.
//!
//! # What holds, whenever the process is killed
//! - An attempt is written down (`attempts.sqlite`) before anything is paid for it, and stays open there until its
//!   receipt is published: whoever takes up the tab next charges it and signs the receipt (`purse::recovery`).
//! - One process keeps a tab at a time; the lock is the system's and ends with the process.

mod attempts;
mod books;
mod checks;
mod closing;
mod holds;
mod lease;
mod paying;
mod receipt;
mod recovery;
mod refund;
mod tab;
mod unclear;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infernet_node::clock;
use infernet_node::link::Link;
use infernet_payments::rail::Notices;
use infernet_payments::tab::buyer;
use infernet_payments::{Cashier, PaymentRail, cashier, ledger};
use infernet_protocol::money::Msat;
use nostr::{Keys, PublicKey};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use attempts::Moved;
pub use books::{Books, Spending, Spent, TabState};
pub use refund::Refund;

pub(crate) use attempts::Attempt;
pub(crate) use checks::{Flaw, read as read_invoice};
pub(crate) use closing::Closing;
pub(crate) use holds::Hold;
pub(crate) use lease::Lease;
pub(crate) use paying::Trouble;
pub(crate) use receipt::{Done, salted};
pub(crate) use tab::{Opened, Said, Told, Verdict};
pub(crate) use unclear::LATE;

use lease::Slot;

/// How often the wallet is asked about what is under way, besides its own news.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a buyer puts up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most that is paid to one provider ahead of what has come from it.
    pub risk: Msat,
    /// The most that is paid out within 24 hours, with routing.
    pub daily: Msat,
    /// The most that routing one payment may cost, whatever its size; see [`Limits::fee_for`].
    pub max_fee: Msat,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            risk: Msat(50_000),
            daily: Msat(1_000_000),
            max_fee: Msat(5_000),
        }
    }
}

impl Limits {
    /// The most that routing a payment of this size may cost: a satoshi and a tenth of it, for whoever is paid may
    /// be on its own way and earn at it.
    pub fn fee_for(&self, amount: Msat) -> Msat {
        Msat((amount.0 / 10).saturating_add(1_000)).min(self.max_fee)
    }

    fn of_a_tab(self) -> buyer::Limits {
        let usual = buyer::Limits::default();
        buyer::Limits {
            risk: self.risk,
            // Half of what is risked anyway.
            earlier_difference: usual.earlier_difference.min(Msat(self.risk.0 / 2)),
        }
    }
}

/// What a client pays with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The wallet.
    pub rail: Arc<dyn PaymentRail>,
    /// The folder of ledger and attempts. It is made if it is not there; several clients may share it.
    pub folder: PathBuf,
    /// What is put up with.
    pub limits: Limits,
}

impl Options {
    /// This wallet, books in this folder, and the usual limits.
    pub fn new(rail: impl PaymentRail + 'static, folder: impl Into<PathBuf>) -> Self {
        Self {
            rail: Arc::new(rail),
            folder: folder.into(),
            limits: Limits::default(),
        }
    }
}

/// Why the books cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be made, or is not ours.
    #[error("cannot make {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The wallet does not do what was asked.
    #[error(transparent)]
    Cashier(#[from] cashier::Error),
    /// SQLite refuses: the disk is full, or the file is damaged.
    #[error("the list of paid attempts: {0}")]
    Sqlite(#[from] sqlx::Error),
    /// The file is from a newer version, or damaged.
    #[error("the list of paid attempts: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row does not hold what it should: restore the file from a backup.
    #[error("the list of paid attempts is damaged: {0}")]
    Damaged(&'static str),
    /// Wait until it is there, or has failed.
    #[error(
        "a refund from it is under way, for ten minutes at most; ask once more: infernet-client tab close"
    )]
    RefundUnderWay,
    /// Wait until it is done.
    #[error("a job runs on its tab; try again when it is over")]
    TabTaken,
}

/// A buyer's money. Clones are cheap and share it.
#[derive(Clone)]
pub(crate) struct Purse {
    shared: Arc<Shared>,
}

struct Shared {
    books: Books,
    cashier: Cashier,
    limits: Limits,
    keys: Keys,
    link: Link,
    slots: Mutex<HashMap<PublicKey, Slot>>,
    /// That the ledger has begun with what is in the wallet.
    opened: OnceCell<()>,
    /// What goes on when jobs are over.
    tasks: TaskTracker,
    /// Cancelled when the client goes: nothing is waited for longer than necessary.
    closing: CancellationToken,
}

impl fmt::Debug for Purse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Purse({:?})", self.shared.limits)
    }
}

impl Purse {
    /// Opens the books, follows the wallet, and takes up in the background what an earlier process left.
    pub async fn open(
        options: &Options,
        keys: &Keys,
        link: &Link,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let books = Books::open(&options.folder).await?;
        let cashier = Cashier::new(options.rail.clone(), books.ledger().clone());
        let purse = Self {
            shared: Arc::new(Shared {
                books,
                cashier,
                limits: options.limits,
                keys: keys.clone(),
                link: link.clone(),
                slots: Mutex::default(),
                opened: OnceCell::new(),
                tasks: TaskTracker::new(),
                closing: CancellationToken::new(),
            }),
        };
        purse.follow(stop);
        let recovering = purse.clone();
        purse.shared.tasks.spawn(async move {
            let closing = recovering.shared.closing.clone();
            tokio::select! {
                () = recovering.recover() => {}
                // What is half done is done by the next process.
                () = closing.cancelled() => {}
            }
        });
        Ok(purse)
    }

    /// Follows the wallet until told to stop.
    fn follow(&self, stop: CancellationToken) {
        let (cashier, booked) = (self.shared.cashier.clone(), self.clone());
        let changes = cashier.subscribe();
        let first = cashier.rail().subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = follow(&cashier, first) => {}
                () = booked.book(changes) => {}
                () = stop.cancelled() => {}
            }
        });
    }

    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<PublicKey, Slot>> {
        // Every change of a tab is whole before anything can panic.
        self.shared
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what can wait, and waits for what cannot: postings and receipts.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        if let Err(error) = self.shared.books.ledger().flush().await {
            tracing::error!(%error, "what was signed last cannot be written down");
        }
    }
}

/// Follows a wallet. A ledger that another process keeps busy is no reason to be deaf from then on.
async fn follow(cashier: &Cashier, mut notices: Notices) {
    while let Err(error) = cashier.follow(notices, LOOK_EVERY, clock::now).await {
        tracing::error!(%error, "what the wallet says cannot be booked; it is asked again");
        tokio::time::sleep(LOOK_EVERY).await;
        notices = cashier.rail().subscribe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routing_may_cost_a_tenth_and_a_satoshi_within_the_limit() {
        let limits = Limits::default();
        assert_eq!(limits.fee_for(Msat(10_000)), Msat(2_000));
        assert_eq!(limits.fee_for(Msat(1_000_000)), limits.max_fee);
        let none = Limits {
            max_fee: Msat::ZERO,
            ..limits
        };
        assert_eq!(none.fee_for(Msat(10_000)), Msat::ZERO);
    }
}
