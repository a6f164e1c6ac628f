//! Who may read what (NIP-42).

use nostr::{Alphabet, Event, Filter, Kind, PublicKey, SingleLetterTag};

use super::refusal::Refusal;

const P: SingleLetterTag = SingleLetterTag::lowercase(Alphabet::P);

/// Refuses a filter that asks for nothing but events that would be kept from who asks.
///
/// # Errors
/// [`Refusal::PrivateKind`] or [`Refusal::PrivateOfOthers`].
pub fn check(
    filter: &Filter,
    private: &[Kind],
    authenticated: &[PublicKey],
) -> Result<(), Refusal> {
    let Some(kinds) = filter.kinds.as_ref() else {
        return Ok(());
    };
    let asks_for_others = kinds.iter().any(|kind| !private.contains(kind));
    let Some(kind) = kinds.first().filter(|_| !asks_for_others) else {
        return Ok(());
    };
    if authenticated.is_empty() {
        return Err(Refusal::PrivateKind(*kind));
    }
    match is_others(filter, authenticated) {
        true => Err(Refusal::PrivateOfOthers(*kind)),
        false => Ok(()),
    }
}

/// Whether a filter names whom its events come from or go to, and none of `own`.
fn is_others(filter: &Filter, own: &[PublicKey]) -> bool {
    let authors = filter.authors.as_ref();
    let readers = filter.generic_tags.get(&P);
    let by_own = authors.map(|authors| own.iter().any(|key| authors.contains(key)));
    let to_own = readers.map(|readers| own.iter().any(|key| readers.contains(&key.to_hex())));
    match (by_own, to_own) {
        (None, None) => false,
        (by, to) => by != Some(true) && to != Some(true),
    }
}

/// Whether an event's private kind concerns one of `authenticated`.
pub fn concerns(event: &Event, authenticated: &[PublicKey]) -> bool {
    let mut named = event.tags.public_keys();
    authenticated.contains(&event.pubkey) || named.any(|key| authenticated.contains(key))
}
