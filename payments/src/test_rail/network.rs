//! The network: where wallets meet, and whose clock they go by.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infernet_protocol::money::Msat;
use nostr::Timestamp;

use super::Wallet;
use super::world::World;

/// What those between payer and payee take for a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Routing {
    /// For each payment.
    pub base: Msat,
    /// Millionths of the amount.
    pub parts_per_million: u64,
}

impl Routing {
    /// The fee of a payment, rounded down.
    pub fn fee(&self, amount: Msat) -> Msat {
        let share = u128::from(amount.0) * u128::from(self.parts_per_million) / 1_000_000;
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        Msat(self.base.0.saturating_add(share))
    }
}

/// A network of wallets. Clones share it.
#[derive(Clone)]
pub struct Network(Arc<Mutex<World>>);

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network(at {})", self.now())
    }
}

impl Network {
    /// An empty network whose clock stands at `now`, and where routing is free.
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(World::new(now))))
    }

    /// Changes what routing costs from now on.
    pub fn set_routing(&self, routing: Routing) {
        self.world().routing = routing;
    }

    /// Opens a wallet with so much play money in it.
    pub fn wallet(&self, name: &str, balance: Msat) -> Wallet {
        let index = self.world().open(name, balance);
        Wallet::new(self.clone(), index)
    }

    /// What the network's clock says.
    pub fn now(&self) -> Timestamp {
        self.world().now()
    }

    /// Lets time pass, and all that was to happen in it.
    pub fn advance(&self, time: Duration) {
        self.world().advance(time);
    }

    /// All the money there is: in wallets, under way, and with those who routed it.
    pub fn total(&self) -> Msat {
        self.world().total()
    }

    /// What routing has cost so far.
    pub fn routed(&self) -> Msat {
        self.world().routed
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        // Every change of the world is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
