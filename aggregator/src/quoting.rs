//! What a batch would cost, and how long it would take.

use infernet_node::clock;
use infernet_protocol::batch::Wanted;
use infernet_protocol::bounds::MAX_SAFE_INTEGER;
use infernet_protocol::event::{Checkers, Checking, Limits, Quote, V1};
use infernet_protocol::inference::{ModelId, Task};
use infernet_protocol::money::{Msat, PaymentKind, Price};
use infernet_protocol::verification::Secret;
use nostr::{Event, PublicKey, Timestamp};

use crate::dispatch::{Need, Offer};
use crate::house::House;
use crate::shards::weight;
use crate::store;

/// How long a quote can be taken.
const VALID_S: u64 = 10 * 60;

/// Quotes that may be open: each is a row, and a secret.
const MAX_QUOTES: u64 = 10_000;

/// The shortest time that a batch may be given.
const LEAST_S: u64 = 30;

/// The longest.
const MOST_S: u64 = 7 * 24 * 3_600;

/// What is paid at most, as a multiple of the cheapest that is on sale: who is dearer
/// is not needed.
const DEARER: u64 = 3;

/// What checking costs at most where everything is checked, in millionths of the work:
/// reading an answer again costs less than to write it, and a second look may follow.
const FULL_CHECKING_PPM: u32 = 1_000_000;

/// The same where results are checked by streaks.
const ADAPTIVE_CHECKING_PPM: u32 = 500_000;

/// Why there is no quote.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It will not be done, for this reason.
    #[error("{0}")]
    Refused(String),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] store::Error),
}

fn refused<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Refused(why.into()))
}

/// A quote for a buyer, signed; its secret is kept until it runs out.
///
/// # Errors
/// Why there is none.
pub(crate) async fn quote(house: &House, buyer: PublicKey, wanted: Wanted) -> Result<Event, Error> {
    let now = clock::now();
    let seconds = wanted.deadline.as_secs().saturating_sub(now.as_secs());
    if buyer == house.public_key() {
        return refused("nobody orders of itself");
    }
    if !house.options.tasks.contains(&wanted.task) {
        return refused(format!("no batches of {} are taken here", wanted.task));
    }
    if seconds < LEAST_S {
        return refused(format!(
            "the deadline must be at least {LEAST_S} s from now"
        ));
    }
    if seconds > MOST_S {
        return refused("the deadline is more than a week from now");
    }
    if (wanted.checkers == Checkers::Nobody) != (wanted.checking == Checking::None) {
        return refused("where nobody may check, nothing is checked, and the other way round");
    }
    if house.store.open_quotes(now).await? >= MAX_QUOTES {
        return refused("too many quotes are open; ask again in some minutes");
    }
    let found = Found::of(house, &wanted)?;
    is_checkable(house, &wanted, &found).await?;
    let secret = Secret::from_bytes(rand::random());
    let quote = terms(house, buyer, wanted, &found, &secret, now)?;
    let valid_until = quote.valid_until;
    let Some(event) = house.sign(&quote) else {
        return refused("it cannot be signed");
    };
    house
        .store
        .quote(event.id, buyer, &secret, valid_until, now)
        .await?;
    Ok(event)
}

fn terms(
    house: &House,
    buyer: PublicKey,
    wanted: Wanted,
    found: &Found,
    secret: &Secret,
    now: Timestamp,
) -> Result<Quote, Error> {
    let is_paid = !found.price.is_free();
    let checking_ppm = match (is_paid, wanted.checking) {
        (false, _) | (_, Checking::None) => 0,
        (true, Checking::Full) => FULL_CHECKING_PPM,
        (true, Checking::Adaptive { .. }) => ADAPTIVE_CHECKING_PPM,
    };
    let later = Timestamp::from_secs(now.as_secs() + VALID_S);
    let mut quote = Quote {
        v: V1,
        nonce: rand::random_range(0..=MAX_SAFE_INTEGER),
        buyer,
        task: wanted.task,
        accepts: wanted.accepts,
        size: wanted.size,
        price: found.price,
        fee_ppm: house.options.fee_ppm,
        checking_ppm,
        most_msat: Msat::ZERO,
        terms: match is_paid {
            true => PaymentKind::Escrow,
            false => PaymentKind::Free,
        },
        checkers: wanted.checkers,
        checking: wanted.checking,
        commitment: secret.commitment(),
        seconds: found.seconds,
        valid_until: later.min(wanted.deadline),
        deadline: wanted.deadline,
        relays: house.options.relays.clone(),
    };
    match quote.most_for(&quote.size) {
        Some(most) => quote.most_msat = most,
        None => return refused("it would cost more than all the money there is"),
    }
    Ok(quote)
}

/// Refuses what nobody could check as it is wanted.
async fn is_checkable(house: &House, wanted: &Wanted, found: &Found) -> Result<(), Error> {
    let is_paid = !found.price.is_free();
    for seller in &found.sellers {
        let work = (wanted.task, &seller.1);
        let checks = &house.checks;
        if checks
            .has_checker(work, wanted.checkers, &seller.0, is_paid)
            .await
            .map_err(store::Error::from)?
        {
            return Ok(());
        }
    }
    match wanted.checkers {
        Checkers::Nobody => Ok(()),
        checkers => refused(unchecked(checkers)),
    }
}

/// Why nobody could check it.
const fn unchecked(checkers: Checkers) -> &'static str {
    match checkers {
        Checkers::Aggregator | Checkers::Nobody => {
            "no checker of this aggregator's own serves that model now: let the market check \
             (--checkers market) or nobody (--checking none), or its operator runs a provider \
             with --verify and names it with --checker"
        }
        Checkers::Market => {
            "nobody on the market checks that model now: try again later, or let nobody check \
             (--checking none)"
        }
    }
}

/// What the market offers for a batch.
struct Found {
    /// The most that a provider is paid.
    price: Price,
    seconds: u64,
    /// Who sells it for that, and which model.
    sellers: Vec<(PublicKey, ModelId)>,
}

impl Found {
    fn of(house: &House, wanted: &Wanted) -> Result<Self, Error> {
        let need = Need {
            task: wanted.task,
            accepts: wanted.accepts.clone(),
            max_price: wanted.max_price.unwrap_or(Price {
                input_msat: MAX_SAFE_INTEGER,
                output_msat: MAX_SAFE_INTEGER,
            }),
            is_paid: house.money.takes_money(),
            checkers: wanted.checkers,
            limits: Limits {
                input_tokens: 0,
                output_tokens: 0,
            },
        };
        let sold = house.floor.sold(&need);
        if sold.is_empty() {
            let offers = house.floor.offers();
            let banned = |offer: &&Offer| house.floor.is_banned(&offer.provider);
            let mut all = offers.iter().filter(|offer| !banned(offer));
            return refused(match all.clone().any(|offer| offer.meets(&need)) {
                true => unchecked(wanted.checkers).to_owned(),
                false => nobody(&need, all.by_ref()),
            });
        }
        let longest = wanted.size.longest;
        let fits = |offer: &&Offer| {
            // Texts to embed that are too long are cut by the model.
            wanted.task == Task::Embedding || u64::from(offer.model.context) >= shortest(longest)
        };
        let mut fit: Vec<&Offer> = sold.iter().filter(fits).collect();
        if fit.is_empty() {
            // A line that is too long for everybody fails alone, and costs nothing.
            fit = sold.iter().collect();
        }
        let price = highest(&fit);
        let within = fit
            .iter()
            .filter(|offer| offer.model.price.is_within(&price));
        let speed: f64 = within.clone().map(|offer| speed(offer)).sum();
        let sellers = within.map(|offer| (offer.provider, offer.model.model));
        let limits = |input: u64, output: u64| Limits {
            input_tokens: u32::try_from(input).unwrap_or(u32::MAX),
            output_tokens: u32::try_from(output).unwrap_or(u32::MAX),
        };
        let size = &wanted.size;
        // Weighed by thousands: a batch may have more tokens than a shard's numbers hold.
        let work = weight(&limits(
            size.input_tokens / 1_000,
            size.output_tokens / 1_000,
        ));
        let seconds = (work as f64 * 1_000.0 / speed.max(0.1)).ceil() as u64;
        Ok(Self {
            price,
            seconds: seconds.max(1),
            sellers: sellers.collect(),
        })
    }
}

/// The least context that a line of so many tokens may fit in. Guesses are rather too
/// high, up to three times.
const fn shortest(longest: u64) -> u64 {
    longest / 3
}

/// The highest price that is paid: of those that are not much dearer than the cheapest.
fn highest(offers: &[&Offer]) -> Price {
    let total = |price: &Price| price.input_msat.saturating_add(price.output_msat);
    let paid = offers.iter().map(|offer| offer.model.price);
    let paid: Vec<Price> = paid.filter(|price| !price.is_free()).collect();
    let cheapest = paid.iter().map(total).min().unwrap_or(0);
    let bound = cheapest.saturating_mul(DEARER);
    let within = paid.iter().filter(|price| total(price) <= bound);
    within.fold(Price::FREE, |highest, price| Price {
        input_msat: highest.input_msat.max(price.input_msat),
        output_msat: highest.output_msat.max(price.output_msat),
    })
}

fn speed(offer: &Offer) -> f64 {
    f64::from(offer.model.promise.tokens_per_s) * f64::from(offer.slots)
}

/// Why nobody can be bought from.
fn nobody<'a>(need: &Need, offers: impl Iterator<Item = &'a Offer>) -> String {
    let wanted = |offer: &&Offer| {
        let model = &offer.model;
        model.task == need.task && need.accepts.iter().any(|accepted| accepted.includes(model))
    };
    let named: Vec<&Offer> = offers.filter(wanted).collect();
    if named.is_empty() {
        return "nobody sells any of these models now".to_owned();
    }
    let is_within = |offer: &&&Offer| offer.model.price.is_within(&need.max_price);
    match (named.iter().filter(is_within).count(), need.is_paid) {
        (0, _) => "they are on sale, but for more than you would pay".to_owned(),
        (_, true) => "they are on sale, but nobody who sells them gives credit here".to_owned(),
        (_, false) => {
            "they are on sale, but not for free, and only free work is done here".to_owned()
        }
    }
}
