//! The network's state: accounts, invoices, payments under way, and what happens when.

mod issuing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use infernet_protocol::money::Msat;
use nostr::Timestamp;
use nostr::secp256k1::{PublicKey, SECP256K1, SecretKey};
use tokio::sync::broadcast;

use super::Routing;
use super::fault::{Fate, Plan};
use crate::rail::{
    Direction, Error, Hold, MAX_UNREAD_NOTICES, Notice, Order, OrderKey, Payment, State,
};
use crate::{Invoice, PaymentHash, Preimage};

/// How long a block takes, for what counts in blocks.
const BLOCK: Duration = Duration::from_secs(600);

pub(super) struct World {
    now_ms: u64,
    pub(super) routing: Routing,
    pub(super) accounts: Vec<Account>,
    pub(super) transfers: Vec<Transfer>,
    /// What routing has cost so far.
    pub(super) routed: Msat,
    /// What happens when, in order.
    agenda: BTreeMap<(u64, u64), Event>,
    /// Makes hashes differ, also from those of another network.
    seed: [u8; 32],
    drawn: u64,
}

pub(super) struct Account {
    pub(super) name: String,
    pub(super) balance: Msat,
    pub(super) is_up: bool,
    pub(super) faults: Plan,
    /// Payments that the wallet has forgotten.
    pub(super) forgotten: BTreeSet<PaymentHash>,
    pub(super) notices: broadcast::Sender<Notice>,
    pub(super) node: PublicKey,
    key: SecretKey,
    bills: BTreeMap<PaymentHash, Bill>,
}

/// An invoice of ours, and what became of it.
struct Bill {
    invoice: Invoice,
    preimage: Option<Preimage>,
    hold: Option<Hold>,
    state: State,
}

/// A payment from one wallet to another.
pub(super) struct Transfer {
    payer: usize,
    payee: usize,
    key: OrderKey,
    pub(super) hash: PaymentHash,
    amount: Msat,
    fee: Msat,
    pub(super) state: State,
    created_at: Timestamp,
}

enum Event {
    Arrive(usize),
    Fail(usize),
}

impl World {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now_ms: now.as_secs() * 1_000,
            routing: Routing::default(),
            accounts: Vec::new(),
            transfers: Vec::new(),
            routed: Msat::ZERO,
            agenda: BTreeMap::new(),
            seed: rand::random(),
            drawn: 0,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.now_ms / 1_000)
    }

    pub(super) fn open(&mut self, name: &str, balance: Msat) -> usize {
        let key = self.secret_key();
        self.accounts.push(Account {
            name: name.to_owned(),
            balance,
            is_up: true,
            faults: Plan::default(),
            forgotten: BTreeSet::new(),
            notices: broadcast::channel(MAX_UNREAD_NOTICES).0,
            node: PublicKey::from_secret_key(SECP256K1, &key),
            key,
            bills: BTreeMap::new(),
        });
        self.accounts.len() - 1
    }

    pub(super) fn total(&self) -> Msat {
        let kept = self.accounts.iter().map(|account| account.balance.0);
        let under_way = self.transfers.iter();
        let under_way = under_way.filter(|transfer| !transfer.state.is_final());
        let under_way = under_way.map(|transfer| transfer.amount.0 + transfer.fee.0);
        Msat(kept.chain(under_way).sum::<u64>() + self.routed.0)
    }

    pub(super) fn advance(&mut self, time: Duration) {
        let until = self.now_ms + millis(time);
        while let Some(next) = self.agenda.first_entry() {
            let (at_ms, _) = *next.key();
            if at_ms > until {
                break;
            }
            let event = next.remove();
            self.now_ms = self.now_ms.max(at_ms);
            match event {
                Event::Arrive(transfer) => self.arrive(transfer),
                Event::Fail(transfer) => self.fail(transfer),
            }
        }
        self.now_ms = until;
    }

    pub(super) fn pay(&mut self, payer: usize, order: &Order) -> Result<Payment, Error> {
        if let Some(known) = self.known_order(payer, order) {
            return Ok(self.outgoing(known));
        }
        if order.invoice.is_expired(self.now()) {
            return Err(Error::Refused("the invoice has expired".to_owned()));
        }
        let node = order.invoice.payee();
        let payee = self.accounts.iter().position(|other| other.node == node);
        let fee = self.routing.fee(order.invoice.amount());
        let transfer = Transfer {
            payer,
            payee: payee.unwrap_or(payer),
            key: order.key,
            hash: order.invoice.hash(),
            amount: order.invoice.amount(),
            fee,
            state: State::Failed,
            created_at: self.now(),
        };
        if payee == Some(payer) {
            return Err(Error::Refused("nobody pays itself".to_owned()));
        }
        let has_route = payee.is_some() && fee <= order.max_fee;
        self.begin(transfer, has_route)
    }

    /// Takes the money from its payer and sends it on its way.
    fn begin(&mut self, mut transfer: Transfer, has_route: bool) -> Result<Payment, Error> {
        let payer = &mut self.accounts[transfer.payer];
        let cost = Msat(transfer.amount.0.saturating_add(transfer.fee.0));
        let left = payer.balance.checked_sub(cost);
        let left = left.ok_or(Error::InsufficientBalance)?;
        let index = self.transfers.len();
        if has_route {
            payer.balance = left;
            transfer.state = State::Pending;
        }
        let fate = payer.faults.fate();
        self.transfers.push(transfer);
        match fate {
            _ if !has_route => {}
            Fate::Arrives { after } if after.is_zero() => self.arrive(index),
            Fate::Fails { after } if after.is_zero() => self.fail(index),
            Fate::Arrives { after } => self.plan(after, Event::Arrive(index)),
            Fate::Fails { after } => self.plan(after, Event::Fail(index)),
            Fate::Sticks => {}
        }
        Ok(self.outgoing(index))
    }

    /// The order itself, or another one for the same invoice that may still pay.
    fn known_order(&self, payer: usize, order: &Order) -> Option<usize> {
        let hash = order.invoice.hash();
        self.transfers.iter().position(|transfer| {
            let same = transfer.key == order.key;
            let paying = transfer.hash == hash && transfer.state != State::Failed;
            transfer.payer == payer && (same || paying)
        })
    }

    /// Ends a payment that is under way: it arrives, or comes back.
    pub(super) fn resolve(&mut self, payer: usize, hash: &PaymentHash, arrives: bool) {
        let stuck = self.transfers.iter().position(|transfer| {
            transfer.payer == payer && transfer.hash == *hash && transfer.state == State::Pending
        });
        match stuck {
            Some(transfer) if arrives => self.arrive(transfer),
            Some(transfer) => self.fail(transfer),
            None => {}
        }
    }

    fn arrive(&mut self, index: usize) {
        let Transfer { payee, hash, .. } = self.transfers[index];
        if self.transfers[index].state.is_final() {
            return;
        }
        let is_up = self.accounts[payee].is_up;
        let bill = self.accounts[payee].bills.get_mut(&hash);
        let Some(bill) = bill.filter(|bill| is_up && bill.state == State::Pending) else {
            return self.fail(index);
        };
        match (bill.hold, bill.preimage) {
            (Some(hold), _) => {
                bill.state = State::Held;
                let deadline = BLOCK * u32::from(hold.min_cltv_expiry_delta);
                self.plan(deadline, Event::Fail(index));
                self.tell(payee, Direction::Incoming, &hash);
            }
            (None, Some(preimage)) => self.take(index, preimage),
            (None, None) => self.fail(index),
        }
    }

    /// The payee takes the money.
    fn take(&mut self, index: usize, preimage: Preimage) {
        let at = self.now();
        let transfer = &mut self.transfers[index];
        let settled = |fee| State::Settled {
            at,
            fee,
            preimage: Some(preimage),
        };
        transfer.state = settled(transfer.fee);
        let (payer, payee, hash) = (transfer.payer, transfer.payee, transfer.hash);
        self.routed.0 += transfer.fee.0;
        self.accounts[payee].balance.0 += transfer.amount.0;
        if let Some(bill) = self.accounts[payee].bills.get_mut(&hash) {
            bill.state = settled(Msat::ZERO);
        }
        self.tell(payee, Direction::Incoming, &hash);
        self.tell(payer, Direction::Outgoing, &hash);
    }

    /// The money comes back to its payer.
    fn fail(&mut self, index: usize) {
        let transfer = &mut self.transfers[index];
        if transfer.state.is_final() {
            return;
        }
        transfer.state = State::Failed;
        let (payer, payee, hash) = (transfer.payer, transfer.payee, transfer.hash);
        self.accounts[payer].balance.0 += transfer.amount.0 + transfer.fee.0;
        let bill = self.accounts[payee].bills.get_mut(&hash);
        if let Some(bill) = bill.filter(|bill| bill.state == State::Held) {
            bill.state = State::Failed;
        }
    }

    pub(super) fn settle(&mut self, account: usize, preimage: &Preimage) -> Result<(), Error> {
        let hash = preimage.hash();
        match self.hold_state(account, &hash)? {
            State::Held => {}
            State::Settled { .. } => return Ok(()),
            State::Pending | State::Failed | State::Expired => return Err(Error::NotFound),
        }
        let held = self.under_way_to(account, &hash).ok_or(Error::NotFound)?;
        self.take(held, *preimage);
        Ok(())
    }

    pub(super) fn cancel(&mut self, account: usize, hash: &PaymentHash) -> Result<(), Error> {
        match self.hold_state(account, hash)? {
            State::Held | State::Pending => {}
            State::Failed | State::Expired => return Ok(()),
            State::Settled { .. } => return Err(Error::NotFound),
        }
        if let Some(held) = self.under_way_to(account, hash) {
            self.fail(held);
        }
        if let Some(bill) = self.accounts[account].bills.get_mut(hash) {
            bill.state = State::Failed;
        }
        Ok(())
    }

    fn hold_state(&self, account: usize, hash: &PaymentHash) -> Result<State, Error> {
        let bill = self.accounts[account].bills.get(hash);
        let bill = bill.filter(|bill| bill.hold.is_some());
        bill.map(|bill| bill.state).ok_or(Error::NotFound)
    }

    fn under_way_to(&self, payee: usize, hash: &PaymentHash) -> Option<usize> {
        self.transfers.iter().position(|transfer| {
            transfer.payee == payee && transfer.hash == *hash && !transfer.state.is_final()
        })
    }

    /// What a wallet knows of a payment.
    pub(super) fn look_up(
        &self,
        account: usize,
        direction: Direction,
        hash: &PaymentHash,
    ) -> Option<Payment> {
        if self.accounts[account].forgotten.contains(hash) {
            return None;
        }
        let (hash, mut all) = (*hash, self.payments(account));
        all.reverse();
        all.into_iter()
            .find(|payment| payment.direction == direction && payment.hash == hash)
    }

    /// All that a wallet has been asked and paid, the oldest first.
    pub(super) fn payments(&self, account: usize) -> Vec<Payment> {
        let ours = &self.accounts[account];
        let incoming = ours.bills.values().map(|bill| self.incoming(bill));
        let outgoing = (0..self.transfers.len())
            .filter(|index| self.transfers[*index].payer == account)
            .map(|index| self.outgoing(index));
        let known = |payment: &Payment| !ours.forgotten.contains(&payment.hash);
        let mut all: Vec<Payment> = incoming.chain(outgoing).filter(known).collect();
        all.sort_by_key(|payment| payment.created_at);
        all
    }

    fn incoming(&self, bill: &Bill) -> Payment {
        let is_over = bill.state == State::Pending && bill.invoice.is_expired(self.now());
        Payment {
            direction: Direction::Incoming,
            hash: bill.invoice.hash(),
            amount: bill.invoice.amount(),
            state: match is_over {
                true => State::Expired,
                false => bill.state,
            },
            created_at: bill.invoice.created_at(),
        }
    }

    fn outgoing(&self, index: usize) -> Payment {
        let transfer = &self.transfers[index];
        Payment {
            direction: Direction::Outgoing,
            hash: transfer.hash,
            amount: transfer.amount,
            state: transfer.state,
            created_at: transfer.created_at,
        }
    }

    /// Tells a wallet's listeners how a payment stands.
    fn tell(&mut self, account: usize, direction: Direction, hash: &PaymentHash) {
        let Some(payment) = self.look_up(account, direction, hash) else {
            return;
        };
        let account = &mut self.accounts[account];
        if !account.is_up {
            return;
        }
        for _ in 0..account.faults.tellings() {
            // Nobody may be listening.
            let _ = account.notices.send(Notice::Changed(payment.clone()));
        }
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.drawn += 1;
        let at_ms = self.now_ms + millis(after);
        self.agenda.insert((at_ms, self.drawn), event);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}
