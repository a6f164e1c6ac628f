//! What a seller has seen and done.

use std::collections::{HashMap, HashSet};

use infernet_payments::PaymentHash;
use infernet_payments::tab::provider::Tab;
use infernet_payments::tab::{Carried, Totals};
use infernet_protocol::event::{Award, Cancel, Signed};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::News;
use nostr::{Event, EventId, PublicKey};

/// What a seller has seen and done.
#[derive(Default)]
pub struct Books {
    pub awards: Vec<Signed<Award>>,
    pub prefixes: Vec<usize>,
    pub(super) tabs: HashMap<PublicKey, Tab>,
    pub(super) carried: HashMap<PublicKey, Carried>,
    pub(super) allowed: HashMap<EventId, u64>,
    pub(super) stopped: HashSet<EventId>,
    /// The first invoice that was sent.
    pub(super) first_due: Option<News>,
    /// The first wish for a refund.
    pub(super) first_refund: Option<String>,
    /// The award that the last invoice is about, while nobody has paid it.
    pub(super) out: Option<EventId>,
    /// Whose invoices these are.
    pub(super) asked: HashMap<PaymentHash, (PublicKey, EventId)>,
    pub(super) sent: HashMap<EventId, Vec<Event>>,
    pub charged: HashMap<EventId, Msat>,
    pub acknowledged: HashMap<EventId, Totals>,
    pub paid: Vec<Msat>,
    pub paid_for: HashMap<EventId, Vec<(PaymentHash, Msat)>>,
    /// The most that a buyer wanted to be asked for, as it said.
    pub wished: Vec<Msat>,
    pub refunds: HashMap<String, bool>,
    /// The award that the last wish for a refund was about.
    pub refunded_about: Option<EventId>,
    pub cancels: Vec<Cancel>,
}

impl Books {
    /// Whether the last invoice was about what is over by now; told once.
    pub(super) fn lapses(&mut self) -> bool {
        let is_over = self.out.is_some_and(|out| self.charged.contains_key(&out));
        self.out = self.out.filter(|_| !is_over);
        is_over
    }

    /// An invoice that nobody has paid.
    pub fn first_asked(&self) -> Option<&PaymentHash> {
        self.asked.keys().next()
    }
}
