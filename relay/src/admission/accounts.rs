//! What each key, each address and all together have written, and who has earned standing.
//!
//! An event is charged to one key: to one that the connection identified itself with, if it has standing, else to the
//! author. So throwaway keys cost whoever sends for them, and nobody's account suffers from what others send in
//! its name: it is charged only for what it signed.
//!
//! **Invariant:** whatever strangers do, this takes a bounded amount of memory.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nostr::{EventId, PublicKey};

use super::bucket::{Account, Bucket, Flow, Flows};
use super::load::Load;
use super::networks::networks;
use super::recent::Recent;
use super::refusal::Refusal;
use crate::options::{Limits, Work};

/// Keys, of each sort, and networks that are remembered. An entry has some hundred bytes.
const REMEMBERED: usize = 65_536;

/// Bytes that the store needs to find an event.
const INDEXED: u64 = 500;

/// As many events an event with a wrong signature counts.
const FORGED: u64 = 20;

/// How a key is known apart from what it has earned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Not at all.
    Unknown,
    /// Somebody whom the operator trusts names it as a partner.
    Trusted,
    /// The operator itself chose it.
    Listed,
}

/// An event, as far as it is charged.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Who signed it.
    pub author: PublicKey,
    /// Whom the connection identified itself as.
    pub authenticated: &'a [PublicKey],
    /// Where it comes from; `None` is not counted.
    pub address: Option<IpAddr>,
    /// Its bytes as JSON.
    pub bytes: u64,
    /// Whether it will be stored.
    pub is_stored: bool,
    /// The work that it shows itself.
    pub work: Option<Shown>,
}

impl Claim<'_> {
    /// Bytes that it will take on the disk, with its entries in the index.
    fn stored(&self) -> u64 {
        match self.is_stored {
            true => self.bytes + INDEXED,
            false => 0,
        }
    }
}

/// Work (NIP-13) that an event shows.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// The event.
    pub id: EventId,
    /// The bits that it committed to and has.
    pub bits: u8,
}

/// How an event is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// By the share of those without standing.
    None,
    /// By work that its key has shown before.
    Earned,
    /// As [`Rank::Trusted`].
    Trusted,
    /// As [`Rank::Listed`].
    Listed,
}

#[derive(Debug, Default, Clone, Copy)]
struct Network {
    events: Bucket,
    requests: Bucket,
    standings: Bucket,
    stored: Bucket,
}

/// Standing that was bought by work.
#[derive(Debug, Clone, Copy)]
struct Earned {
    until: Duration,
    events: u64,
    bytes: u64,
}

impl Earned {
    fn lasts(&self, now: Duration) -> bool {
        self.until > now && self.events > 0 && self.bytes > 0
    }
}

/// All accounts. Every call takes about a microsecond; time is counted from any one instant on.
#[derive(Debug)]
pub struct Accounts {
    limits: Limits,
    work: Work,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    networks: Recent<IpAddr, Network>,
    strangers: Recent<PublicKey, Account>,
    known: Recent<PublicKey, Account>,
    earned: Recent<PublicKey, Earned>,
    /// Work that has bought standing, and buys none again.
    spent: Recent<EventId, ()>,
    all: Account,
    load: Load,
}

impl Accounts {
    /// Nobody has written anything yet.
    pub fn new(limits: &Limits, work: &Work) -> Self {
        let state = State {
            networks: Recent::new(REMEMBERED),
            strangers: Recent::new(REMEMBERED),
            known: Recent::new(REMEMBERED),
            earned: Recent::new(REMEMBERED),
            spent: Recent::new(REMEMBERED),
            all: Account::default(),
            load: Load::new(work.clone(), limits.all.events.per_second),
        };
        Self {
            limits: limits.clone(),
            work: work.clone(),
            state: Mutex::new(state),
        }
    }

    /// An event came from `address`, whatever becomes of it.
    ///
    /// # Errors
    /// [`Refusal::TooFast`]; then it was not counted.
    pub fn arrived(&self, address: Option<IpAddr>, now: Duration) -> Result<(), Refusal> {
        let flow = self.limits.address.events.into();
        self.count(address, flow, now, "events from your address", |of| {
            &mut of.events
        })
    }

    /// A request came from `address`.
    ///
    /// # Errors
    /// [`Refusal::TooFast`]; then it was not counted.
    pub fn asked(&self, address: Option<IpAddr>, now: Duration) -> Result<(), Refusal> {
        let flow = self.limits.address.requests.into();
        self.count(address, flow, now, "requests from your address", |of| {
            &mut of.requests
        })
    }

    /// Answering requests from `address` took so long. Each millisecond counts as one more request.
    pub fn took(&self, address: Option<IpAddr>, time: Duration, now: Duration) {
        let requests = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if requests > 0 {
            let (flow, address) = (self.limits.address.requests.into(), self.counted(address));
            self.state()
                .take(address, requests, flow, now, |of| &mut of.requests);
        }
    }

    fn count(
        &self,
        address: Option<IpAddr>,
        flow: Flow,
        now: Duration,
        what: &'static str,
        of: impl Fn(&mut Network) -> &mut Bucket,
    ) -> Result<(), Refusal> {
        let address = self.counted(address);
        let mut state = self.state();
        let found = state.has_left(address, 1, flow, now, &of);
        found.map_err(|wait| too_fast(what, wait))?;
        state.take(address, 1, flow, now, &of);
        Ok(())
    }

    /// What came from `address` had a wrong signature, which costs as much as many events that are refused earlier.
    pub fn forged(&self, address: Option<IpAddr>, now: Duration) {
        let flow = self.limits.address.events.into();
        let address = self.counted(address);
        self.state()
            .take(address, FORGED, flow, now, |of| &mut of.events);
    }

    /// Whether an event would be taken. Nothing is charged.
    ///
    /// # Errors
    /// [`Refusal::Work`] or [`Refusal::TooFast`].
    pub fn would(
        &self,
        claim: &Claim<'_>,
        rank: impl Fn(&PublicKey) -> Rank,
        now: Duration,
    ) -> Result<(), Refusal> {
        self.weigh(&mut self.state(), claim, rank, now).map(drop)
    }

    /// Charges for an event whose signature is right; the work that it shows gives its author standing.
    ///
    /// # Errors
    /// As [`Accounts::would`]; then nothing is charged.
    pub fn charge(
        &self,
        claim: &Claim<'_>,
        rank: impl Fn(&PublicKey) -> Rank,
        now: Duration,
    ) -> Result<(), Refusal> {
        let mut state = self.state();
        let bill = self.weigh(&mut state, claim, rank, now)?;
        if let Some(shown) = bill.buys {
            self.buy(&mut state, claim.author, shown, claim.address, now);
        }
        match bill.standing {
            Standing::None if !state.load.is_off() => {
                let mut account = state.strangers.value(&bill.payer);
                account.take(self.limits.stranger.into(), claim.bytes, now);
                state.strangers.insert(bill.payer, account);
                state.load.accepted_free(claim.bytes, now);
            }
            Standing::Listed => {}
            _ => {
                let mut account = state.known.value(&bill.payer);
                account.take(self.limits.key.into(), claim.bytes, now);
                state.known.insert(bill.payer, account);
            }
        }
        if bill.standing == Standing::Earned {
            state.spend_standing(bill.payer, claim.stored());
            state.load.accepted_worked(claim.stored(), now);
        }
        if bill.standing < Standing::Listed {
            let (address, flow) = (self.counted(claim.address), self.stored_flow());
            state.take(address, claim.stored(), flow, now, |of| &mut of.stored);
        }
        state.all.take(self.limits.all.into(), claim.bytes, now);
        Ok(())
    }

    /// A key has identified itself, and showed work by that: it earns standing if that is enough.
    pub fn identified(&self, key: PublicKey, shown: Shown, address: Option<IpAddr>, now: Duration) {
        let mut state = self.state();
        if state.is_enough(shown, now) && self.may_buy(&state, address, now).is_ok() {
            self.buy(&mut state, key, shown, address, now);
        }
    }

    /// Bits asked at this moment of a key without standing.
    pub fn work_asked(&self, now: Duration) -> u8 {
        self.state().load.asked(0, now)
    }

    /// Decides who pays for an event, and whether they can.
    fn weigh(
        &self,
        state: &mut State,
        claim: &Claim<'_>,
        rank: impl Fn(&PublicKey) -> Rank,
        now: Duration,
    ) -> Result<Bill, Refusal> {
        let mut bill = state.bill(claim, rank, now);
        if bill.standing == Standing::None && !state.load.is_off() {
            bill = self.weigh_stranger(state, claim, bill, now)?;
        } else if bill.standing != Standing::Listed {
            let account = state.known.value(&bill.payer);
            let found = account.has(self.limits.key.into(), claim.bytes, now);
            found.map_err(|wait| too_fast("events by your key", wait))?;
        }
        if bill.standing < Standing::Listed {
            let (address, flow) = (self.counted(claim.address), self.stored_flow());
            let found = state.has_left(address, claim.stored(), flow, now, |of| &mut of.stored);
            found.map_err(|wait| too_fast("bytes from your address", wait))?;
        }
        let all = Flows::from(self.limits.all);
        let all = match bill.standing {
            Standing::Trusted | Standing::Listed => all,
            Standing::None | Standing::Earned => all.without_reserve(),
        };
        let found = state.all.has(all, claim.bytes, now);
        found.map_err(|wait| too_fast("events on this relay", wait))?;
        Ok(bill)
    }

    /// A key without standing shows work, or takes part in the share without, or is asked for work.
    fn weigh_stranger(
        &self,
        state: &mut State,
        claim: &Claim<'_>,
        bill: Bill,
        now: Duration,
    ) -> Result<Bill, Refusal> {
        let account = state.strangers.value(&bill.payer);
        let shown = claim.work.filter(|shown| state.is_enough(*shown, now));
        let share = account.has(self.limits.stranger.into(), claim.bytes, now);
        let asked = match share {
            Ok(()) => state.load.asked(claim.bytes, now),
            Err(_) => state.load.price(now),
        };
        if shown.is_none() && asked == 0 {
            return Ok(bill);
        }
        self.may_buy(state, claim.address, now)
            .map_err(|wait| too_fast("new keys from your address", wait))?;
        match shown {
            None => Err(Refusal::Work(asked)),
            Some(_) => Ok(Bill {
                standing: Standing::Earned,
                buys: shown,
                ..bill
            }),
        }
    }

    fn may_buy(
        &self,
        state: &State,
        address: Option<IpAddr>,
        now: Duration,
    ) -> Result<(), Duration> {
        let flow = Flow::hourly(self.limits.address.standings_per_hour);
        let address = self.counted(address);
        state.has_left(address, 1, flow, now, |of| &mut of.standings)
    }

    fn buy(
        &self,
        state: &mut State,
        key: PublicKey,
        work: Shown,
        address: Option<IpAddr>,
        now: Duration,
    ) {
        let flow = Flow::hourly(self.limits.address.standings_per_hour);
        let address = self.counted(address);
        state.take(address, 1, flow, now, |of| &mut of.standings);
        state.spent.insert(work.id, ());
        state.load.bought(work.bits, now);
        let earned = Earned {
            until: now + Duration::from_secs(self.work.standing_secs),
            events: self.work.standing_events,
            bytes: self.work.standing_bytes,
        };
        state.earned.insert(key, earned);
    }

    fn stored_flow(&self) -> Flow {
        Flow::hourly(self.limits.address.stored_per_hour)
    }

    /// The address, if it is one that is counted.
    fn counted(&self, address: Option<IpAddr>) -> Option<IpAddr> {
        let is_counted =
            |of: &IpAddr| self.limits.count_loopback || !of.to_canonical().is_loopback();
        address.filter(is_counted)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts are sound whatever their last user did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who pays for an event, and how.
#[derive(Debug, Clone, Copy)]
struct Bill {
    payer: PublicKey,
    standing: Standing,
    /// The work that buys its author standing.
    buys: Option<Shown>,
}

impl State {
    fn bill(&self, claim: &Claim<'_>, rank: impl Fn(&PublicKey) -> Rank, now: Duration) -> Bill {
        let standing = |key: &PublicKey| self.standing(key, rank(key), now);
        let mut best = (claim.author, standing(&claim.author));
        for key in claim.authenticated {
            let other = (*key, standing(key));
            // What is sent over a connection is charged to who has identified itself there.
            if other.1 != Standing::None && other.1 >= best.1 {
                best = other;
            }
        }
        Bill {
            payer: best.0,
            standing: best.1,
            buys: None,
        }
    }

    fn standing(&self, key: &PublicKey, rank: Rank, now: Duration) -> Standing {
        match rank {
            Rank::Listed => Standing::Listed,
            Rank::Trusted => Standing::Trusted,
            Rank::Unknown => match self.earned.get(key) {
                Some(earned) if earned.lasts(now) => Standing::Earned,
                _ => Standing::None,
            },
        }
    }

    fn spend_standing(&mut self, key: PublicKey, stored: u64) {
        if let Some(mut earned) = self.earned.get(&key).copied() {
            earned.events = earned.events.saturating_sub(1);
            earned.bytes = earned.bytes.saturating_sub(stored);
            self.earned.insert(key, earned);
        }
    }

    fn is_enough(&mut self, shown: Shown, now: Duration) -> bool {
        let is_enough = !self.load.is_off() && shown.bits >= self.load.enough(now).max(1);
        is_enough && self.spent.get(&shown.id).is_none()
    }

    fn has_left(
        &self,
        address: Option<IpAddr>,
        amount: u64,
        flow: Flow,
        now: Duration,
        of: impl Fn(&mut Network) -> &mut Bucket,
    ) -> Result<(), Duration> {
        let networks = address.into_iter().flat_map(networks);
        let mut left = networks.map(|(network, size)| {
            let mut counted = self.networks.value(&network);
            of(&mut counted).has(flow.times(size), amount, now)
        });
        left.find(Result::is_err).unwrap_or(Ok(()))
    }

    fn take(
        &mut self,
        address: Option<IpAddr>,
        amount: u64,
        flow: Flow,
        now: Duration,
        of: impl Fn(&mut Network) -> &mut Bucket,
    ) {
        for (network, size) in address.into_iter().flat_map(networks) {
            let mut counted = self.networks.value(&network);
            of(&mut counted).take(flow.times(size), amount, now);
            self.networks.insert(network, counted);
        }
    }
}

fn too_fast(what: &'static str, wait: Duration) -> Refusal {
    Refusal::TooFast {
        what,
        secs: wait.as_secs() + 1,
    }
}

#[cfg(test)]
mod tests;
