//! Who may write and read, and what it costs them.
//!
//! An event is judged twice. [`Admission::glance`] comes before its signature is checked, takes some microseconds, and
//! asks neither disk nor network: lists, time, kind, who may write, limits, work. [`Admission::examine`] comes after it,
//! looks into the event, and charges for it. What was stored is then told to [`Admission::admitted`], which learns from
//! it. What clients read of all this is in `nips/relay.md`.
//!
//! - `rules`: what holds for an event by itself.
//! - `accounts`: limits by key, by address and over all; standing, earned by work. `load` says how much work.
//! - `trust`, `bans`: whom others vouch for, and whom they warn of.
//! - `reading`: who may see what.

mod accounts;
mod bans;
mod bucket;
mod load;
mod networks;
mod reading;
mod recall;
mod recent;
mod refusal;
mod rules;
mod trust;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use nostr::nips::nip13;
use nostr::{Event, Filter, Kind, PublicKey, Timestamp};
use tokio::time::Instant;

use crate::lists::Lists;
use crate::options::{Access, Auth, Options};
use accounts::{Accounts, Claim, Rank, Shown};
use bans::Bans;
use networks::Connections;
pub use networks::Place;
pub use refusal::Refusal;
pub use rules::{COMPANIONS, MAX_AHEAD_SECS, MAX_IDENTIFIER_BYTES};
use trust::{Trust, Word};

/// Seconds after which work buys nothing any more, so that nobody saves it up.
const WORK_LASTS_SECS: u64 = 3_600;

/// Where an event or a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The client's address, behind proxies. `None` if it is not known: then it is not counted.
    pub address: Option<IpAddr>,
    /// The keys that the connection has identified itself with (NIP-42).
    pub authenticated: &'a [PublicKey],
    /// By which way.
    pub source: Source,
}

/// By which way an event comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Source {
    /// A client sends it.
    #[default]
    Client,
    /// It is fetched from another relay: rules and lists hold, limits and work do not.
    Sync,
    /// The operator imports it: as with [`Source::Sync`].
    Import,
}

/// Decides. It is shared by all connections, and forgets what it counted when the relay ends.
#[derive(Debug)]
pub struct Admission {
    general: bool,
    operators: Vec<PublicKey>,
    auth: Auth,
    count_loopback: bool,
    connections_each: usize,
    lists: Arc<Lists>,
    accounts: Accounts,
    connections: Connections,
    coming: Connections,
    bans: Bans,
    trust: Trust,
    start: Instant,
}

impl Admission {
    /// By the operator's options and lists. It knows of no bans and trusts nobody yet.
    pub fn new(options: &Options, lists: Arc<Lists>) -> Self {
        let operators = options.admins.iter().chain(&options.pubkey);
        Self {
            general: options.general,
            operators: operators.copied().collect(),
            auth: options.auth.clone(),
            count_loopback: options.limits.count_loopback,
            connections_each: options.limits.address.connections,
            lists,
            accounts: Accounts::new(&options.limits, &options.work),
            connections: Connections::default(),
            coming: Connections::default(),
            bans: Bans::new(&options.follow_bans),
            trust: Trust::new(&options.trust),
            start: Instant::now(),
        }
    }

    /// An event came, whatever it is: right, wrong, or known already. To be called first, and once for each.
    ///
    /// # Errors
    /// When its sender's address is blocked or sends too many.
    pub fn arrived(&self, origin: &Origin<'_>) -> Result<(), Refusal> {
        if origin.source != Source::Client {
            return Ok(());
        }
        self.check_blocked(origin)?;
        self.accounts.arrived(origin.address, self.now())
    }

    /// Judges an event before its signature is checked. Its id must be right.
    ///
    /// # Errors
    /// With the reason to refuse it.
    pub fn glance(&self, event: &Event, origin: &Origin<'_>) -> Result<(), Refusal> {
        self.check_lists(event, origin)?;
        let wanted = self.lists.kind(event.kind);
        rules::glance(event, self.general, wanted, clock::now())?;
        self.check_protected(event, origin)?;
        let bytes = rules::size(event)?;
        if origin.source != Source::Client {
            return Ok(());
        }
        self.check_writer(event, origin)?;
        let claim = self.claim(event, origin, bytes);
        self.accounts
            .would(&claim, |key| self.rank(key), self.now())
    }

    /// Judges an event whose signature is right, and charges for it.
    ///
    /// # Errors
    /// With the reason to refuse it; then nothing was charged.
    pub fn examine(&self, event: &Event, origin: &Origin<'_>) -> Result<(), Refusal> {
        rules::examine(event)?;
        self.bans.check(event)?;
        if origin.source != Source::Client {
            return Ok(());
        }
        let claim = self.claim(event, origin, rules::size(event)?);
        self.accounts
            .charge(&claim, |key| self.rank(key), self.now())
    }

    /// An event that passed [`Admission::glance`] had a wrong signature: its sender's address pays for the check.
    pub fn forged(&self, origin: &Origin<'_>) {
        self.accounts.forged(origin.address, self.now());
    }

    /// Learns from an event that was admitted: whom it bans, whom it vouches for.
    pub fn admitted(&self, event: &Event) {
        self.bans.take(event);
        self.trust.take(event);
    }

    /// Learns that a connection has identified itself by `auth`, which was right in everything: the work that it shows
    /// gives its author standing.
    pub fn identified(&self, auth: &Event, origin: &Origin<'_>) {
        if let Some(shown) = shown(auth, clock::now()) {
            self.accounts
                .identified(auth.pubkey, shown, origin.address, self.now());
        }
    }

    /// A place for a connection from `address` that is no websocket yet, which it keeps while the answer lives. `None`
    /// is not counted.
    ///
    /// # Errors
    /// [`Refusal::Connections`].
    pub fn may_come(&self, address: Option<IpAddr>) -> Result<Place, Refusal> {
        let address = address.filter(|address| self.is_counted(*address));
        self.coming.place(address, self.connections_each)
    }

    /// A place for a websocket from `address`, which it keeps while the answer lives.
    ///
    /// # Errors
    /// [`Refusal::BlockedAddress`] or [`Refusal::Connections`].
    pub fn may_connect(&self, address: IpAddr) -> Result<Place, Refusal> {
        if self.lists.blocked_address(address) {
            return Err(Refusal::BlockedAddress);
        }
        let counted = self.is_counted(address).then_some(address);
        self.connections.place(counted, self.connections_each)
    }

    /// A request came: a subscription, a count, a message of a reconciliation. To be called first, and once for each.
    ///
    /// # Errors
    /// When its sender's address is blocked or asks too much.
    pub fn asked(&self, origin: &Origin<'_>) -> Result<(), Refusal> {
        if origin.source != Source::Client {
            return Ok(());
        }
        self.check_blocked(origin)?;
        self.accounts.asked(origin.address, self.now())
    }

    /// Judges a request by what it asks for.
    ///
    /// # Errors
    /// With the reason to refuse it.
    pub fn may_ask(&self, filters: &[Filter], origin: &Origin<'_>) -> Result<(), Refusal> {
        self.check_reader(origin)?;
        let private = &self.auth.private_kinds;
        let mut found = filters
            .iter()
            .map(|filter| reading::check(filter, private, origin.authenticated));
        found.find(Result::is_err).unwrap_or(Ok(()))
    }

    /// Reading requests from `address`, or answering them, took so long: that is charged like further requests.
    pub fn took(&self, address: IpAddr, time: Duration) {
        self.accounts.took(Some(address), time, self.now());
    }

    /// Whether an event may go to who has identified itself as `origin` says. Cheap for all but private kinds.
    pub fn may_see(&self, event: &Event, origin: &Origin<'_>) -> bool {
        !self.is_private(event.kind) || reading::concerns(event, origin.authenticated)
    }

    /// Whether events of a kind are answered only to those whom they concern.
    pub fn is_private(&self, kind: Kind) -> bool {
        self.auth.private_kinds.contains(&kind)
    }

    /// The kinds whose events are answered only to those whom they concern.
    pub fn private_kinds(&self) -> &[Kind] {
        &self.auth.private_kinds
    }

    /// Bits of work that are asked at this moment of a key without standing.
    pub fn work_asked(&self) -> u8 {
        self.accounts.work_asked(self.now())
    }

    fn is_counted(&self, address: IpAddr) -> bool {
        self.count_loopback || !address.to_canonical().is_loopback()
    }

    fn check_blocked(&self, origin: &Origin<'_>) -> Result<(), Refusal> {
        match origin.address {
            Some(address) if self.lists.blocked_address(address) => Err(Refusal::BlockedAddress),
            _ => Ok(()),
        }
    }

    fn check_lists(&self, event: &Event, origin: &Origin<'_>) -> Result<(), Refusal> {
        let mut keys = origin.authenticated.iter().chain([&event.pubkey]);
        if keys.any(|key| self.lists.banned_key(key)) {
            return Err(Refusal::BannedKey);
        }
        match self.lists.banned_event(&event.id) {
            true => Err(Refusal::BannedEvent),
            false => Ok(()),
        }
    }

    /// NIP-70.
    fn check_protected(&self, event: &Event, origin: &Origin<'_>) -> Result<(), Refusal> {
        if !event.is_protected() || origin.authenticated.contains(&event.pubkey) {
            return Ok(());
        }
        match origin.source == Source::Client && origin.authenticated.is_empty() {
            true => Err(Refusal::Protected),
            false => Err(Refusal::OfAnother),
        }
    }

    fn check_writer(&self, event: &Event, origin: &Origin<'_>) -> Result<(), Refusal> {
        match self.auth.write {
            Access::Identified if origin.authenticated.is_empty() => {
                Err(Refusal::WriteUnidentified)
            }
            // The signature will show that it is the author's.
            Access::Listed if !self.is_listed(&event.pubkey) => match origin.authenticated {
                [] => Err(Refusal::WriteUnidentified),
                keys if keys.iter().any(|key| self.is_listed(key)) => Ok(()),
                _ => Err(Refusal::WriteUnlisted),
            },
            _ => Ok(()),
        }
    }

    fn check_reader(&self, origin: &Origin<'_>) -> Result<(), Refusal> {
        let keys = origin.authenticated;
        match self.auth.read {
            Access::Anyone => Ok(()),
            _ if keys.is_empty() => Err(Refusal::ReadUnidentified),
            _ if keys.iter().any(|key| self.lists.banned_key(key)) => Err(Refusal::BannedKey),
            Access::Listed if !keys.iter().any(|key| self.is_listed(key)) => {
                Err(Refusal::ReadUnlisted)
            }
            _ => Ok(()),
        }
    }

    fn is_listed(&self, key: &PublicKey) -> bool {
        self.operators.contains(key) || self.lists.allowed_key(key)
    }

    fn rank(&self, key: &PublicKey) -> Rank {
        match self.trust.knows(key) {
            _ if self.is_listed(key) => Rank::Listed,
            Word::Chosen => Rank::Listed,
            Word::Named => Rank::Trusted,
            Word::Unknown => Rank::Unknown,
        }
    }

    fn claim<'a>(&self, event: &Event, origin: &Origin<'a>, bytes: u64) -> Claim<'a> {
        Claim {
            author: event.pubkey,
            authenticated: origin.authenticated,
            address: origin.address,
            bytes,
            is_stored: !event.kind.is_ephemeral(),
            work: shown(event, clock::now()),
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The work that an event committed to (NIP-13) and has, unless it is old.
fn shown(event: &Event, now: Timestamp) -> Option<Shown> {
    let nonce = event.tags.iter().find_map(|tag| match tag.as_slice() {
        [name, _, bits, ..] if name == "nonce" => bits.parse::<u8>().ok(),
        _ => None,
    });
    let bits = nonce?;
    let is_new = event.created_at.as_secs().abs_diff(now.as_secs()) <= WORK_LASTS_SECS;
    let has = nip13::get_leading_zero_bits(event.id);
    (is_new && has >= bits).then_some(Shown { id: event.id, bits })
}

#[cfg(test)]
mod tests;
