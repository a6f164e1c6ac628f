//! What every part of a running provider needs: its keys, its engine, its goods,
//! its link to the market, its store.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use infernet_blobs::Blobs;
use infernet_engine::{Engine, Standing};
use infernet_node::clock;
use infernet_node::link::Link;
use infernet_protocol::bounds::{
    MAX_BLOB_PAYLOAD_BYTES, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, MAX_REASON_BYTES,
};
use infernet_protocol::event::{Body, Private};
use infernet_protocol::kinds;
use infernet_protocol::money::Price;
use infernet_protocol::payload::{News, Payload, Progress};
use infernet_protocol::seal::{self, Conversation, Conversations};
use infernet_protocol::tab::SignedTotals;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Keys, PublicKey, Timestamp, UnsignedEvent};
use tokio_util::task::TaskTracker;

use crate::catalogue::{Catalogue, Ways};
use crate::options::Options;
use crate::promise::Promises;
use crate::store::Store;
use crate::till::Till;

/// What the parts of a provider share.
#[derive(Debug)]
pub struct Shop {
    /// What it was told.
    pub options: Options,
    /// What computes.
    pub engine: SharedEngine,
    /// Engine and version, fit for an event.
    pub engine_version: String,
    /// What is on sale.
    pub catalogue: Catalogue,
    /// How fast it is said to be.
    pub promises: Promises,
    /// The relays.
    pub link: Link,
    /// The keys shared with buyers.
    pub conversations: Conversations,
    /// Where payloads go that no event carries.
    pub blobs: Blobs,
    /// What outlives the process.
    pub store: Store,
    /// Where money comes in; none where everything is free.
    pub till: Option<Till>,
    /// Makes numbers of buyers.
    pub customers: RandomState,
    /// Publications that must not be cut off by a graceful stop.
    pub publications: TaskTracker,
}

/// An engine that has no name in debug output.
#[derive(Clone)]
pub struct SharedEngine(pub Arc<dyn Engine>);

impl std::fmt::Debug for SharedEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine(…)")
    }
}

impl std::ops::Deref for SharedEngine {
    type Target = dyn Engine;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// Where a private message belongs.
#[derive(Debug, Clone)]
pub struct Address {
    /// The job.
    pub job: EventId,
    /// The award.
    pub award: EventId,
    /// Who reads it.
    pub buyer: PublicKey,
    /// The key shared with the reader.
    pub conversation: Conversation,
}

impl Shop {
    /// The keys that sign everything.
    pub const fn keys(&self) -> &Keys {
        &self.options.keys
    }

    /// Who sells.
    pub const fn public_key(&self) -> PublicKey {
        self.options.keys.public_key
    }

    /// Bytes that an output may have: more than an event's once a server has taken a blob.
    pub fn max_output_bytes(&self) -> usize {
        match self.blobs.has_put() {
            true => MAX_BLOB_PAYLOAD_BYTES,
            false => MAX_PAYLOAD_BYTES,
        }
    }

    /// A body as an event of ours.
    pub fn sign<B: Body>(&self, body: &B, created_at: Timestamp) -> Event {
        self.sign_raw(body.to_unsigned(self.public_key(), created_at))
    }

    /// An event of ours.
    pub fn sign_raw(&self, unsigned: UnsignedEvent) -> Event {
        signed(self.keys(), unsigned)
    }

    /// How a buyer's work stands in the engine. The number is made with a secret of
    /// this process: nobody can look for a key that shares another's.
    pub fn standing(&self, buyer: &PublicKey, price: Price) -> Standing {
        Standing {
            customer: self.customers.hash_one(buyer.as_bytes()),
            price: price.output_msat,
        }
    }

    /// How one may pay, if one is somebody whom we lend to: by a tab where there is a
    /// till, or later.
    pub fn ways(&self) -> Ways {
        Ways {
            tab: self.till.as_ref().map(Till::conditions),
            escrow: self.till.is_some() && !self.options.escrow.from.is_empty(),
        }
    }

    /// How this buyer may pay.
    pub fn ways_of(&self, buyer: &PublicKey) -> Ways {
        Ways {
            escrow: self.till.is_some() && self.options.escrow.from.contains(buyer),
            ..self.ways()
        }
    }

    /// Tells a buyer something, and how its tab stands, in order behind what it
    /// was told before. What gets lost is asked for again, or found in the result.
    pub fn tell(&self, to: &Address, news: News, tab: Option<SignedTotals>) {
        let progress = Progress {
            award: to.award,
            tab,
            news,
        };
        let content = match seal::whisper(&to.conversation, &progress.to_bytes(), &mut OsRng) {
            Ok(content) => content,
            Err(error) => return tracing::error!(award = %to.award, %error, "cannot tell"),
        };
        let envelope = Private {
            kind: kinds::PROGRESS,
            job: to.job,
            reader: to.buyer,
            content,
        };
        let event = self.sign_raw(envelope.to_unsigned(self.public_key(), clock::now()));
        if let Err(error) = self.link.send(&event) {
            tracing::debug!(award = %to.award, %error, "progress was not sent");
        }
    }
}

/// An event of the key that it names.
#[expect(clippy::expect_used, reason = "the event names the key that signs it")]
pub fn signed(keys: &Keys, unsigned: UnsignedEvent) -> Event {
    unsigned
        .sign_with_keys(keys)
        .expect("an event is signed by the key that it names")
}

/// Words fit for an event: short, on one line, harmless on a terminal.
pub fn plain_reason(words: &str) -> String {
    plain(words, MAX_REASON_BYTES)
}

/// A name fit for an event.
pub fn plain_name(name: &str) -> String {
    plain(name, MAX_NAME_BYTES)
}

fn plain(words: &str, max_bytes: usize) -> String {
    let mut plain = String::new();
    for c in words.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if plain.len() + c.len_utf8() > max_bytes {
            break;
        }
        plain.push(c);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_an_event_are_short_and_harmless() {
        assert_eq!(plain_reason("no\u{1b}[2J\nway"), "no [2J way");
        let long = plain_reason(&"é".repeat(1_000));
        assert_eq!(long.len(), MAX_REASON_BYTES);
        assert_eq!(plain_name(&"x".repeat(1_000)).len(), MAX_NAME_BYTES);
    }
}
