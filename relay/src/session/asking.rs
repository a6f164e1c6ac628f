//! What a client asks for: subscriptions, counts and reconciliations, as far as to see whether it may.

use std::collections::BTreeSet;
use std::time::Instant;

use nostr::{EventId, Filter};
use serde_json::value::RawValue;

use super::fault::Fault;
use super::message::{self, Asked, MAX_SUBSCRIPTION_ID};
use super::outbox::Envelope;
use super::request::Ask;
use super::{Session, say};
use crate::store;
use crate::subscriptions::Subscription;

/// What the subscriptions of one connection may have in all: filters, each of which is held against events; values in
/// these, each of which takes some two hundred bytes in memory; and bytes of JSON.
pub const MAX_OPEN: Weight = Weight {
    filters: 500,
    values: 10_000,
    bytes: 1 << 20,
};

/// How much filters take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    pub filters: usize,
    /// Ids, authors, kinds and values of tags.
    pub values: usize,
    /// As JSON.
    pub bytes: usize,
}

impl Weight {
    fn of(filters: &[Filter], asked: &Asked<'_>) -> Self {
        Self {
            filters: filters.len(),
            values: filters.iter().map(values).sum(),
            bytes: asked.bytes(),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            filters: self.filters + other.filters,
            values: self.values + other.values,
            bytes: self.bytes + other.bytes,
        }
    }

    fn fits(self, most: Self) -> bool {
        self.filters <= most.filters && self.values <= most.values && self.bytes <= most.bytes
    }
}

fn values(filter: &Filter) -> usize {
    let ids = filter.ids.as_ref().map_or(0, BTreeSet::len);
    let authors = filter.authors.as_ref().map_or(0, BTreeSet::len);
    let kinds = filter.kinds.as_ref().map_or(0, BTreeSet::len);
    let tags = filter.generic_tags.values().map(BTreeSet::len);
    ids + authors + kinds + tags.sum::<usize>()
}

/// A subscription of a client.
pub struct Open {
    subscription: Subscription,
    weight: Weight,
}

impl Session {
    pub(super) fn hear_request(&mut self, asked: &Asked<'_>) {
        // Whatever comes of this one, it takes the other's place.
        self.subscriptions.remove(&*asked.id);
        if let Err(fault) = self.subscribe(asked) {
            self.close(&asked.id, &fault);
        }
    }

    fn subscribe(&mut self, asked: &Asked<'_>) -> Result<(), Fault> {
        let filters = self.filters(asked)?;
        if self.subscriptions.len() >= self.max_subscriptions {
            return Err(Fault::Subscriptions(self.max_subscriptions));
        }
        let weight = Weight::of(&filters, asked);
        let others = self.subscriptions.values().map(|open| open.weight);
        if !others.fold(weight, Weight::and).fits(MAX_OPEN) {
            return Err(Fault::OpenFilters);
        }
        let subscription = self.shared.hub.subscribe(
            filters.clone(),
            Envelope::new(&asked.id),
            self.outbox.clone(),
            self.sight.clone(),
        );
        let id = asked.id.clone().into_owned();
        let ask = Ask::Stored {
            id: id.clone(),
            answering: subscription.answering(),
            filters,
        };
        self.asks.push(ask, weight.bytes);
        let open = Open {
            subscription,
            weight,
        };
        self.subscriptions.insert(id, open);
        Ok(())
    }

    pub(super) fn hear_count(&mut self, asked: &Asked<'_>) {
        match self.filters(asked) {
            Ok(filters) => {
                let id = asked.id.clone().into_owned();
                self.asks.push(Ask::Count { id, filters }, asked.bytes());
            }
            Err(fault) => self.close(&asked.id, &fault),
        }
    }

    pub(super) fn hear_negotiation(&mut self, id: &str, filter: &RawValue, message: &str) {
        let asked = Asked {
            id: id.into(),
            filters: vec![filter],
            too_many: false,
        };
        match self.filters(&asked) {
            Ok(mut filters) => {
                let ask = Ask::NegOpen {
                    id: id.to_owned(),
                    filter: filters.pop().unwrap_or_else(nothing),
                    message: message.to_owned(),
                };
                self.asks.push(ask, asked.bytes() + message.len());
            }
            Err(fault) => self.end_negotiation(id, &fault),
        }
    }

    /// A reconciliation goes on, which is one more request: comparing takes its time.
    pub(super) fn hear_negotiation_message(&mut self, id: String, message: String) {
        match self.viewer.asked() {
            Ok(()) => {
                let bytes = message.len();
                self.asks.push(Ask::NegMessage { id, message }, bytes);
            }
            Err(refusal) => {
                self.end_negotiation(&id, &refusal.into());
                self.asks.push(Ask::NegClose(id), 0);
            }
        }
    }

    fn end_negotiation(&self, id: &str, fault: &Fault) {
        self.shared.metrics.request_refused(fault.prefix());
        self.outbox.answer(say::neg_err(id, &fault.to_string()));
    }

    /// The filters of a request that may be asked.
    fn filters(&self, asked: &Asked<'_>) -> Result<Vec<Filter>, Fault> {
        if asked.id.chars().count() > MAX_SUBSCRIPTION_ID {
            return Err(Fault::LongId);
        }
        if asked.too_many {
            return Err(Fault::Filters);
        }
        // Reading a long filter takes some milliseconds.
        self.viewer.asked()?;
        let began = Instant::now();
        let filters = read(asked);
        self.viewer.took(began.elapsed());
        let filters = filters?;
        self.viewer.may_ask(&filters)?;
        Ok(filters)
    }

    fn close(&self, id: &str, fault: &Fault) {
        self.shared.metrics.request_refused(fault.prefix());
        self.outbox.answer(say::closed(id, &fault.to_string()));
    }

    /// Drops the subscriptions whose stored events could not be read.
    pub(super) fn drop_closed(&mut self) {
        let is_open = |open: &Open| !open.subscription.is_closed();
        self.subscriptions.retain(|_, open| is_open(open));
    }
}

/// The filters of a request. Those that match nothing are left out.
fn read(asked: &Asked<'_>) -> Result<Vec<Filter>, Fault> {
    let mut filters = Vec::new();
    for json in &asked.filters {
        let filter = message::filter(json)?;
        if filter.search.is_some() {
            return Err(Fault::Search);
        }
        if store::is_too_broad(&filter) {
            return Err(Fault::TooBroad);
        }
        if !message::matches_nothing(&filter) {
            filters.push(filter);
        }
    }
    Ok(filters)
}

/// A filter that matches nothing.
fn nothing() -> Filter {
    Filter::new().id(EventId::all_zeros())
}
