//! The relay information document (NIP-11).

use infernet_protocol::{bounds, kinds};
use serde_json::{Value, json};

use crate::admission::{COMPANIONS, MAX_AHEAD_SECS};
use crate::lists::Face;
use crate::options::{Access, MAX_MESSAGE_BYTES, Options};
use crate::session::{MAX_SUBSCRIPTION_ID, MAX_TAGS};

/// What this relay does for its clients: the protocol (1), deletions (9), this document (11), proof of work (13),
/// expiration (40), identification (42), counts (45), events that are their author's alone (70), reconciliation (77)
/// and management (86).
const SUPPORTED_NIPS: [u16; 10] = [1, 9, 11, 13, 40, 42, 45, 70, 77, 86];

/// The document as JSON.
pub fn document(options: &Options, face: &Face) -> Value {
    let icon = face.icon.as_ref().or(options.icon.as_ref());
    let mut document = json!({
        "name": face.name.as_ref().unwrap_or(&options.name),
        "description": face.description.as_ref().unwrap_or(&options.description),
        "software": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "supported_nips": SUPPORTED_NIPS,
        "limitation": limitation(options),
        "retention": retention(options.general),
    });
    let pubkey = options.pubkey.map(|key| key.to_hex());
    for (key, value) in [
        ("icon", icon),
        ("pubkey", pubkey.as_ref()),
        ("contact", options.contact.as_ref()),
    ] {
        if let Some(value) = value {
            document[key] = json!(value);
        }
    }
    document
}

/// Whether a relay takes this kind whose operator said nothing.
pub fn is_usual(kind: u16) -> bool {
    kinds::is_market(kind) || COMPANIONS.contains(&kind)
}

fn limitation(options: &Options) -> Value {
    json!({
        "max_message_length": MAX_MESSAGE_BYTES,
        "max_content_length": bounds::MAX_EVENT_BYTES,
        "max_event_tags": MAX_TAGS,
        "max_subscriptions": options.limits.subscriptions,
        "max_subid_length": MAX_SUBSCRIPTION_ID,
        "max_limit": options.limits.stored_events,
        "default_limit": options.limits.stored_events,
        "created_at_upper_limit": MAX_AHEAD_SECS,
        "min_pow_difficulty": options.work.min_bits.min(options.work.max_bits),
        "auth_required": options.auth.write != Access::Anyone && options.auth.read != Access::Anyone,
        "payment_required": false,
        "restricted_writes": !options.general || options.auth.write != Access::Anyone,
    })
}

/// What is kept how long. A `time` of null is for ever, of 0 not at all; what carries an expiration goes when it says.
fn retention(general: bool) -> Value {
    let mut retention = vec![
        json!({ "kinds": [[kinds::AWARD, kinds::ATTESTATION], [kinds::ORDER, kinds::SETTLEMENT]], "time": null }),
        json!({ "kinds": [[20_000, 29_999]], "time": 0 }),
    ];
    let mut others = vec![
        json!(kinds::OFFER),
        json!(kinds::BID),
        json!(kinds::CANCEL),
        json!(kinds::QUOTE),
        json!([kinds::ANNOUNCEMENT, kinds::THRESHOLDS]),
    ];
    others.extend(COMPANIONS.map(|kind| json!(kind)));
    retention.push(if general {
        json!({ "time": null })
    } else {
        json!({ "kinds": others, "time": null })
    });
    Value::Array(retention)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::JsonUtil;
    use nostr::nips::nip11::RelayInformationDocument;

    use super::*;

    #[test]
    fn nostr_clients_can_read_it() {
        for general in [false, true] {
            let mut options = Options::new("nowhere");
            options.general = general;
            options.contact = Some("mailto:relay@example.org".to_owned());
            let text = document(&options, &Face::default()).to_string();
            let read = RelayInformationDocument::from_json(text).unwrap();
            assert_eq!(read.contact, options.contact);
            assert_eq!(read.pubkey, None);
            assert_eq!(read.retention.len(), 3);
            let limits = read.limitation.unwrap();
            assert_eq!(limits.max_subscriptions, Some(200));
            assert_eq!(limits.auth_required, Some(false));
        }
    }

    #[test]
    fn the_protocols_text_shows_this_document() {
        let text = include_str!("../../nips/relay.md");
        let section = text.split("\n## The information document").nth(1).unwrap();
        let example = section.split("```json").nth(1).unwrap();
        let example: Value = serde_json::from_str(example.split("```").next().unwrap()).unwrap();
        assert_eq!(
            example,
            document(&Options::new("nowhere"), &Face::default())
        );
    }
}
