//! The till: what buyers pay here, and what they owe.
//!
//! A buyer with open work has an [`Account`] in memory, around
//! the machine that decides (`payments::tab::provider`): it is made from the
//! ledger with the first award, and forgotten when the last one is charged. An
//! attempt holds a [`Seat`] on it, which says how far it may draw, and signs what
//! it has drawn. Whatever takes time runs beside it: invoices (`asking`), the
//! wallet's news (`watching`), charges and receipts (`settling`), refunds
//! (`refunding`).
//!
//! What an aggregator buys in escrow has no tab: it is lent (`lending`), charged when
//! it is done, and paid when the aggregator has accepted it (`payouts`).
//!
//! **Invariant:** an account knows of a payment once the ledger has it, and
//! counts it once: it compares what the ledger says was paid with what it knows.
//!
//! **Invariant:** an account lives until all its charges are in the ledger, so
//! that the next one is made from all that was before.
//!
//! **Invariant:** nothing here waits for the disk or the wallet while an attempt
//! streams.

mod account;
mod asking;
mod lending;
mod payouts;
mod refunding;
mod seat;
mod settling;
mod watching;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infernet_node::clock;
use infernet_payments::ledger::{self, Intent, Ledger};
use infernet_payments::rail::{Direction, Notice, PaymentRail};
use infernet_payments::tab::provider::Terms;
use infernet_payments::{Cashier, PaymentHash, cashier, rail};
use infernet_protocol::event::ReceiptSide;
use infernet_protocol::money::{Msat, PaymentTerms, Price};
use nostr::{Keys, PublicKey, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::account::Account;
use self::lending::Lending;
pub use self::lending::Loan;
pub use self::payouts::NotPayable;
pub use self::refunding::NotRefunded;
pub use self::seat::{Seat, Word};
use crate::options::Escrow;
use crate::status::Wallet;
use crate::steady::Steady;
use crate::store::{self, Store, Ticket};

/// Awards of those who have never paid that may wait for money at a time. A flood
/// of them leaves room for those who have.
const MAX_STRANGERS: usize = 256;

/// How long the wallet may take to answer while somebody waits for it. One that
/// hangs is one that cannot be reached.
const WALLET_PATIENCE: Duration = Duration::from_secs(10);

/// Why the till does not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger cannot be opened or written.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The wallet's connection cannot be used.
    #[error(transparent)]
    Rail(#[from] rail::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<cashier::Error> for Error {
    fn from(error: cashier::Error) -> Self {
        match error {
            cashier::Error::Ledger(error) => Self::Ledger(error),
            cashier::Error::Rail(error) => Self::Rail(error),
        }
    }
}

/// Why an award has no seat on its buyer's tab.
#[derive(Debug, thiserror::Error)]
pub enum NoSeat {
    /// Try again later.
    #[error("the provider's wallet cannot be reached")]
    Wallet,
    /// Try again later.
    #[error("the provider's ledger has a fault")]
    Ledger,
    /// Try again later.
    #[error("too many wait here to pay for the first time")]
    Crowded,
    /// Award it anew, or less of it.
    #[error("{0}")]
    Senseless(&'static str),
}

/// The till. Clones share it.
#[derive(Debug, Clone)]
pub struct Till(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Keys,
    cashier: Cashier,
    store: Store,
    terms: Terms,
    lending: Lending,
    clock: Steady,
    accounts: Mutex<HashMap<PublicKey, Arc<Account>>>,
    /// Who has ever paid here.
    customers: Mutex<HashSet<PublicKey>>,
    /// Seats for those who have never paid, while they wait for money.
    strangers: Arc<Semaphore>,
    /// Held while an account is made from the ledger, or a refund planned.
    opening: tokio::sync::Mutex<()>,
    /// Held while the wallet is asked about a stranger's invoices: a flood of
    /// strangers asks it one thing at a time.
    inquiring: tokio::sync::Mutex<()>,
    /// Held while one attempt is charged: each receipt counts the ones before.
    settling: tokio::sync::Mutex<()>,
    /// Held while an aggregator's payout is booked and its invoice made.
    paying_out: tokio::sync::Mutex<()>,
    wallet: watch::Sender<Wallet>,
    /// Says that there is another balance to show.
    moved: Notify,
    stop: CancellationToken,
}

impl Till {
    /// Opens the till over the ledger at `path`, and follows the wallet from now
    /// on. A wallet that cannot be reached is waited for beside it.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn open(
        keys: Keys,
        path: &Path,
        rail: Arc<dyn PaymentRail>,
        (terms, escrow): (Terms, Escrow),
        store: Store,
    ) -> Result<Self, Error> {
        let cashier = Cashier::new(rail, Ledger::open(path).await?);
        let customers = customers(cashier.ledger()).await?;
        let till = Self(Arc::new(Inner {
            keys,
            cashier,
            store,
            terms,
            lending: Lending::new(escrow),
            clock: Steady::start(),
            accounts: Mutex::default(),
            customers: Mutex::new(customers),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
            opening: tokio::sync::Mutex::default(),
            inquiring: tokio::sync::Mutex::default(),
            settling: tokio::sync::Mutex::default(),
            paying_out: tokio::sync::Mutex::default(),
            wallet: watch::channel(Wallet::default()).0,
            moved: Notify::new(),
            stop: CancellationToken::new(),
        }));
        till.watch();
        Ok(till)
    }

    /// The conditions of a tab here.
    pub fn conditions(&self) -> PaymentTerms {
        let terms = &self.0.terms;
        PaymentTerms::Tab {
            min_payment_msat: terms.min_top_up,
            prepaid_output_tokens: u32::try_from(terms.prepaid_output_tokens).unwrap_or(u32::MAX),
            payee: self.0.wallet.borrow().node,
        }
    }

    /// How the wallet stands.
    pub fn wallet(&self) -> Wallet {
        self.0.wallet.borrow().clone()
    }

    /// Takes a seat on the buyer's tab for an award. It may draw at once, or
    /// waits for money.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn seat(
        &self,
        ticket: Ticket,
        price: Price,
        max_output_tokens: u64,
    ) -> Result<Seat, NoSeat> {
        if !self.is_open(&ticket.buyer) {
            self.look_for_unpaid(&ticket.buyer).await?;
        }
        let opening = self.0.opening.lock().await;
        let account = match self.hold(&ticket.buyer) {
            Some(account) => account,
            None => self.make_account(ticket.buyer).await?,
        };
        let seat = Seat::take(self, &account, ticket, price, max_output_tokens);
        self.let_go(&account);
        drop(opening);
        // What was paid while the ledger was read.
        self.sync(&account).await;
        seat
    }

    /// A place to wait, which those who have paid before need not have.
    fn place_for(&self, account: &Account) -> Result<Option<OwnedSemaphorePermit>, NoSeat> {
        if !account.is_strangers() {
            return Ok(None);
        }
        let place = self.0.strangers.clone().try_acquire_owned();
        place.map(Some).map_err(|_| NoSeat::Crowded)
    }

    /// Lets go of everything, once nothing runs any more.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.cashier.ledger().clone().close().await;
    }

    /// Whether this buyer has ever paid here, or is lent to: what strangers can have
    /// us do is counted apart from what it can.
    pub fn is_customer(&self, buyer: &PublicKey) -> bool {
        self.customers().contains(buyer) || self.lends_to(buyer)
    }

    fn customers(&self) -> MutexGuard<'_, HashSet<PublicKey>> {
        self.0
            .customers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self, buyer: &PublicKey) -> bool {
        self.accounts().contains_key(buyer)
    }

    /// The account of a buyer, if it has one, which stays until it is let go.
    fn hold(&self, buyer: &PublicKey) -> Option<Arc<Account>> {
        let accounts = self.accounts();
        let account = accounts.get(buyer)?;
        account.book().hold();
        Some(account.clone())
    }

    /// Makes the account of a buyer that has none, and holds it. Nobody else makes
    /// one meanwhile.
    async fn make_account(&self, buyer: PublicKey) -> Result<Arc<Account>, NoSeat> {
        let ledger = self.0.cashier.ledger();
        let carried = ledger.carried(&buyer, ReceiptSide::Provider).await;
        let carried = carried.map_err(|error| broken(&error))?;
        if carried.paid > Msat::ZERO {
            self.customers().insert(buyer);
        }
        let account = Arc::new(Account::new(buyer, self.0.terms, carried));
        account.book().hold();
        self.accounts().insert(buyer, account.clone());
        Ok(account)
    }

    /// Invoices of earlier awards may have been paid a moment ago, and the buyer
    /// knows: the first totals must not say less.
    async fn look_for_unpaid(&self, buyer: &PublicKey) -> Result<(), NoSeat> {
        let ledger = self.0.cashier.ledger();
        let opening = ledger.opening(buyer, ReceiptSide::Provider).await;
        let mut open = opening.map_err(|error| broken(&error))?.open;
        open.retain(|one| one.direction == Direction::Incoming);
        if open.is_empty() {
            return Ok(());
        }
        let _turn = match self.is_customer(buyer) {
            true => None,
            false => {
                let turn = timeout(WALLET_PATIENCE, self.0.inquiring.lock()).await;
                Some(turn.map_err(|_| NoSeat::Wallet)?)
            }
        };
        for hash in open.iter().filter_map(Intent::hash) {
            match self.look_up(&hash).await {
                Ok(()) => {}
                Err(cashier::Error::Ledger(error)) => return Err(broken(&error)),
                Err(cashier::Error::Rail(error)) => {
                    tracing::warn!(%error, "the wallet cannot be asked about an invoice");
                    return Err(NoSeat::Wallet);
                }
            }
        }
        Ok(())
    }

    /// Asks the wallet about an invoice of ours, and books what it says.
    async fn look_up(&self, hash: &PaymentHash) -> Result<(), cashier::Error> {
        let cashier = &self.0.cashier;
        let asked = cashier.rail().look_up(Direction::Incoming, hash);
        let payment = timeout(WALLET_PATIENCE, asked).await;
        match payment.unwrap_or_else(|_| Err(no_answer()))? {
            Some(payment) => cashier.hear(&Notice::Changed(payment), clock::now()).await,
            None => Ok(()),
        }
    }

    /// Lets go of an account, which is forgotten if nothing is open on it.
    fn let_go(&self, account: &Arc<Account>) {
        let mut accounts = self.accounts();
        account.book().let_go();
        // The buyer may have another one by now.
        let is_known = accounts
            .get(&account.buyer)
            .is_some_and(|known| Arc::ptr_eq(known, account));
        if is_known && account.is_idle() {
            accounts.remove(&account.buyer);
        }
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<PublicKey, Arc<Account>>> {
        // Every change of it is whole before anything can panic.
        self.0
            .accounts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn account(&self, buyer: &PublicKey) -> Option<Arc<Account>> {
        self.accounts().get(buyer).cloned()
    }

    /// Tells an account what the ledger says was paid on it.
    async fn sync(&self, account: &Arc<Account>) {
        let ledger = self.0.cashier.ledger();
        match ledger.carried(&account.buyer, ReceiptSide::Provider).await {
            Ok(carried) => self.step(account, |book, now| book.knows(now, carried.paid)),
            Err(error) => tracing::error!(%error, "cannot read what was paid"),
        }
    }
}

/// Who has paid, as the ledger has it.
async fn customers(ledger: &Ledger) -> Result<HashSet<PublicKey>, ledger::Error> {
    let beginning = Timestamp::from_secs(0);
    let lines = ledger.lines(&ledger::Account::Wallet, beginning).await?;
    let paid = lines
        .into_iter()
        .filter(|line| matches!(&*line.reason, "top-up" | "payout"));
    Ok(paid.filter_map(|line| line.counterparty).collect())
}

fn no_answer() -> rail::Error {
    rail::Error::Unreachable("it does not answer".to_owned())
}

fn broken(error: &dyn std::fmt::Display) -> NoSeat {
    tracing::error!(%error, "the ledger");
    NoSeat::Ledger
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_payments::test_rail::Network;
    use infernet_protocol::seal::Salt;
    use nostr::EventId;
    use tempfile::TempDir;

    use super::*;

    async fn till() -> (Till, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.sqlite")).await;
        let wallet = Network::new(clock::now()).wallet("till", Msat(1_000_000));
        let ledger = folder.path().join("ledger.sqlite");
        let (keys, terms) = (Keys::generate(), (Terms::default(), Escrow::default()));
        let till = Till::open(keys, &ledger, Arc::new(wallet), terms, store.unwrap()).await;
        (till.unwrap(), folder)
    }

    fn ticket(buyer: PublicKey, award: u8) -> Ticket {
        Ticket {
            award: EventId::from_byte_array([award; 32]),
            job: EventId::all_zeros(),
            buyer,
            number: 1,
            model: "tiny".to_owned(),
            salt: Salt::from_bytes([1; 32]),
            input_tokens: 3,
            prefix_tokens: 0,
            is_escrow: false,
            opened_at: Timestamp::from_secs(1_000),
        }
    }

    /// Else it would hear of no payment, and another one would have its money too.
    #[tokio::test]
    async fn an_account_on_which_a_seat_is_being_taken_is_not_forgotten() {
        let (till, _folder) = till().await;
        let buyer = Keys::generate().public_key;
        let first = till.make_account(buyer).await.unwrap();
        let taking = till.hold(&buyer).unwrap();
        till.let_go(&first);
        let found = till.account(&buyer).unwrap();
        assert!(Arc::ptr_eq(&found, &taking));
        till.let_go(&taking);
        assert!(!till.is_open(&buyer));
    }

    #[tokio::test]
    async fn a_buyers_earlier_account_takes_nothing_from_its_next() {
        let (till, _folder) = till().await;
        let buyer = Keys::generate().public_key;
        let earlier = till.make_account(buyer).await.unwrap();
        till.let_go(&earlier);
        let price = Price {
            input_msat: 0,
            output_msat: 1_000_000,
        };
        let seat = till.seat(ticket(buyer, 1), price, 10).await.unwrap();
        till.let_go(&earlier);
        assert!(till.is_open(&buyer));
        drop(seat);
        assert!(!till.is_open(&buyer));
    }
}
