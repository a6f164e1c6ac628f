//! How far a reconciliation of two relays has come.

use std::fmt;

use nostr::Timestamp;
use serde::{Deserialize, Serialize};

/// Different reasons that are kept.
const MAX_REASONS: usize = 5;

/// Characters of a reason; the other relay may have written it.
const MAX_REASON: usize = 200;

/// How far it has come, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Events of this relay that were compared.
    pub compared: u64,
    /// Events that came from the other and are kept here now.
    pub received: u64,
    /// Events that the other has and this relay does not take.
    pub declined: u64,
    /// Events that the other took.
    pub given: u64,
    /// Events that the other did not take.
    pub refused: u64,
    /// The two are equal from this second (since the Unix epoch) on.
    pub down_to: Option<Timestamp>,
    /// The other does not speak NIP-77: it was read page by page, and given nothing.
    pub by_pages: bool,
    /// Whether all was compared.
    pub complete: bool,
    /// Some of the reasons for what was declined or refused.
    pub reasons: Vec<String>,
}

impl Progress {
    /// Keeps a reason, if there is room and it is a new one.
    pub fn reason(&mut self, why: &str) {
        let why: String = why.chars().take(MAX_REASON).collect();
        let why = why.replace(char::is_control, " ");
        if self.reasons.len() < MAX_REASONS && !self.reasons.contains(&why) {
            self.reasons.push(why);
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} compared, {} received", self.compared, self.received)?;
        if self.declined > 0 {
            write!(f, " ({} not taken here)", self.declined)?;
        }
        write!(f, ", {} given", self.given)?;
        if self.refused > 0 {
            write!(f, " ({} not taken there)", self.refused)?;
        }
        Ok(())
    }
}
