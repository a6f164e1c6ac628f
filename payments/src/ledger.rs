//! The ledger: double entry, append-only, on SQLite.
//!
//! # What the database itself holds
//! Each posting sums to zero and is sealed; nothing is changed or deleted; a leg of a payment is posted once, ever;
//! an intent only goes forward, and there is one for an invoice. These are constraints and triggers
//! (`migrations/`), so that no code of ours, and no crash between two statements, can break them.
//!
//! # Signs
//! An account that grows has a positive entry: the wallet by what we receive, a tab by what its counterparty owes
//! us. So a provider's tab with a buyer that has paid ahead is negative, as is the income account: earnings are its
//! opposite.

mod account;
mod behind;
mod entering;
mod escrow;
mod intent;
mod journal;
mod lock;
mod opening;
mod planning;
mod posting;
mod reconcile;
mod signed;

use std::path::Path;
use std::sync::Arc;

use infernet_node::database;
use infernet_protocol::money::Msat;
use nostr::{PublicKey, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};

pub use self::account::Account;
pub use self::escrow::{
    Bill, Credit, Custom, Dues, Escrow, Hold, HoldDue, PlannedHold, Sums, Will, Work,
};
pub use self::intent::{Budget, Caps, Due, Intent, Planned, Reason, Standing};
pub use self::journal::{Line, Tabs};
pub use self::lock::TabLock;
pub use self::opening::Opening;
pub use self::posting::{GroupName, Posted, Posting};
pub use self::reconcile::{Difference, Report};
pub use self::signed::Signed;

/// Why the ledger does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite refuses: the disk is full, or the file is damaged.
    #[error("the ledger: {0}")]
    Sqlite(#[from] sqlx::Error),
    /// The file is from a newer version, or damaged.
    #[error("the ledger: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row does not hold what it should: restore the file from a backup.
    #[error("the ledger is damaged: {0}")]
    Damaged(&'static str),
    /// The same payment was posted before, and differently: find out which of the two is true.
    #[error("the ledger says something else about that payment")]
    Conflict,
    /// Keep what the two sides of a tab have signed, and nobody else.
    #[error("neither buyer nor provider has signed that")]
    Stranger,
    /// More than all the money there is.
    #[error("the amount is out of bounds")]
    OutOfBounds,
    /// Wait until some are paid or expire.
    #[error("too many invoices wait to be paid ({theirs} by this one, {all} in all)")]
    TooManyInvoices {
        /// By the counterparty.
        theirs: u64,
        /// In all.
        all: u64,
    },
    /// Pay no more than that.
    #[error("no more than {left} is left of that")]
    NotLeft {
        /// What is left on the tab, of the credit, or owed; payments under way taken off.
        left: Msat,
    },
    /// Wait until tomorrow, or raise the budget.
    #[error("the day's budget of {most} is used up ({spent} spent)")]
    OverBudget {
        /// The budget.
        most: Msat,
        /// What is spent or under way.
        spent: Msat,
    },
}

/// The ledger. Clones are cheap and share it.
#[derive(Debug, Clone)]
pub struct Ledger {
    pool: SqlitePool,
    path: Arc<Path>,
    gathered: Arc<behind::Gathered>,
}

impl Ledger {
    /// Opens the ledger in the file at `path`, which is made if it is not there, for its owner alone. Other
    /// processes may have it open too.
    ///
    /// # Errors
    /// A file that cannot be made, is damaged, or is from a newer version.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let locked = database::lock(path, database::TABLES).await;
        let _alone = locked.map_err(sqlx::Error::from)?;
        database::make_private(path).map_err(sqlx::Error::from)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        // One connection: writers would wait for each other in any case.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        Ok(Self {
            pool,
            path: path.into(),
            gathered: Arc::default(),
        })
    }

    /// Closes the file, after what is being written and gathered.
    pub async fn close(self) {
        if let Err(error) = self.flush().await {
            tracing::error!(%error, "what was signed last cannot be written down");
        }
        self.pool.close().await;
    }

    /// Begins a change that is made whole or not at all, and that no other process comes between.
    async fn change(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// An amount as SQLite keeps it.
fn amount(amount: Msat) -> Result<i64, Error> {
    i64::try_from(amount.0).map_err(|_| Error::OutOfBounds)
}

/// An amount that SQLite kept.
fn msat(amount: i64) -> Result<Msat, Error> {
    u64::try_from(amount)
        .map(Msat)
        .map_err(|_| Error::Damaged("a negative amount"))
}

fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_secs()).unwrap_or(i64::MAX)
}

fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_secs(u64::try_from(seconds).unwrap_or_default())
}

fn bytes32(bytes: &[u8]) -> Result<[u8; 32], Error> {
    bytes
        .try_into()
        .map_err(|_| Error::Damaged("a hash or key of another length"))
}

fn key(bytes: &[u8]) -> Result<PublicKey, Error> {
    PublicKey::from_slice(bytes).map_err(|_| Error::Damaged("a key that is none"))
}
