//! What the wallet says, and what time brings.

use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use infernet_payments::cashier::{self, Change};
use infernet_payments::ledger::{Reason, Standing};
use infernet_payments::rail::Direction;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::account::Account;
use super::{Till, WALLET_PATIENCE, no_answer};
use crate::status::Wallet;

/// How often everything that is open is asked about.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How often the wallet is asked about invoices that somebody waits for, since a
/// notice may be lost.
const PEEK_EVERY: Duration = Duration::from_secs(3);

/// How often time passes for accounts.
const TICK: Duration = Duration::from_millis(250);

/// How often the wallet's balance is asked for, to show it.
const VISIT_EVERY: Duration = Duration::from_secs(30);

/// The same while it cannot be reached.
const RETRY: Duration = Duration::from_secs(5);

/// How long the wallet is left alone in any case.
const BREATH: Duration = Duration::from_secs(1);

/// How long to wait after the ledger failed.
const PAUSE: Duration = Duration::from_secs(2);

impl Till {
    /// Follows the wallet until the till is closed.
    pub(super) fn watch(&self) {
        // Before anything can be told.
        let changes = self.0.cashier.subscribe();
        let (till, stop) = (self.clone(), self.0.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = till.follow() => {}
                () = till.listen(changes) => {}
                () = till.tick() => {}
                () = till.peek() => {}
                () = till.visit() => {}
                () = stop.cancelled() => {}
            }
        });
    }

    async fn follow(&self) {
        loop {
            let cashier = &self.0.cashier;
            let notices = cashier.rail().subscribe();
            if let Err(error) = cashier.follow(notices, LOOK_EVERY, clock::now).await {
                tracing::error!(%error, "cannot book what the wallet says");
            }
            sleep(PAUSE).await;
        }
    }

    async fn listen(&self, mut changes: broadcast::Receiver<Change>) {
        loop {
            match changes.recv().await {
                Ok(change) => self.hear(&change).await,
                Err(RecvError::Lagged(_)) => self.sync_all().await,
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn hear(&self, change: &Change) {
        let intent = &change.intent;
        if intent.standing == Standing::Settled {
            self.0.moved.notify_one();
            if intent.direction == Direction::Incoming {
                self.customers().insert(intent.counterparty);
            }
        }
        // Made after this, it knows.
        let account = self.account(&intent.counterparty);
        if let Some(account) = &account {
            self.sync(account).await;
        }
        report(change);
        if let Some(account) = account
            && intent.direction == Direction::Incoming
            && intent.standing == Standing::Failed
            && let Some(hash) = intent.hash()
        {
            self.step(&account, |book, now| book.lapses(now, &hash));
        }
    }

    async fn sync_all(&self) {
        for account in self.all() {
            self.sync(&account).await;
        }
    }

    fn all(&self) -> Vec<Arc<Account>> {
        self.accounts().values().cloned().collect()
    }

    async fn tick(&self) {
        let mut round = every(TICK);
        loop {
            round.tick().await;
            for account in self.all() {
                self.step(&account, |book, now| book.ticks(now, clock::now()));
            }
        }
    }

    async fn peek(&self) {
        let mut round = every(PEEK_EVERY);
        loop {
            round.tick().await;
            let mut accounts = self.all();
            // Those who have paid before need not wait for a flood of others.
            accounts.sort_by_key(|account| account.is_strangers());
            for account in accounts {
                let unpaid = account.book().unpaid();
                let Some(hash) = unpaid else { continue };
                if let Err(error) = self.look_up(&hash).await {
                    tracing::debug!(%error, "the wallet cannot be asked");
                    // The next round asks again; asking for each would take long.
                    break;
                }
            }
        }
    }

    /// Waits until the wallet was reached for the first time.
    pub async fn greet(&self) {
        let mut wallet = self.0.wallet.subscribe();
        // The sender is ours.
        let _ = wallet.wait_for(|wallet| wallet.is_reachable).await;
    }

    async fn visit(&self) {
        let mut has_books = false;
        loop {
            let wallet = self.look_in().await;
            if wallet.is_reachable && !has_books {
                match self.catch_up().await {
                    Ok(()) => has_books = true,
                    Err(error) => tracing::warn!(%error, "cannot write down what is in the wallet"),
                }
            }
            let again = if wallet.is_reachable {
                VISIT_EVERY
            } else {
                RETRY
            };
            self.0.wallet.send_replace(wallet);
            sleep(BREATH).await;
            // Money has moved, or it is time.
            let _ = timeout(again, self.0.moved.notified()).await;
        }
    }

    /// Books what has come while nobody looked. What is in a wallet at first came
    /// from elsewhere.
    async fn catch_up(&self) -> Result<(), cashier::Error> {
        self.0.cashier.resume(clock::now()).await?;
        self.0.cashier.open_books(clock::now()).await
    }

    /// Asks the wallet how it stands.
    async fn look_in(&self) -> Wallet {
        let rail = self.0.cashier.rail();
        let balance = timeout(WALLET_PATIENCE, rail.balance()).await;
        let balance = balance.unwrap_or_else(|_| Err(no_answer()));
        let known = self.wallet();
        let node = match known.node {
            Some(node) => Some(node),
            None => {
                let node = timeout(WALLET_PATIENCE, rail.node()).await;
                node.ok().and_then(Result::ok).flatten()
            }
        };
        let wallet = match balance {
            Ok(balance) => Wallet {
                is_reachable: true,
                balance_msat: Some(balance),
                trouble: None,
                node,
            },
            Err(error) => Wallet {
                is_reachable: !error.is_temporary(),
                trouble: Some(error.to_string()),
                node,
                ..known
            },
        };
        if known.is_reachable && !wallet.is_reachable {
            tracing::warn!(
                trouble = wallet.trouble,
                "the wallet cannot be reached: buyers are not asked for money"
            );
        }
        wallet
    }
}

/// Says what has become of a payment, once its tab knows.
fn report(change: &Change) {
    let (intent, amount) = (&change.intent, change.amount);
    let peer = intent.counterparty;
    match (intent.reason, intent.standing) {
        (Reason::TopUp, Standing::Settled) => {
            let payment = intent.hash().map(tracing::field::display);
            tracing::info!(%peer, payment, %amount, "a top-up has come");
        }
        (Reason::Payout, Standing::Settled) => {
            let payment = intent.hash().map(tracing::field::display);
            tracing::info!(%peer, payment, %amount, "a payout has come");
        }
        (Reason::Refund, Standing::Settled) => {
            tracing::info!(%peer, %amount, fee = %change.fee, "paid back");
        }
        (Reason::Refund, Standing::Failed) => tracing::warn!(%peer, "a refund has failed"),
        _ => {}
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut round = interval(period);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    round
}
