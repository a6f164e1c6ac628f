//! What a client asks for: subscriptions, counts and reconciliations, as far as to see whether it may.

use nostr::{EventId, Filter};
use serde_json::value::RawValue;

use super::fault::Fault;
use super::message::{self, Asked, MAX_SUBSCRIPTION_ID};
use super::outbox::Envelope;
use super::request::Ask;
use super::{Session, say};
use crate::store;
use crate::subscriptions::Subscription;

/// Bytes that the filters of one connection's subscriptions may have as JSON, which bounds what they take in memory.
pub const MAX_FILTER_BYTES: usize = 1 << 20;

/// A subscription of a client.
pub struct Open {
    subscription: Subscription,
    filter_bytes: usize,
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
        let filter_bytes = asked.filters.iter().map(|json| json.get().len()).sum();
        let others = self.subscriptions.values().map(|open| open.filter_bytes);
        if filter_bytes + others.sum::<usize>() > MAX_FILTER_BYTES {
            return Err(Fault::FilterBytes);
        }
        let subscription = self.shared.hub.subscribe(
            filters.clone(),
            Envelope::new(&asked.id),
            self.outbox.clone(),
            self.sight.clone(),
        );
        let id = asked.id.clone().into_owned();
        self.asks.push(Ask::Stored {
            id: id.clone(),
            answering: subscription.answering(),
            filters,
        });
        let open = Open {
            subscription,
            filter_bytes,
        };
        self.subscriptions.insert(id, open);
        Ok(())
    }

    pub(super) fn hear_count(&mut self, asked: &Asked<'_>) {
        match self.filters(asked) {
            Ok(filters) => self.asks.push(Ask::Count {
                id: asked.id.clone().into_owned(),
                filters,
            }),
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
            Ok(mut filters) => self.asks.push(Ask::NegOpen {
                id: id.to_owned(),
                filter: filters.pop().unwrap_or_else(nothing),
                message: message.to_owned(),
            }),
            Err(fault) => {
                self.shared.metrics.request_refused(fault.prefix());
                self.outbox.answer(say::neg_err(id, &fault.to_string()));
            }
        }
    }

    /// The filters of a request that may be asked. Those that match nothing are left out.
    fn filters(&self, asked: &Asked<'_>) -> Result<Vec<Filter>, Fault> {
        if asked.id.chars().count() > MAX_SUBSCRIPTION_ID {
            return Err(Fault::LongId);
        }
        if asked.too_many {
            return Err(Fault::Filters);
        }
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

/// A filter that matches nothing.
fn nothing() -> Filter {
    Filter::new().id(EventId::all_zeros())
}
