//! Whom a shard is given: price, reputation, speed and free places.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use infernet_protocol::event::Promise;
use infernet_protocol::selection::{DEFAULT_MSAT_PER_S, Quote, rank};
use nostr::PublicKey;
use tokio::time::Instant;

use super::judges::Judges;
use super::{Need, Offer};
use crate::shards::weight;

/// What we know of a provider beside what it announces.
#[derive(Debug, Clone, Default)]
pub struct Seller {
    /// Shards of ours that it has.
    pub running: u32,
    /// Tokens of work that it does in a second on one shard, as measured.
    pub speed: Option<f64>,
    /// Shards that failed in a row.
    pub failures: u32,
    /// Until when it is left alone.
    pub rests_until: Option<Instant>,
    /// Whether it is not bought from at all.
    pub is_banned: bool,
    /// Whether it is a checker of the owner's.
    pub is_own: bool,
}

impl Seller {
    fn rests(&self, now: Instant) -> bool {
        self.is_banned || self.rests_until.is_some_and(|until| now < until)
    }
}

/// Whom a shard is given now.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// To this provider.
    Offer(Box<Offer>),
    /// To nobody yet: whoever would do is full, rests, or is worth waiting for.
    Wait,
    /// Nobody sells it.
    Nobody,
}

/// A provider may take so many times longer than whoever would be done first, and
/// still get a shard: a batch is the sooner done the more work on it.
const SLOWER: u32 = 4;

/// Where a shard would go at a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// It would begin at once.
    Idle,
    /// It would wait behind one of ours, so that the provider never waits for us.
    Behind,
    /// There is no place.
    Full,
}

/// Chooses among what is on sale. Who is in `avoid` is not asked.
///
/// Idle providers come first, then those where a shard would be the next. Of them the
/// best is who would be asked first by anybody (`selection::rank`), at the speed that
/// was measured, with our own shards counted as its load. Nobody gets a shard with whom
/// it would end much later than with another that is busy now.
pub fn choose(
    offers: &[Offer],
    sellers: &HashMap<PublicKey, Seller>,
    need: &Need,
    avoid: &BTreeSet<PublicKey>,
    now: Instant,
) -> Choice {
    let unknown = Seller::default();
    let judges = Judges::of(offers, sellers, need);
    let seller = |offer: &Offer| sellers.get(&offer.provider).unwrap_or(&unknown);
    let mut is_sold = false;
    let mut open = vec![];
    for offer in offers {
        let seller = seller(offer);
        if avoid.contains(&offer.provider) || seller.is_banned || !offer.meets(need) {
            continue;
        }
        if !judges.can_judge(offer) {
            continue;
        }
        is_sold = true;
        if offer.is_open && !seller.rests(now) {
            let ends = expected(offer, seller, need).saturating_mul(turn(offer, seller));
            open.push((offer, seller, ends));
        }
    }
    let soonest = open
        .iter()
        .map(|(.., ends)| *ends)
        .min()
        .unwrap_or_default();
    let latest = soonest.saturating_mul(SLOWER);
    let able = open
        .iter()
        .filter(|(offer, seller, ends)| *ends <= latest && place(offer, seller) != Place::Full);
    let best = able.min_by(|(a, at_a, _), (b, at_b, _)| {
        let by_place = place(a, at_a).cmp(&place(b, at_b));
        by_place.then_with(|| worth(b, at_b, need).total_cmp(&worth(a, at_a, need)))
    });
    match best {
        Some((offer, ..)) => Choice::Offer(Box::new((*offer).clone())),
        None if is_sold => Choice::Wait,
        None => Choice::Nobody,
    }
}

const fn place(offer: &Offer, seller: &Seller) -> Place {
    if seller.running < offer.slots {
        Place::Idle
    } else if seller.running == offer.slots && offer.queue > 0 {
        Place::Behind
    } else {
        Place::Full
    }
}

/// When a shard more would have its turn: 1 for at once.
pub const fn turn(offer: &Offer, seller: &Seller) -> u32 {
    1 + seller.running / offer.slots
}

fn worth(offer: &Offer, seller: &Seller, need: &Need) -> f64 {
    let load = seller.running.max(offer.load);
    let quote = Quote {
        price: offer.model.price,
        promise: Promise {
            tokens_per_s: speed(offer, seller) as f32,
            ..offer.model.promise
        },
        jobs_per_slot: f64::from(load / offer.slots),
        score: offer.score,
    };
    rank(&quote, &need.limits, DEFAULT_MSAT_PER_S)
}

/// Tokens of work in a second: as measured, or as promised.
fn speed(offer: &Offer, seller: &Seller) -> f64 {
    let promised = f64::from(offer.model.promise.tokens_per_s);
    seller.speed.unwrap_or(promised).max(0.1)
}

/// How long a provider is expected to take for this, waiting not counted in.
pub fn expected(offer: &Offer, seller: &Seller, need: &Need) -> Duration {
    let first = Duration::from_millis(offer.model.promise.first_token_ms);
    let seconds = weight(&need.limits) as f64 / speed(offer, seller);
    first + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::super::offer::tests::{DEAREST, need, offer};
    use super::*;

    fn pick(offers: &[Offer], sellers: &[(&Offer, Seller)]) -> Option<String> {
        let sellers = sellers
            .iter()
            .map(|(o, s)| (o.provider, s.clone()))
            .collect();
        match choose(offers, &sellers, &need(), &BTreeSet::new(), Instant::now()) {
            Choice::Offer(offer) => Some(offer.name),
            Choice::Wait | Choice::Nobody => None,
        }
    }

    fn running(running: u32) -> Seller {
        Seller {
            running,
            ..Seller::default()
        }
    }

    #[test]
    fn price_speed_and_score_are_weighed() {
        let (slow, fast) = (offer("slow", 10, 10.0), offer("fast", 10, 40.0));
        assert_eq!(
            pick(&[slow.clone(), fast.clone()], &[]).unwrap_or_default(),
            "fast"
        );
        let trusted = Offer {
            score: 0.9,
            ..offer("trusted", 10, 40.0)
        };
        assert_eq!(pick(&[fast, trusted], &[]).unwrap_or_default(), "trusted");
        let mut cheap = offer("cheap", DEAREST / 100, 10.0);
        let mut dear = offer("dear", DEAREST, 10.0);
        (cheap.slots, dear.slots) = (4, 4);
        assert_eq!(pick(&[dear, cheap], &[]).unwrap_or_default(), "cheap");
    }

    #[test]
    fn the_free_one_is_taken_before_another_is_kept_waiting() {
        let (ada, bob) = (offer("ada", 10, 11.0), offer("bob", 10, 10.0));
        let both = [ada.clone(), bob.clone()];
        assert_eq!(pick(&both, &[]).unwrap_or_default(), "ada");
        assert_eq!(
            pick(&both, &[(&ada, running(1))]).unwrap_or_default(),
            "bob"
        );
        let full = [(&ada, running(1)), (&bob, running(1))];
        assert_eq!(
            pick(&both, &full).unwrap_or_default(),
            "ada",
            "one waits at it"
        );
        let over = [(&ada, running(2)), (&bob, running(2))];
        assert_eq!(pick(&both, &over), None);
    }

    #[test]
    fn all_who_are_worth_it_get_work_also_the_dearer_ones() {
        let (cheap, dear) = (
            offer("cheap", DEAREST / 100, 12.0),
            offer("dear", DEAREST, 10.0),
        );
        let both = [cheap.clone(), dear];
        assert_eq!(pick(&both, &[]).unwrap_or_default(), "cheap");
        let busy = [(&cheap, running(1))];
        assert_eq!(pick(&both, &busy).unwrap_or_default(), "dear");
    }

    #[test]
    fn who_is_much_slower_is_not_worth_it() {
        let (fast, slow) = (offer("fast", 10, 100.0), offer("slow", 10, 1.0));
        let both = [fast.clone(), slow];
        assert_eq!(
            pick(&both, &[(&fast, running(2))]),
            None,
            "waits for the fast one"
        );
    }

    #[test]
    fn who_rests_or_is_banned_gets_nothing() {
        let ada = offer("ada", 10, 10.0);
        let rests = Seller {
            rests_until: Some(Instant::now() + Duration::from_secs(60)),
            ..Seller::default()
        };
        let sellers = HashMap::from([(ada.provider, rests)]);
        let none = BTreeSet::new();
        let now = Instant::now();
        let offers = [ada.clone()];
        assert_eq!(choose(&offers, &sellers, &need(), &none, now), Choice::Wait);
        let banned = Seller {
            is_banned: true,
            ..Seller::default()
        };
        let sellers = HashMap::from([(ada.provider, banned)]);
        assert_eq!(
            choose(&offers, &sellers, &need(), &none, now),
            Choice::Nobody
        );
        let avoid = BTreeSet::from([ada.provider]);
        let nobody = choose(&offers, &HashMap::new(), &need(), &avoid, now);
        assert_eq!(nobody, Choice::Nobody);
    }
}
