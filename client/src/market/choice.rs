//! Who could do a job: the words of providers, announcements and bids, that meet what its buyer wants.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use infernet_protocol::event::{
    Accepts, AnnouncedModel, Announcement, Bid, Checkers, Limits, Promise, Signed, Status,
};
use infernet_protocol::inference::{ModelId, Task};
use infernet_protocol::job::Millis;
use infernet_protocol::job::buyer::Candidate;
use infernet_protocol::money::{PaymentTerms, Price};
use infernet_protocol::payload::Work;
use infernet_protocol::selection::{DEFAULT_MSAT_PER_S, Quote, rank};
use infernet_protocol::tensor::{Tensor, arrange};
use nostr::{Event, PublicKey, Timestamp, ToBech32};

use super::Market;
use super::means::{Means, hurdle};
use crate::{Error, Request, Route};

/// Announcements that a job begins with: more than can be tried, and few enough to leave bidders room among the
/// candidates that the job remembers.
const MAX_STANDING: usize = 16;

/// A job as it can be offered: a request that found its model.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub task: Task,
    pub accepts: Accepts,
    pub limits: Limits,
    pub max_price: Price,
    /// With what it may be paid.
    pub means: Means,
    /// Who is asked first, whatever its rank.
    pub chosen: Option<Chosen>,
    /// Who may see the work to check it.
    pub checkers: Checkers,
}

/// A provider that the user has chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen {
    pub provider: PublicKey,
    /// Whether nobody may stand in for it.
    pub only: bool,
}

/// A provider's word that it would do a job: its announcement, or a bid.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub event: Box<Event>,
    pub provider: PublicKey,
    /// What to call the provider.
    pub name: String,
    pub model: ModelId,
    pub model_name: String,
    pub price: Price,
    pub promise: Promise,
    pub terms: PaymentTerms,
    pub context: u32,
    pub continues: bool,
    pub is_bid: bool,
    pub rank: f64,
    /// When it runs out.
    pub until: Timestamp,
}

impl Word {
    pub fn candidate(&self, good_enough: bool) -> Candidate {
        Candidate {
            word: self.event.id,
            provider: self.provider,
            context: self.context,
            continues: self.continues,
            is_bid: self.is_bid,
            rank: self.rank,
            until: Millis(self.until.as_secs().saturating_mul(1_000)),
            good_enough,
        }
    }
}

/// What a request means on this market, with the providers that could do it now, the best first.
///
/// # Errors
/// When the chosen provider cannot do it; and, unless there is to be an auction (somebody may bid who announces
/// nothing), when nobody can.
pub(crate) fn resolve(
    market: &Market,
    request: &Request,
    means: Means,
    now: Timestamp,
) -> Result<(Order, Vec<Word>), Error> {
    let mut order = Order {
        task: request.task(),
        accepts: accepts(request.model.as_deref()),
        limits: request.limits(),
        max_price: request.max_price,
        means,
        chosen: None,
        checkers: request.checkers,
    };
    if let Work::Tensors { inputs } = &request.work {
        are_taken(market, &order, inputs, now)?;
    }
    let chosen = match &request.route {
        Route::To { provider, .. } => Some(find(market, provider, now)?),
        Route::Direct | Route::Auction => None,
    };
    let mut words = on_sale(market, &order, request.model.is_none(), now);
    if let Some(chosen) = chosen {
        order.chosen = Some(Chosen {
            provider: chosen.author(),
            only: matches!(request.route, Route::To { only: true, .. }),
        });
        if words.iter().all(|word| word.provider != chosen.author()) {
            return Err(not_sold_by(chosen, request, &order));
        }
        prefer(&mut words, order.chosen);
    }
    match (words.first(), &request.model) {
        (Some(best), None) => {
            order.accepts = Accepts::Model(best.model);
            let model = best.model;
            words.retain(|word| word.model == model);
        }
        (None, Some(_)) if request.route == Route::Auction => {}
        (None, _) => return Err(nobody(market, request, &order, now)),
        (Some(_), Some(_)) => {}
    }
    words.truncate(MAX_STANDING);
    Ok((order, words))
}

/// Refuses tensors that no announced module of that name takes. Where none is announced, somebody may bid who
/// knows better.
fn are_taken(
    market: &Market,
    order: &Order,
    inputs: &[Tensor],
    now: Timestamp,
) -> Result<(), Error> {
    let models = market
        .open(now)
        .flat_map(|announcement| &announcement.models);
    let modules = models.filter(|model| model.task == order.task && order.accepts.includes(model));
    let interfaces = modules.filter_map(|module| module.interface.as_ref());
    let taken = interfaces.map(|interface| arrange(&interface.inputs, inputs).map(drop));
    match taken.reduce(Result::or) {
        Some(Err(misfit)) => Err(Error::Invalid(misfit.to_string())),
        Some(Ok(())) | None => Ok(()),
    }
}

/// The announcements that an order could be awarded on as they stand now, the best first.
pub(crate) fn standing(market: &Market, order: &Order, now: Timestamp) -> Vec<Word> {
    let mut words = on_sale(market, order, false, now);
    prefer(&mut words, order.chosen);
    words.truncate(MAX_STANDING);
    words
}

fn accepts(model: Option<&str>) -> Accepts {
    let name = model.unwrap_or_default();
    match name.parse() {
        Ok(id) => Accepts::Model(id),
        Err(_) => Accepts::Name(name.to_owned()),
    }
}

/// The announcements that meet an order, the best first. With `any_model`, whichever model they are about.
fn on_sale(market: &Market, order: &Order, any_model: bool, now: Timestamp) -> Vec<Word> {
    let wanted = |model: &&AnnouncedModel| {
        model.task == order.task && (any_model || order.accepts.includes(model))
    };
    let mut words: Vec<Word> = market
        .open(now)
        .filter(|announcement| announcement.direct)
        .flat_map(|announcement| {
            let models = announcement.models.iter().filter(wanted);
            models.filter_map(|model| standing_bid(market, announcement, model, order, now))
        })
        .collect();
    words.sort_by(|a, b| b.rank.total_cmp(&a.rank));
    let mut seen = BTreeSet::new();
    words.retain(|word| seen.insert(word.provider));
    words
}

fn standing_bid(
    market: &Market,
    announcement: &Signed<Announcement>,
    model: &AnnouncedModel,
    order: &Order,
    now: Timestamp,
) -> Option<Word> {
    let terms = order.payment(&model.price, &announcement.terms).ok()?;
    let provider = announcement.author();
    let quote = Quote {
        price: model.price,
        promise: model.promise,
        jobs_per_slot: jobs_per_slot(announcement),
        score: market.standing(&provider, now).score,
    };
    Some(Word {
        event: Box::new(announcement.event().clone()),
        provider,
        name: announcement.name.clone(),
        model: model.model,
        model_name: model.name.clone(),
        price: model.price,
        promise: model.promise,
        terms,
        context: model.context,
        continues: model.continues,
        is_bid: false,
        rank: rank(&quote, &order.limits, DEFAULT_MSAT_PER_S),
        until: announcement.expires_at,
    })
}

fn jobs_per_slot(announcement: &Announcement) -> f64 {
    let jobs = announcement
        .load
        .running
        .saturating_add(announcement.load.queued);
    f64::from(jobs) / f64::from(announcement.capacity.slots.max(1))
}

/// A bid as a word, if it meets the order.
pub(crate) fn on_bid(
    market: &Market,
    order: &Order,
    bid: &Signed<Bid>,
    now: Timestamp,
) -> Option<Word> {
    let provider = bid.author();
    let announced = market.open(now).find(|a| a.author() == provider);
    let terms = order.payment(&bid.price, &[bid.terms]).ok()?;
    if bid.expires_at <= now || market.bans(&provider) {
        return None;
    }
    let meant = match &order.accepts {
        Accepts::Model(id) => *id == bid.model,
        Accepts::Name(name) => {
            let announced = announced.and_then(|a| a.model(name, order.task));
            bid.name.eq_ignore_ascii_case(name) || announced.is_some_and(|m| m.model == bid.model)
        }
    };
    let quote = Quote {
        price: bid.price,
        promise: bid.promise,
        jobs_per_slot: announced.map_or(0.0, |a| jobs_per_slot(a)),
        score: market.standing(&provider, now).score,
    };
    meant.then(|| Word {
        event: Box::new(bid.event().clone()),
        provider,
        name: announced.map_or_else(|| short(&provider), |a| a.name.clone()),
        model: bid.model,
        model_name: bid.name.clone(),
        price: bid.price,
        promise: bid.promise,
        terms,
        context: bid.context,
        continues: bid.continues,
        is_bid: true,
        rank: rank(&quote, &order.limits, DEFAULT_MSAT_PER_S),
        until: bid.expires_at,
    })
}

/// How many bids can be expected: from everybody who is online and announces what is wanted.
pub(crate) fn bids_to_expect(market: &Market, order: &Order, now: Timestamp) -> usize {
    let can_bid = |announcement: &&Signed<Announcement>| {
        announcement.models.iter().any(|model| {
            is_wanted(order, model) && order.payment(&model.price, &announcement.terms).is_ok()
        })
    };
    let online = market.open(now).filter(|a| a.status == Status::Online);
    online.filter(can_bid).count()
}

/// Whether anybody announces what is wanted, at whatever price.
pub(crate) fn is_announced(market: &Market, order: &Order, now: Timestamp) -> bool {
    let mut models = market.open(now).flat_map(|a| &a.models);
    models.any(|model| is_wanted(order, model))
}

fn is_wanted(order: &Order, model: &AnnouncedModel) -> bool {
    model.task == order.task && order.accepts.includes(model)
}

/// Puts the chosen provider first, whatever the others' rank, or alone.
fn prefer(words: &mut Vec<Word>, chosen: Option<Chosen>) {
    let Some(Chosen { provider, only }) = chosen else {
        return;
    };
    words.retain(|word| !only || word.provider == provider);
    if let Some(at) = words.iter().position(|word| word.provider == provider) {
        words[at].rank = f64::MAX;
        words[..=at].rotate_right(1);
    }
}

/// The provider of this name or public key.
fn find<'a>(
    market: &'a Market,
    who: &str,
    now: Timestamp,
) -> Result<&'a Signed<Announcement>, Error> {
    let key = PublicKey::parse(who).ok();
    let meant = |a: &&Signed<Announcement>| match key {
        Some(key) => a.author() == key,
        None => a.name.eq_ignore_ascii_case(who),
    };
    let open = || market.open(now).filter(|a| a.direct);
    let found: Vec<_> = open().filter(meant).collect();
    let same = |one: &Signed<Announcement>| found.iter().all(|a| a.author() == one.author());
    match found[..] {
        [one, ..] if same(one) => Ok(one),
        [] => Err(Error::NoSuchProvider {
            who: who.to_owned(),
            online: names(open().map(|a| a.name.clone())),
        }),
        _ => Err(Error::SeveralProviders {
            name: who.to_owned(),
            npubs: names(found.iter().map(|a| npub(&a.author()))),
        }),
    }
}

fn not_sold_by(chosen: &Announcement, request: &Request, order: &Order) -> Error {
    let task = request.task();
    let models = chosen.models.iter().filter(|m| m.task == task);
    let wanted = |m: &&AnnouncedModel| request.model.is_none() || order.accepts.includes(m);
    let sold = models.clone().filter(wanted).map(|m| (chosen, m));
    if let Some(error) = hurdle(sold, request, order).filter(|_| order.means.can_pay()) {
        return error;
    }
    let sells = |m: &AnnouncedModel| match m.price.is_free() {
        true => m.name.clone(),
        false => format!("{} (not free)", m.name),
    };
    Error::NotSoldBy {
        who: chosen.name.clone(),
        model: request
            .model
            .clone()
            .unwrap_or_else(|| format!("{task} for free")),
        sells: names(models.map(sells)),
    }
}

/// Why nobody can do it.
fn nobody(market: &Market, request: &Request, order: &Order, now: Timestamp) -> Error {
    let wanted = |m: &&AnnouncedModel| {
        m.task == order.task && (request.model.is_none() || order.accepts.includes(m))
    };
    let sold = market.open(now).flat_map(|announcement| {
        let models = announcement.models.iter().filter(wanted);
        models.map(|model| (&**announcement, model))
    });
    let hurdle = hurdle(sold, request, order);
    hurdle.unwrap_or_else(|| no_such_model(market, request, now))
}

/// That nobody sells the model, and what there is.
pub(crate) fn no_such_model(market: &Market, request: &Request, now: Timestamp) -> Error {
    let task = request.task();
    let models = market.open(now).flat_map(|a| &a.models);
    Error::NoSuchModel {
        model: request.model.clone(),
        task,
        on_sale: names(models.filter(|m| m.task == task).map(|m| m.name.clone())),
    }
}

/// Each name once, in order.
fn names(names: impl Iterator<Item = String>) -> Vec<String> {
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn npub(key: &PublicKey) -> String {
    let Ok(npub) = key.to_bech32();
    npub
}

/// A public key short enough to read.
fn short(key: &PublicKey) -> String {
    npub(key).chars().take(12).collect()
}
