//! Kinds 24600 and 24601: what the two sides tell each other while an attempt
//! runs. Ephemeral, encrypted, so only the envelope can be checked from outside.

use nostr::{Event, EventId, Kind, PublicKey, Tags, Timestamp, UnsignedEvent};

use super::{Refusal, alt_of, tag};
use crate::bounds::{MAX_TAGS, count, instant};
use crate::kinds;

/// The envelope of a progress or control message. Its content is a
/// [`crate::payload::Progress`] or [`crate::payload::Control`], encrypted by
/// NIP-44 from author to reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Private {
    /// [`kinds::PROGRESS`] or [`kinds::CONTROL`].
    pub kind: u16,
    /// The job.
    pub job: EventId,
    /// Who can read it.
    pub reader: PublicKey,
    /// The encrypted message.
    pub content: String,
}

/// Characters that the largest payload becomes.
pub(super) const MAX_CONTENT_CHARS: usize = 54_704;

impl Private {
    /// Reads an envelope.
    ///
    /// # Errors
    /// Another kind, a missing tag, or too much content.
    pub fn parse(event: &Event) -> Result<Self, Refusal> {
        let kind = event.kind.as_u16();
        if !matches!(kind, kinds::PROGRESS | kinds::CONTROL) {
            return Err(Refusal::Kind(kind));
        }
        count("tags", event.tags.len(), MAX_TAGS)?;
        instant("created_at", event.created_at)?;
        count("content", event.content.len(), MAX_CONTENT_CHARS)?;
        alt_of(event)?;
        Ok(Self {
            kind,
            job: first(event, "e").ok_or(Refusal::Tag("e".into()))?,
            reader: first(event, "p").ok_or(Refusal::Tag("p".into()))?,
            content: event.content.clone(),
        })
    }

    /// The event that carries it, to be signed by `author`.
    pub fn to_unsigned(&self, author: PublicKey, created_at: Timestamp) -> UnsignedEvent {
        let alt = match self.kind {
            kinds::PROGRESS => "A provider's private message on a job",
            _ => "A buyer's private message on a job",
        };
        let tags = vec![
            tag(["e", &self.job.to_hex()]),
            tag(["p", &self.reader.to_hex()]),
            tag(["alt", alt]),
        ];
        UnsignedEvent::new(
            author,
            created_at,
            Kind::from(self.kind),
            Tags::from_list(tags),
            self.content.clone(),
        )
    }
}

/// The first value of the first tag of this name, if it can be read.
pub(super) fn first<T: std::str::FromStr>(event: &Event, name: &str) -> Option<T> {
    let tag = event
        .tags
        .iter()
        .find(|tag| tag.as_slice().first().is_some_and(|n| n == name))?;
    tag.content()?.parse().ok()
}
