//! The list of bans, as others can follow it (NIP-51).

use infernet_protocol::bounds::MAX_EVENT_BYTES;
use nostr::{EventBuilder, Kind, Tag, TagKind};
use sha2::{Digest as _, Sha256};

use crate::store::Ban;

/// What the list goes by among what was told: no provider's key.
pub(super) const ABOUT: [u8; 32] = [0; 32];

/// Bytes of an event beside its bans: id, key, signature, the rest.
const FRAME_BYTES: usize = 1_024;

/// Characters of a reason that are published.
const MAX_REASON_CHARS: usize = 80;

/// What is worth saying anew when it changes.
pub(super) fn gist(bans: &[Ban]) -> String {
    let mut keys: Vec<_> = bans.iter().map(|ban| ban.provider).collect();
    keys.sort();
    let mut hash = Sha256::new();
    for key in keys {
        hash.update(key.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// The list; of more bans than fit in an event, the latest.
pub(super) fn event(bans: &[Ban]) -> EventBuilder {
    let mut left = MAX_EVENT_BYTES - FRAME_BYTES;
    let mut tags = vec![Tag::custom(
        TagKind::custom("alt"),
        ["Whom an aggregator buys nothing from"],
    )];
    for ban in bans {
        let tag = banned(ban);
        let bytes = serde_json::to_vec(&tag).map_or(usize::MAX, |json| json.len() + 1);
        let Some(rest) = left.checked_sub(bytes) else {
            tracing::warn!("not all bans fit in the list that others follow");
            break;
        };
        left = rest;
        tags.push(tag);
    }
    EventBuilder::new(Kind::MuteList, "").tags(tags)
}

fn banned(ban: &Ban) -> Tag {
    let reason = ban.reason.chars().filter(|c| !c.is_control());
    let reason: String = reason.take(MAX_REASON_CHARS).collect();
    Tag::custom(TagKind::p(), [ban.provider.to_hex(), String::new(), reason])
}
