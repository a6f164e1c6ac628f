//! The places at all providers, and who has them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infernet_client::Client;
use nostr::PublicKey;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::choice::{Seller, choose, expected, turn};
use super::judges::Judges;
use super::{Choice, Need, Offer};
use crate::checks::Shelf;

/// How old what is known of the market may be. Gathering it takes milliseconds.
const FRESH: Duration = Duration::from_millis(500);

/// How much of a new measurement of speed counts.
const NEW_SHARE: f64 = 0.3;

/// How long a provider that declined is left alone.
const DECLINED_REST: Duration = Duration::from_secs(1);

/// How long a provider that failed is left alone; doubled by each failure in a row.
const FAILED_REST: Duration = Duration::from_secs(5);

/// The longest rest.
const MAX_REST: Duration = Duration::from_secs(600);

/// Providers that are remembered without any of our work at them.
const MAX_SELLERS: usize = 10_000;

/// The places at providers. Clones are cheap and share it.
#[derive(Debug, Clone)]
pub struct Floor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    market: Market,
    state: Mutex<State>,
    /// A place may have become free.
    changed: Notify,
}

/// Where it is asked what is on sale.
#[derive(Debug)]
enum Market {
    Client(Client, Shelf),
    /// What [`Floor::set_offers`] said.
    #[cfg(test)]
    Said,
}

#[derive(Debug, Default)]
struct State {
    offers: Arc<Vec<Offer>>,
    gathered: Option<Instant>,
    sellers: HashMap<PublicKey, Seller>,
}

/// What is known of a provider beside what it announces.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Standing {
    /// Shards of ours that it has.
    pub running: u32,
    /// Tokens of work that it does in a second on one shard, as measured.
    pub speed: Option<f64>,
    /// Shards that failed in a row.
    pub failures: u32,
}

impl Floor {
    /// The places at the providers that a client knows, who sell what can be judged by
    /// what stands on the shelf. `checkers` are the owner's.
    pub fn new(
        client: Client,
        shelf: Shelf,
        checkers: impl IntoIterator<Item = PublicKey>,
        banned: impl IntoIterator<Item = PublicKey>,
    ) -> Self {
        let floor = Self::of(Market::Client(client, shelf), banned);
        for checker in checkers {
            floor.state().sellers.entry(checker).or_default().is_own = true;
        }
        floor
    }

    /// The places at providers that somebody says ([`Floor::set_offers`]).
    #[cfg(test)]
    pub fn simulated() -> Self {
        Self::of(Market::Said, [])
    }

    fn of(market: Market, banned: impl IntoIterator<Item = PublicKey>) -> Self {
        let floor = Self {
            shared: Arc::new(Shared {
                market,
                state: Mutex::default(),
                changed: Notify::new(),
            }),
        };
        for provider in banned {
            floor.ban(provider, true);
        }
        floor
    }

    /// Says what is on sale.
    #[cfg(test)]
    pub fn set_offers(&self, offers: Vec<Offer>) {
        self.state().offers = Arc::new(offers);
        self.shared.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on sale.
    pub fn offers(&self) -> Arc<Vec<Offer>> {
        let now = Instant::now();
        let is_fresh = |state: &State| state.gathered.is_some_and(|at| now < at + FRESH);
        let state = self.state();
        let client = match &self.shared.market {
            Market::Client(client, shelf) if !is_fresh(&state) => (client, shelf),
            Market::Client(..) => return state.offers.clone(),
            #[cfg(test)]
            Market::Said => return state.offers.clone(),
        };
        drop(state);
        let (client, shelf) = client;
        let providers = client.on_sale();
        let all = providers.iter().flat_map(Offer::all);
        let offers = all.filter(|offer| shelf.can_judge(&offer.model.model, offer.model.dtype));
        let offers: Arc<Vec<Offer>> = Arc::new(offers.collect());
        let mut state = self.state();
        state.gathered = Some(now);
        state.offers = offers.clone();
        forget(&mut state.sellers, &offers, now);
        offers
    }

    /// Who sells what is needed, at whatever place is free.
    pub fn sold(&self, need: &Need) -> Vec<Offer> {
        let offers = self.offers();
        let state = self.state();
        let is_banned = |offer: &Offer| {
            let seller = state.sellers.get(&offer.provider);
            seller.is_some_and(|seller| seller.is_banned)
        };
        let judges = Judges::of(&offers, &state.sellers, need);
        let sold = offers
            .iter()
            .filter(|offer| offer.meets(need) && !is_banned(offer) && judges.can_judge(offer));
        sold.cloned().collect()
    }

    /// Places at all providers that sell what is needed.
    pub fn places(&self, need: &Need) -> u64 {
        let sold = self.sold(need);
        sold.iter().map(|offer| u64::from(offer.slots)).sum()
    }

    /// Takes a place for a shard, if there is a good one now.
    ///
    /// # Errors
    /// [`Choice::Wait`] or [`Choice::Nobody`].
    pub fn try_seat(&self, need: &Need, avoid: &BTreeSet<PublicKey>) -> Result<Seat, Choice> {
        let offers = self.offers();
        let mut state = self.state();
        let now = Instant::now();
        let offer = match choose(&offers, &state.sellers, need, avoid, now) {
            Choice::Offer(offer) => *offer,
            none => return Err(none),
        };
        let seller = state.sellers.entry(offer.provider).or_default();
        let expected = expected(&offer, seller, need);
        // What waits there before us is work of ours.
        let turns = turn(&offer, seller);
        seller.running += 1;
        Ok(Seat {
            floor: self.clone(),
            offer,
            began: now,
            expected: expected.saturating_mul(turns),
        })
    }

    /// Waits for a place for a shard; nothing if for so long nobody at all sells what
    /// it needs. Safe to cancel.
    pub async fn seat(
        &self,
        need: &Need,
        avoid: &BTreeSet<PublicKey>,
        patience: Duration,
    ) -> Option<Seat> {
        let mut sold = Instant::now();
        loop {
            let changed = self.shared.changed.notified();
            match self.try_seat(need, avoid) {
                Ok(seat) => return Some(seat),
                Err(Choice::Nobody) if sold.elapsed() >= patience => return None,
                Err(Choice::Nobody) => {}
                Err(_) => sold = Instant::now(),
            }
            // The market, and who rests, change without our doing.
            let _ = timeout(FRESH, changed).await;
        }
    }

    /// Buys from a provider no more, or again.
    pub fn ban(&self, provider: PublicKey, is_banned: bool) {
        let mut state = self.state();
        state.sellers.entry(provider).or_default().is_banned = is_banned;
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Whether a provider is not bought from.
    pub fn is_banned(&self, provider: &PublicKey) -> bool {
        let state = self.state();
        state
            .sellers
            .get(provider)
            .is_some_and(|seller| seller.is_banned)
    }

    /// What is known of a provider.
    pub fn standing(&self, provider: &PublicKey) -> Standing {
        let state = self.state();
        let seller = state.sellers.get(provider);
        seller.map_or_else(Standing::default, |seller| Standing {
            running: seller.running,
            speed: seller.speed,
            failures: seller.failures,
        })
    }

    /// Shards that are with providers now.
    pub fn running(&self) -> u64 {
        let state = self.state();
        let sellers = state.sellers.values();
        sellers.map(|seller| u64::from(seller.running)).sum()
    }

    /// Waits until something has changed, for a while.
    pub async fn changed(&self) {
        let _ = timeout(FRESH, self.shared.changed.notified()).await;
    }

    fn leave(&self, provider: &PublicKey, change: impl FnOnce(&mut Seller)) {
        if let Some(seller) = self.state().sellers.get_mut(provider) {
            change(seller);
        }
        self.shared.changed.notify_waiters();
    }
}

/// Forgets who is gone and of whom nothing matters any more.
fn forget(sellers: &mut HashMap<PublicKey, Seller>, offers: &[Offer], now: Instant) {
    if sellers.len() <= MAX_SELLERS {
        return;
    }
    let here: HashSet<PublicKey> = offers.iter().map(|offer| offer.provider).collect();
    sellers.retain(|provider, seller| {
        let rests = seller.rests_until.is_some_and(|until| now < until);
        here.contains(provider) || seller.running > 0 || seller.is_banned || seller.is_own || rests
    });
}

/// A place at a provider. Free again when it is dropped.
#[derive(Debug)]
pub struct Seat {
    floor: Floor,
    /// What was offered.
    pub offer: Offer,
    began: Instant,
    /// How long the work is expected to take.
    pub expected: Duration,
}

impl Seat {
    /// Since when it is taken.
    pub const fn began(&self) -> Instant {
        self.began
    }

    /// The work was done: so much of it (`shards::weight`).
    pub fn done(&self, weight: u64) {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let measured = weight as f64 / seconds;
        self.floor.leave(&self.offer.provider, |seller| {
            let before = seller.speed.unwrap_or(measured);
            seller.speed = Some(before + NEW_SHARE * (measured - before));
            seller.failures = 0;
        });
    }

    /// The provider has no room, or does not want it.
    pub fn declined(&self) {
        self.floor.leave(&self.offer.provider, |seller| {
            seller.rests_until = Some(Instant::now() + DECLINED_REST);
        });
    }

    /// The provider failed. What it does beside fails with it as a rule: one bad moment
    /// counts once, however many shards it has taken.
    pub fn failed(&self) {
        self.floor.leave(&self.offer.provider, |seller| {
            let now = Instant::now();
            if seller.rests_until.is_some_and(|until| now < until) {
                return;
            }
            seller.rests_until = Some(now + rest_after(seller.failures));
            seller.failures = seller.failures.saturating_add(1);
        });
    }
}

/// How long a provider rests that has failed again, after so many failures in a row.
fn rest_after(failures: u32) -> Duration {
    let rest = FAILED_REST.saturating_mul(1 << failures.min(10));
    rest.min(MAX_REST)
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.floor.leave(&self.offer.provider, |seller| {
            seller.running = seller.running.saturating_sub(1);
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::offer::tests::{need, offer};
    use super::*;

    fn floor(offers: &[Offer]) -> Floor {
        let floor = Floor::simulated();
        floor.set_offers(offers.to_vec());
        floor
    }

    #[tokio::test]
    async fn places_are_bounded_and_come_back() {
        let ada = offer("ada", 10, 10.0);
        let floor = floor(std::slice::from_ref(&ada));
        let none = BTreeSet::new();
        let first = floor.try_seat(&need(), &none).unwrap();
        let second = floor.try_seat(&need(), &none).unwrap();
        assert!(
            second.expected > first.expected,
            "it waits behind the first"
        );
        assert_eq!(floor.try_seat(&need(), &none).unwrap_err(), Choice::Wait);
        assert_eq!(floor.standing(&ada.provider).running, 2);
        let waits = floor.clone();
        let waiting = tokio::spawn(async move {
            let seat = waits.seat(&need(), &BTreeSet::new(), Duration::ZERO).await;
            seat.is_some()
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.unwrap());
    }

    #[test]
    fn who_fails_rests_longer_each_time() {
        let ada = offer("ada", 10, 10.0);
        let floor = floor(std::slice::from_ref(&ada));
        let none = BTreeSet::new();
        let seat = floor.try_seat(&need(), &none).unwrap();
        seat.failed();
        assert_eq!(floor.standing(&ada.provider).failures, 1);
        assert_eq!(floor.try_seat(&need(), &none).unwrap_err(), Choice::Wait);
        // Another shard that was there in the same moment.
        seat.failed();
        assert_eq!(floor.standing(&ada.provider).failures, 1);
        seat.done(100);
        assert_eq!(floor.standing(&ada.provider).failures, 0);
        let rests: Vec<u64> = [0, 1, 2, 30].map(|n| rest_after(n).as_secs()).into();
        assert_eq!(rests, [5, 10, 20, 600]);
    }

    #[tokio::test]
    async fn what_nobody_sells_is_waited_for_no_longer_than_said() {
        let floor = floor(&[]);
        let began = Instant::now();
        let patience = Duration::from_millis(50);
        let (need, nobody) = (need(), BTreeSet::new());
        assert!(floor.seat(&need, &nobody, patience).await.is_none());
        assert!(began.elapsed() >= patience);
    }

    #[test]
    fn measured_speed_counts_more_than_promises() {
        let (boasts, honest) = (offer("boasts", 10, 1_000.0), offer("honest", 10, 50.0));
        let floor = floor(&[boasts.clone(), honest]);
        let none = BTreeSet::new();
        let mut seat = floor.try_seat(&need(), &none).unwrap();
        assert_eq!(seat.offer.name, "boasts");
        seat.began = Instant::now()
            .checked_sub(Duration::from_secs(100))
            .unwrap();
        seat.done(100);
        drop(seat);
        assert_eq!(floor.try_seat(&need(), &none).unwrap().offer.name, "honest");
    }
}
