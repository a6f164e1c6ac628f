//! Checking the signatures of events that others embed.
//!
//! A provider's announcement comes embedded in every award on it, and buyer, relay
//! and provider check each. What was checked a moment ago is remembered, by the id
//! that its bytes hash to and by the signature itself, so nothing passes for it.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use nostr::secp256k1::schnorr::Signature;
use nostr::{Event, EventId};

use super::Refusal;

/// How many events are remembered before it begins anew.
const MAX_REMEMBERED: usize = 1_024;

static CHECKED: LazyLock<Mutex<HashMap<EventId, Signature>>> = LazyLock::new(Mutex::default);

/// Checks id and signature.
///
/// # Errors
/// [`Refusal::Signature`].
pub(super) fn verify(event: &Event) -> Result<(), Refusal> {
    if !event.verify_id() {
        return Err(Refusal::Signature);
    }
    if checked().get(&event.id) == Some(&event.sig) {
        return Ok(());
    }
    if !event.verify_signature() {
        return Err(Refusal::Signature);
    }
    let mut checked = checked();
    if checked.len() >= MAX_REMEMBERED {
        checked.clear();
    }
    checked.insert(event.id, event.sig);
    Ok(())
}

fn checked() -> std::sync::MutexGuard<'static, HashMap<EventId, Signature>> {
    CHECKED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, Keys};

    use super::*;

    fn note(text: &str) -> Event {
        let note = EventBuilder::text_note(text);
        note.sign_with_keys(&Keys::generate()).unwrap()
    }

    #[test]
    fn a_forgery_of_what_was_checked_is_refused() {
        let (true_one, other) = (note("a"), note("b"));
        for _ in 0..2 {
            assert_eq!(verify(&true_one), Ok(()));
        }
        let mut forged = true_one.clone();
        forged.content = "c".into();
        assert_eq!(verify(&forged), Err(Refusal::Signature), "other words");
        let mut forged = true_one.clone();
        forged.sig = other.sig;
        assert_eq!(
            verify(&forged),
            Err(Refusal::Signature),
            "another signature"
        );
        let mut forged = true_one.clone();
        forged.pubkey = other.pubkey;
        assert_eq!(verify(&forged), Err(Refusal::Signature), "another author");
        let mut forged = other.clone();
        forged.id = true_one.id;
        forged.sig = true_one.sig;
        assert_eq!(verify(&forged), Err(Refusal::Signature), "a borrowed id");
        assert_eq!(verify(&true_one), Ok(()));
    }
}
