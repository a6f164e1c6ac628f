//! Which offers are bid on.

use infernet_protocol::event::{Accepts, Bid, Limits, Offer, Promise, Signed, V1};
use infernet_protocol::inference::Task;
use infernet_protocol::job::Millis;
use infernet_protocol::money::PaymentTerms;
use nostr::{EventId, Timestamp};

use crate::admission::MAX_SKEW_S;
use crate::catalogue::{Catalogue, Item, Ways};
use crate::limits::{Doors, Remembered};
use crate::output;
use crate::promise::Promises;
use crate::shop::Shop;

/// Bids a second, sustained, to those who have paid here, and as many to others: each
/// costs a signature here and a write at every relay, and offers cost their authors
/// next to nothing.
const BIDS_PER_S: u64 = 20;

/// Bids that may come at once before that rate applies.
const BURST: u64 = 40;

/// Seconds that a bid stands beyond the end of the bidding, for an award that
/// is under way.
const STANDS_S: u64 = 30;

/// Offers that are remembered, so that each is bid on once however often relays
/// send it.
const MAX_ANSWERED: usize = 4_096;

/// Why there is no bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Pass {
    /// It was bid on before.
    #[error("it was answered before")]
    Answered,
    /// The bidding, or the job's time, is over.
    #[error("the bidding is over")]
    Over,
    /// No model here will do.
    #[error("no model here will do")]
    Model,
    /// It is too long for the model, or its answer for an event.
    #[error("it is too long")]
    TooLong,
    /// It pays less than the price.
    #[error("it pays less than the price")]
    Price,
    /// There is no way of paying that both sides know.
    #[error("there are no terms in common")]
    Terms,
    /// It could not be begun before its deadline.
    #[error("its deadline cannot be met")]
    Late,
    /// Too many offers came at once.
    #[error("too many bids in a short time")]
    Rate,
}

/// When an offer was heard.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time.
    pub now: Millis,
    /// How long work that comes now would wait here.
    pub wait_ms: u64,
    /// Whether it was published a moment ago, whatever its buyer's clock says.
    pub is_live: bool,
    /// Whether its buyer has ever paid here.
    pub is_customer: bool,
}

impl Moment {
    /// When the bidding on an offer is over, in Unix seconds on our clock: nobody
    /// publishes an offer that is over.
    fn closes_s(&self, offer: &Offer) -> u64 {
        let skew_s = if self.is_live { MAX_SKEW_S } else { 0 };
        offer.bids_until.as_secs().saturating_add(skew_s)
    }
}

/// Remembers what was bid on, and keeps the rate.
#[derive(Debug)]
pub struct Bidder {
    answered: Remembered<EventId>,
    doors: Doors,
}

impl Bidder {
    /// A bidder that has not bid yet.
    pub fn new(now: Millis) -> Self {
        Self {
            answered: Remembered::new(MAX_ANSWERED),
            doors: Doors::new(BIDS_PER_S, BURST, now),
        }
    }

    /// The bid on an offer, if it is worth one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn consider(
        &mut self,
        offer: &Signed<Offer>,
        shop: &Shop,
        moment: Moment,
    ) -> Result<Bid, Pass> {
        if output::surely_too_long(offer.limits.output_tokens, shop.max_output_bytes()) {
            return Err(Pass::TooLong);
        }
        let goods = (&shop.catalogue, shop.ways_of(&offer.author()));
        self.weigh(offer, goods, &shop.promises, moment)
    }

    fn weigh(
        &mut self,
        offer: &Signed<Offer>,
        goods: (&Catalogue, Ways),
        promises: &Promises,
        moment: Moment,
    ) -> Result<Bid, Pass> {
        let now = moment.now;
        if self.answered.contains(&offer.id()) {
            return Err(Pass::Answered);
        }
        let now_s = now.0 / 1_000;
        if moment.closes_s(offer) < now_s || offer.deadline.as_secs() <= now_s {
            return Err(Pass::Over);
        }
        let (item, terms) = choose(offer, goods, promises)?;
        let mut promise = promises.of(&item.model.id);
        promise.first_token_ms = promise.first_token_ms.saturating_add(moment.wait_ms);
        if now.plus(promise.first_token_ms).0 >= offer.deadline.as_secs().saturating_mul(1_000) {
            return Err(Pass::Late);
        }
        if !self.doors.take(moment.is_customer, 1, now) {
            return Err(Pass::Rate);
        }
        self.answered.insert(offer.id());
        Ok(bid(offer, item, promise, terms, now_s))
    }
}

/// The cheapest item that will do, or why none does: the reason of the one that
/// came closest.
fn choose<'a>(
    offer: &Offer,
    (catalogue, ways): (&'a Catalogue, Ways),
    promises: &Promises,
) -> Result<(&'a Item, PaymentTerms), Pass> {
    let mut closest = Pass::Model;
    let mut found: Vec<(&Item, PaymentTerms)> = vec![];
    for item in catalogue.items() {
        match suits(offer, item, ways, promises) {
            Ok(terms) => found.push((item, terms)),
            Err(Pass::Model) => {}
            Err(pass) => closest = pass,
        }
    }
    let price = |item: &Item| (item.price.output_msat, item.price.input_msat);
    let cheapest = found.into_iter().min_by_key(|(item, _)| price(item));
    cheapest.ok_or(closest)
}

fn suits(
    offer: &Offer,
    item: &Item,
    ways: Ways,
    promises: &Promises,
) -> Result<PaymentTerms, Pass> {
    let announced = item.announced(promises.of(&item.model.id));
    let includes = |accepts: &Accepts| accepts.includes(&announced);
    if item.task != offer.task || !offer.accepts.iter().any(includes) {
        return Err(Pass::Model);
    }
    let limits = &offer.limits;
    if is_too_long(item, limits) {
        return Err(Pass::TooLong);
    }
    let (input, drawn) = (limits.input_tokens.into(), limits.output_tokens.into());
    let cost = item.price.cost(input, drawn);
    let covered = cost.is_some_and(|cost| cost <= offer.budget_msat);
    if !item.price.is_within(&offer.max_price) || !covered {
        return Err(Pass::Price);
    }
    let mut terms = item.terms(ways);
    let common = terms.find(|terms| offer.terms.contains(&terms.kind()));
    common.ok_or(Pass::Terms)
}

/// Whether work of this size is surely more than the model holds. What is
/// checked is read in pieces.
fn is_too_long(item: &Item, limits: &Limits) -> bool {
    let whole = limits.input_tokens.saturating_add(limits.output_tokens);
    item.task != Task::Verify && whole > item.model.context
}

fn bid(
    offer: &Signed<Offer>,
    item: &Item,
    promise: Promise,
    terms: PaymentTerms,
    now_s: u64,
) -> Bid {
    let stands = offer
        .bids_until
        .as_secs()
        .max(now_s)
        .saturating_add(STANDS_S);
    let until = stands.min(offer.deadline.as_secs()).max(now_s + 1);
    Bid {
        v: V1,
        offer: offer.id(),
        buyer: offer.author(),
        model: item.model.id,
        name: item.model.name.clone(),
        dtype: item.model.dtype,
        context: item.model.context,
        price: item.price,
        promise,
        terms,
        continues: item.continues(),
        expires_at: Timestamp::from_secs(until),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_engine::ModelInfo;
    use infernet_protocol::event::{Body, Checkers};
    use infernet_protocol::inference::{Dtype, ModelId};
    use infernet_protocol::money::{Msat, PaymentKind, Price};
    use nostr::Keys;

    use super::*;

    const NOW: Millis = Millis(1_000_000_000);
    const STORED: Moment = Moment {
        now: NOW,
        wait_ms: 0,
        is_live: false,
        is_customer: false,
    };
    const MODEL: ModelId = ModelId::from_bytes([7; 32]);
    const NO_TILL: Ways = Ways {
        tab: None,
        escrow: false,
    };

    fn catalogue(price: Price) -> Catalogue {
        let model = ModelInfo {
            id: MODEL,
            name: "small".into(),
            task: Task::TextGeneration,
            architecture: "llama".into(),
            context: 1_000,
            dtype: Dtype::F32,
            parameters: 1,
            embedding_width: None,
            interface: None,
        };
        let task = model.task;
        Catalogue::of(vec![Item { model, task, price }])
    }

    fn offer(change: impl FnOnce(&mut Offer)) -> Signed<Offer> {
        let now_s = NOW.0 / 1_000;
        let mut offer = Offer {
            v: V1,
            nonce: 1,
            task: Task::TextGeneration,
            accepts: vec![Accepts::Name("Small".into())],
            limits: Limits {
                input_tokens: 100,
                output_tokens: 100,
            },
            max_price: Price::FREE,
            budget_msat: Msat::ZERO,
            terms: vec![PaymentKind::Free],
            checkers: Checkers::Nobody,
            bids_until: Timestamp::from_secs(now_s + 2),
            deadline: Timestamp::from_secs(now_s + 60),
            relays: vec![],
        };
        change(&mut offer);
        let keys = Keys::generate();
        let at = Timestamp::from_secs(now_s - 5);
        let event = offer.to_unsigned(keys.public_key, at).sign_with_keys(&keys);
        Signed::verify(event.unwrap()).unwrap()
    }

    fn consider(price: Price, offer: &Signed<Offer>) -> Result<Bid, Pass> {
        consider_with(NO_TILL, price, offer)
    }

    fn consider_with(ways: Ways, price: Price, offer: &Signed<Offer>) -> Result<Bid, Pass> {
        let promises = Promises::new(None, None);
        Bidder::new(NOW).weigh(offer, (&catalogue(price), ways), &promises, STORED)
    }

    #[test]
    fn a_fitting_offer_gets_a_bid_that_stands_for_the_award() {
        let offer = offer(|_| {});
        let bid = consider(Price::FREE, &offer).unwrap();
        assert_eq!((bid.offer, bid.buyer), (offer.id(), offer.author()));
        assert_eq!((bid.model, bid.price), (MODEL, Price::FREE));
        assert!(bid.expires_at > offer.bids_until && bid.expires_at <= offer.deadline);
        assert!(bid.continues);
    }

    #[test]
    fn what_does_not_suit_is_passed() {
        let free = |change: fn(&mut Offer)| consider(Price::FREE, &offer(change)).unwrap_err();
        assert_eq!(
            free(|o| o.accepts = vec![Accepts::Name("large".into())]),
            Pass::Model
        );
        assert_eq!(free(|o| o.task = Task::Embedding), Pass::Model);
        assert_eq!(free(|o| o.limits.input_tokens = 950), Pass::TooLong);
        assert_eq!(free(|o| o.terms = vec![PaymentKind::Tab]), Pass::Terms);
        let over = |o: &mut Offer| o.bids_until = Timestamp::from_secs(NOW.0 / 1_000 - 1);
        assert_eq!(free(over), Pass::Over);
        let late = |o: &mut Offer| {
            o.bids_until = Timestamp::from_secs(NOW.0 / 1_000);
            o.deadline = Timestamp::from_secs(NOW.0 / 1_000 + 1);
        };
        assert_eq!(free(late), Pass::Late);
    }

    #[test]
    fn a_price_must_be_within_the_offer_and_payable() {
        let price = Price {
            input_msat: 0,
            output_msat: 1_000_000,
        };
        assert_eq!(consider(price, &offer(|_| {})), Err(Pass::Price));
        let poor = offer(|o| o.max_price = price);
        assert_eq!(
            consider(price, &poor),
            Err(Pass::Price),
            "100 msat for 100 tokens"
        );
        let rich = offer(|o| {
            o.max_price = price;
            o.budget_msat = Msat(100);
            o.terms = vec![PaymentKind::Tab];
        });
        assert_eq!(consider(price, &rich), Err(Pass::Terms), "there is no till");
        let tab = PaymentTerms::Tab {
            min_payment_msat: Msat(10_000),
            prepaid_output_tokens: 64,
            payee: None,
        };
        let ways = Ways {
            tab: Some(tab),
            escrow: true,
        };
        let bid = consider_with(ways, price, &rich).unwrap();
        assert_eq!((bid.terms, bid.price), (tab, price));
        let later = offer(|o| {
            o.max_price = price;
            o.budget_msat = Msat(100);
            o.terms = vec![PaymentKind::Escrow];
        });
        let bid = consider_with(ways, price, &later).unwrap();
        assert_eq!(bid.terms, PaymentTerms::Escrow);
        let free = offer(|o| {
            o.max_price = price;
            o.budget_msat = Msat(100);
        });
        assert_eq!(consider_with(ways, price, &free), Err(Pass::Terms));
    }

    #[test]
    fn an_offer_that_is_heard_live_is_open_whatever_its_buyers_clock_says() {
        let now_s = NOW.0 / 1_000;
        let behind = offer(|o| o.bids_until = Timestamp::from_secs(now_s - 40));
        assert_eq!(consider(Price::FREE, &behind), Err(Pass::Over));
        let live = Moment {
            is_live: true,
            ..STORED
        };
        let (catalogue, promises) = (catalogue(Price::FREE), Promises::new(None, None));
        let bid = Bidder::new(NOW).weigh(&behind, (&catalogue, NO_TILL), &promises, live);
        let stands = bid.unwrap().expires_at.as_secs();
        assert!(
            stands >= now_s + 10,
            "long enough on our clock for the award"
        );
    }

    #[test]
    fn an_offer_is_bid_on_once() {
        let (catalogue, promises) = (catalogue(Price::FREE), Promises::new(None, None));
        let mut bidder = Bidder::new(NOW);
        let offer = offer(|_| {});
        bidder
            .weigh(&offer, (&catalogue, NO_TILL), &promises, STORED)
            .unwrap();
        let again = bidder.weigh(&offer, (&catalogue, NO_TILL), &promises, STORED);
        assert_eq!(again, Err(Pass::Answered));
    }
}
