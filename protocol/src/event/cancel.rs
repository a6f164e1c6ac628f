//! Kind 8607: an offer or an attempt is over, and why.

use nostr::{EventId, PublicKey, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Body, Refusal, V1, tag};
use crate::bounds::{MAX_REASON_BYTES, MAX_RECORD_BYTES, text};
use crate::kinds;

/// The end of an offer or of an attempt, by either side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The protocol's version.
    pub v: V1,
    /// The job.
    pub job: EventId,
    /// The attempt's award; absent if the whole job is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub award: Option<EventId>,
    /// The other side, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counterparty: Option<PublicKey>,
    /// Why.
    pub reason: CancelReason,
    /// In the author's words; may be empty.
    pub detail: String,
}

/// Why something is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CancelReason {
    /// The buyer no longer wants it.
    Stopped,
    /// The deadline has come.
    Deadline,
    /// The provider was silent.
    Silent,
    /// What came was not valid.
    Invalid,
    /// The provider was restarted while it worked.
    Restarted,
    /// Nobody can do it.
    NoProvider,
}

impl Body for Cancel {
    const KIND: u16 = kinds::CANCEL;
    const MAX_CONTENT_BYTES: usize = MAX_RECORD_BYTES;

    fn tags(&self) -> Vec<Tag> {
        let mut tags = vec![tag(["e", &self.job.to_hex()])];
        tags.extend(self.award.map(|award| tag(["e", &award.to_hex()])));
        tags.extend(self.counterparty.map(|other| tag(["p", &other.to_hex()])));
        tags
    }

    fn alt(&self) -> String {
        match self.award {
            Some(_) => "Ends an attempt of a job".into(),
            None => "Ends a job".into(),
        }
    }

    fn validate(&self, _author: &PublicKey, _created_at: Timestamp) -> Result<(), Refusal> {
        text("detail", &self.detail, MAX_REASON_BYTES)
    }
}
