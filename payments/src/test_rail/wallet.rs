//! One wallet of the network, as a payment rail.

use std::fmt;

use async_trait::async_trait;
use infernet_protocol::money::Msat;
use nostr::Timestamp;
use nostr::secp256k1::PublicKey;

use super::fault::{Call, Plan};
use super::world::World;
use super::{Fault, Network};
use crate::rail::{Ask, Direction, Error, Hold, Notices, Order, Payment, PaymentRail, State};
use crate::{Invoice, PaymentHash, Preimage};

/// A wallet of a test network. Clones are the same wallet.
#[derive(Clone)]
pub struct Wallet {
    network: Network,
    index: usize,
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Wallet({})",
            self.network.world().accounts[self.index].name
        )
    }
}

/// Why a call brought nothing.
enum Trouble {
    /// Nobody knows whether it had its effect.
    Lost,
    Refused(Error),
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Lost => Self::Unreachable("no answer".to_owned()),
            Trouble::Refused(error) => error,
        }
    }
}

impl Wallet {
    pub(super) const fn new(network: Network, index: usize) -> Self {
        Self { network, index }
    }

    /// The node's key, as its invoices are signed.
    pub fn node(&self) -> PublicKey {
        self.network.world().accounts[self.index].node
    }

    /// Plans a misbehaviour.
    pub fn misbehave(&self, fault: Fault) {
        self.network.world().accounts[self.index].faults.add(fault);
    }

    /// Takes back all misbehaviour that was planned and has not happened.
    pub fn behave(&self) {
        self.network.world().accounts[self.index].faults = Plan::default();
    }

    /// Stops answering; what comes for it meanwhile goes back.
    pub fn crash(&self) {
        self.network.world().accounts[self.index].is_up = false;
    }

    /// Answers again, with all it had.
    pub fn restart(&self) {
        self.network.world().accounts[self.index].is_up = true;
    }

    /// Denies ever having heard of a payment.
    pub fn forget(&self, hash: PaymentHash) {
        let mut world = self.network.world();
        world.accounts[self.index].forgotten.insert(hash);
    }

    /// Remembers a payment again.
    pub fn remember(&self, hash: &PaymentHash) {
        let mut world = self.network.world();
        world.accounts[self.index].forgotten.remove(hash);
    }

    /// Ends a payment of ours that is under way: it arrives, or comes back.
    pub fn resolve(&self, hash: &PaymentHash, arrives: bool) {
        self.network.world().resolve(self.index, hash, arrives);
    }

    /// How often this wallet has tried to pay, the failed tries counted in.
    pub fn tries(&self, hash: &PaymentHash) -> usize {
        let outgoing = |payment: &Payment| payment.direction == Direction::Outgoing;
        let all = self.network.world().payments(self.index);
        let ours = all.iter().filter(|payment| outgoing(payment));
        ours.filter(|payment| payment.hash == *hash).count()
    }

    /// One call, with what was planned to go wrong.
    fn call<T>(
        &self,
        act: impl FnOnce(&mut World, usize) -> Result<T, Error>,
    ) -> Result<T, Trouble> {
        let mut world = self.network.world();
        let account = &mut world.accounts[self.index];
        if !account.is_up {
            let down = Error::Unreachable("it is down".to_owned());
            return Err(Trouble::Refused(down));
        }
        let call = account.faults.call();
        match call {
            Call::RequestLost => return Err(Trouble::Lost),
            Call::CrashBefore => {
                account.is_up = false;
                return Err(Trouble::Lost);
            }
            Call::Works | Call::AnswerLost | Call::CrashAfter => {}
        }
        let done = act(&mut world, self.index);
        match call {
            Call::Works | Call::RequestLost | Call::CrashBefore => done.map_err(Trouble::Refused),
            Call::AnswerLost => Err(Trouble::Lost),
            Call::CrashAfter => {
                world.accounts[self.index].is_up = false;
                Err(Trouble::Lost)
            }
        }
    }
}

#[async_trait]
impl PaymentRail for Wallet {
    async fn make_invoice(&self, ask: &Ask) -> Result<Invoice, Error> {
        Ok(self.call(|world, account| world.bill(account, ask, None))?)
    }

    async fn make_hold_invoice(&self, ask: &Ask, hold: &Hold) -> Result<Invoice, Error> {
        Ok(self.call(|world, account| world.bill(account, ask, Some(*hold)))?)
    }

    async fn pay(&self, order: &Order) -> Result<Payment, Error> {
        match self.call(|world, account| world.pay(account, order)) {
            Ok(payment) => Ok(payment),
            Err(Trouble::Refused(error)) => Err(error),
            Err(Trouble::Lost) => Ok(Payment {
                direction: Direction::Outgoing,
                hash: order.invoice.hash(),
                amount: order.invoice.amount(),
                state: State::Pending,
                created_at: self.network.now(),
            }),
        }
    }

    async fn look_up(
        &self,
        direction: Direction,
        hash: &PaymentHash,
    ) -> Result<Option<Payment>, Error> {
        Ok(self.call(|world, account| Ok(world.look_up(account, direction, hash)))?)
    }

    async fn list(&self, since: Timestamp) -> Result<Vec<Payment>, Error> {
        let mut all = self.call(|world, account| Ok(world.payments(account)))?;
        all.retain(|payment| payment.created_at >= since);
        Ok(all)
    }

    async fn balance(&self) -> Result<Msat, Error> {
        Ok(self.call(|world, account| Ok(world.accounts[account].balance))?)
    }

    async fn node(&self) -> Result<Option<PublicKey>, Error> {
        Ok(Some(
            self.call(|world, account| Ok(world.accounts[account].node))?,
        ))
    }

    async fn settle(&self, preimage: &Preimage) -> Result<(), Error> {
        Ok(self.call(|world, account| world.settle(account, preimage))?)
    }

    async fn cancel(&self, hash: &PaymentHash) -> Result<(), Error> {
        Ok(self.call(|world, account| world.cancel(account, hash))?)
    }

    fn subscribe(&self) -> Notices {
        let world = self.network.world();
        Notices::new(world.accounts[self.index].notices.subscribe())
    }
}
