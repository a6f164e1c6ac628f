//! What is made of one provider.

use infernet_protocol::event::{Attestation, Signed};
use infernet_protocol::reputation::{Standing, standing};
use nostr::{EventBuilder, PublicKey, Tag, TagKind, Timestamp};

use super::ASSERTION;

/// What is made of one provider.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    /// Its standing with those who trust this aggregator alone.
    pub standing: Standing,
    /// The share of the last 30 days for which it was there, from 0 to 1.
    pub uptime: Option<f64>,
}

impl Rank {
    pub(super) fn of(
        attestations: &[Signed<Attestation>],
        aggregator: &PublicKey,
        uptime: Option<f64>,
        now: Timestamp,
    ) -> Self {
        Self {
            standing: standing(attestations, [], &[*aggregator].into(), now),
            uptime,
        }
    }

    /// The score, from 0 to 100.
    pub fn rank(&self) -> u8 {
        percent(self.standing.score)
    }

    /// What is worth saying anew when it changes.
    pub(super) fn gist(&self) -> String {
        format!("{} {}", self.rank(), self.standing.rejected)
    }

    /// The assertion that says so (NIP-85).
    pub(super) fn event(&self, provider: &PublicKey) -> EventBuilder {
        let tag = |name: &str, value: String| Tag::custom(TagKind::custom(name), [value]);
        let mut tags = vec![
            Tag::identifier(provider.to_hex()),
            Tag::public_key(*provider),
            tag("rank", self.rank().to_string()),
            tag("jobs", self.standing.counted.to_string()),
            tag("rejected", self.standing.rejected.to_string()),
        ];
        let uptime = self.uptime.map(|share| percent(share).to_string());
        tags.extend(uptime.map(|share| tag("uptime", share)));
        let alt = format!("An aggregator ranks a provider {} of 100", self.rank());
        tags.push(tag("alt", alt));
        EventBuilder::new(ASSERTION, "").tags(tags)
    }
}

fn percent(share: f64) -> u8 {
    (share.clamp(0.0, 1.0) * 100.0).round() as u8
}
