//! Whom the aggregators that the operator chose have done business with.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use infernet_protocol::event::{Receipt, Settlement, Signed};
use infernet_protocol::kinds;
use infernet_protocol::money::Msat;
use nostr::{Event, PublicKey};

/// Keys that are remembered. Only authors that the operator chose can name them.
const MOST: usize = 1_000_000;

/// The kinds by which they name others.
pub const KINDS: [u16; 2] = [kinds::RECEIPT, kinds::SETTLEMENT];

/// How a key is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Not at all.
    Unknown,
    /// Somebody chosen has done paid business with it.
    Named,
    /// The operator chose it.
    Chosen,
}

/// Who is trusted, by whose word.
#[derive(Debug, Default)]
pub struct Trust {
    authors: HashSet<PublicKey>,
    named: RwLock<HashSet<PublicKey>>,
}

impl Trust {
    /// By the word of `authors`, who have said nothing yet.
    pub fn new(authors: &[PublicKey]) -> Self {
        Self {
            authors: authors.iter().copied().collect(),
            named: RwLock::default(),
        }
    }

    /// Those whose word counts.
    pub fn authors(&self) -> impl Iterator<Item = PublicKey> + '_ {
        self.authors.iter().copied()
    }

    /// What is known of `key`.
    pub fn knows(&self, key: &PublicKey) -> Word {
        if self.authors.is_empty() {
            return Word::Unknown;
        }
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
        match named.contains(key) {
            _ if self.authors.contains(key) => Word::Chosen,
            true => Word::Named,
            false => Word::Unknown,
        }
    }

    /// Takes in an event whose signature is right.
    pub fn take(&self, event: &Event) {
        if !self.authors.contains(&event.pubkey) {
            return;
        }
        if let Some(partner) = partner(event) {
            let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
            if named.len() < MOST {
                named.insert(partner);
            }
        }
    }
}

/// With whom an event says that its author has done paid business. Free work counts nothing: anybody can have it done.
fn partner(event: &Event) -> Option<PublicKey> {
    match event.kind.as_u16() {
        kinds::RECEIPT => {
            let receipt = Signed::<Receipt>::from_verified(event.clone()).ok()?;
            let is_paid = receipt.due_msat > Msat(0);
            is_paid.then_some(receipt.counterparty)
        }
        kinds::SETTLEMENT => {
            let settlement = Signed::<Settlement>::from_verified(event.clone()).ok()?;
            let is_paid = settlement.group.as_ref()?.charge.work_msat > Msat(0);
            is_paid.then_some(settlement.buyer)
        }
        _ => None,
    }
}
