//! What can go wrong on the link, by what the caller can do about it.

use std::fmt;
use std::time::Duration;

use nostr::RelayUrl;

use super::demand::Demand;
use super::{MAX_EVENT_BYTES, MAX_RELAYS};

/// What one relay said or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The relay.
    pub relay: RelayUrl,
    /// Its words (made fit to print), or what happened to its connection.
    pub reason: String,
    /// Whether it would say so again, whatever we do.
    pub is_final: bool,
}

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No relay was named.
    #[error("no relay given: name at least one, like wss://relay.example.com")]
    NoRelay,
    /// Too many relays were named.
    #[error("{0} relays given, at most {MAX_RELAYS} can be used")]
    TooManyRelays(usize),
    /// The event is too long for relays: make it shorter.
    #[error("the event is {bytes} bytes long, relays take at most {MAX_EVENT_BYTES}")]
    TooLarge {
        /// Its length, serialized.
        bytes: usize,
    },
    /// Too many subscriptions are open at once: drop some.
    #[error("too many subscriptions are open ({0})")]
    TooManySubscriptions(usize),
    /// No relay is connected, or none answered: try again later.
    #[error("no relay can be reached: {}", list(.0))]
    Unreachable(Vec<Trouble>),
    /// Every relay that answered said no.
    #[error("refused by {}", list(.0))]
    Refused(Vec<Trouble>),
    /// The link has been shut down.
    #[error("the link to the relays has been shut down")]
    Stopped,
}

impl Error {
    /// The pause that a relay asks for before the same call may succeed; the shortest, if several do.
    pub(super) fn pause(&self) -> Option<Duration> {
        let Self::Refused(reasons) = self else {
            return None;
        };
        let pauses = reasons.iter().filter(|trouble| !trouble.is_final);
        let pauses = pauses.map(|trouble| match Demand::in_words(&trouble.reason) {
            Demand::Patience(Some(pause)) => pause,
            _ => Duration::ZERO,
        });
        pauses.min()
    }

    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TooManySubscriptions(_) => true,
            Self::Refused(reasons) => reasons.iter().any(|trouble| !trouble.is_final),
            Self::NoRelay | Self::TooManyRelays(_) | Self::TooLarge { .. } | Self::Stopped => false,
        }
    }
}

impl Trouble {
    /// What a relay said, which is final unless its words (NIP-01's prefixes) say otherwise.
    pub(super) fn said(relay: RelayUrl, Refusal { words, is_final }: Refusal) -> Self {
        Self {
            relay,
            reason: words,
            is_final,
        }
    }
}

/// A relay's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    words: String,
    is_final: bool,
}

impl Refusal {
    /// What a relay said: final unless it says what would help.
    pub(super) fn of(words: &str) -> Self {
        Self {
            words: plain(words),
            is_final: Demand::in_words(words) == Demand::Nothing,
        }
    }

    /// What a relay said that nothing can be done about, and why.
    pub(super) fn final_of(words: &str, why: &str) -> Self {
        Self {
            words: format!("{}; {why}", plain(words)),
            is_final: true,
        }
    }

    pub(super) fn words(&self) -> &str {
        &self.words
    }

    /// The pause that the relay asks for.
    pub(super) fn pause(&self) -> Option<Duration> {
        match Demand::in_words(&self.words) {
            Demand::Patience(pause) => pause,
            _ => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.relay, self.reason)
    }
}

fn list(troubles: &[Trouble]) -> String {
    let each: Vec<String> = troubles.iter().map(Trouble::to_string).collect();
    each.join(", ")
}

/// How much of what a relay says is kept.
const MAX_WORDS: usize = 200;

/// What a relay said, made fit for a terminal and a log: bounded, and without control characters.
pub(super) fn plain(words: &str) -> String {
    let fit = |c: char| if c.is_control() { ' ' } else { c };
    words.chars().take(MAX_WORDS).map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_relay_are_bounded_and_harmless() {
        assert_eq!(plain("no\u{1b}[2Jthing\r\n"), "no [2Jthing  ");
        assert_eq!(plain(&"é".repeat(1_000)).chars().count(), MAX_WORDS);
    }
}
