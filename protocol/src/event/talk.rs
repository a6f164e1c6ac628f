//! Kind 24602: what a buyer and an aggregator tell each other. Ephemeral,
//! encrypted, so only the envelope can be checked from outside.

use nostr::{Event, Kind, PublicKey, Tags, Timestamp, UnsignedEvent};

use super::private::{MAX_CONTENT_CHARS, first};
use super::{Refusal, alt_of, tag};
use crate::bounds::{MAX_TAGS, count, instant};
use crate::kinds;

/// The envelope. Its content is a [`crate::batch::Question`] from a buyer or a
/// [`crate::batch::Answer`] from an aggregator, encrypted by NIP-44 from author to
/// reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Talk {
    /// Who can read it.
    pub reader: PublicKey,
    /// The encrypted message.
    pub content: String,
}

impl Talk {
    /// Reads an envelope.
    ///
    /// # Errors
    /// Another kind, a missing tag, or too much content.
    pub fn parse(event: &Event) -> Result<Self, Refusal> {
        let kind = event.kind.as_u16();
        if kind != kinds::TALK {
            return Err(Refusal::Kind(kind));
        }
        count("tags", event.tags.len(), MAX_TAGS)?;
        instant("created_at", event.created_at)?;
        count("content", event.content.len(), MAX_CONTENT_CHARS)?;
        alt_of(event)?;
        Ok(Self {
            reader: first(event, "p").ok_or(Refusal::Tag("p".into()))?,
            content: event.content.clone(),
        })
    }

    /// The event that carries it, to be signed by `author`.
    pub fn to_unsigned(&self, author: PublicKey, created_at: Timestamp) -> UnsignedEvent {
        let tags = vec![
            tag(["p", &self.reader.to_hex()]),
            tag(["alt", "A private message on a batch"]),
        ];
        UnsignedEvent::new(
            author,
            created_at,
            Kind::from(kinds::TALK),
            Tags::from_list(tags),
            self.content.clone(),
        )
    }
}
