//! What a buyer tells a provider in private (kind 24601).

use infernet_node::clock;
use infernet_protocol::event::Private;
use infernet_protocol::kinds;
use infernet_protocol::payload::{Control, Payload, Wish};
use infernet_protocol::seal::{Conversation, whisper};
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Keys, PublicKey};

/// A wish about an award of a job, for its provider alone; nothing if it cannot be signed.
pub(crate) fn control(
    keys: &Keys,
    conversation: &Conversation,
    provider: PublicKey,
    job: EventId,
    award: EventId,
    wish: Wish,
) -> Option<Event> {
    let control = Control { award, wish };
    let content = whisper(conversation, &control.to_bytes(), &mut OsRng).ok()?;
    let private = Private {
        kind: kinds::CONTROL,
        job,
        reader: provider,
        content,
    };
    let unsigned = private.to_unsigned(keys.public_key(), clock::now());
    unsigned.sign_with_keys(keys).ok()
}
