//! Kind 8609: a buyer takes an aggregator's quote.

use nostr::{Event, PublicKey, RelayUrl, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::announcement::validate_relays;
use super::{Body, Quote, Refusal, Signed, V1, tag};
use crate::bounds::MAX_RECORD_BYTES;
use crate::kinds;

/// A batch that is ordered. Its event's id names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The protocol's version.
    pub v: V1,
    /// Who is to do it.
    pub aggregator: PublicKey,
    /// The quote, whole.
    pub quote: Box<Event>,
    /// Where the buyer listens.
    pub relays: Vec<RelayUrl>,
}

impl Signed<Order> {
    /// The quote. `None` never comes from a valid order.
    pub fn terms(&self) -> Option<Quote> {
        serde_json::from_str(&self.quote.content).ok()
    }
}

impl Body for Order {
    const KIND: u16 = kinds::ORDER;
    const MAX_CONTENT_BYTES: usize = MAX_RECORD_BYTES;

    fn tags(&self) -> Vec<Tag> {
        vec![
            tag(["p", &self.aggregator.to_hex()]),
            tag(["e", &self.quote.id.to_hex()]),
        ]
    }

    fn alt(&self) -> String {
        "Orders a batch of inference".to_owned()
    }

    fn validate(&self, author: &PublicKey, created_at: Timestamp) -> Result<(), Refusal> {
        validate_relays(&self.relays)?;
        let quote = Signed::<Quote>::verify((*self.quote).clone())?;
        if quote.author() != self.aggregator || quote.buyer != *author {
            return Err(Refusal::Invalid(
                "the quote is not this aggregator's or not for this buyer",
            ));
        }
        match created_at > quote.valid_until {
            true => Err(Refusal::Invalid("the quote had run out")),
            false => Ok(()),
        }
    }
}
