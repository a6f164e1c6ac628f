//! What relays say, read.

use std::borrow::Cow;

use nostr::message::{MessageHandleError, RelayMessage};
use nostr::{Event, JsonUtil, SubscriptionId};
use serde::de::IgnoredAny;

/// How a relay's word begins that carries an event.
const EVENT: &str = r#"["EVENT","#;

/// Reads a relay's message. One with an event, which nearly all are, is read straight into it: by way of a tree of
/// values, as the library does it, each string of it would be copied once more.
pub(super) fn read(text: &str) -> Result<RelayMessage<'static>, MessageHandleError> {
    if text.starts_with(EVENT)
        && let Ok((_, id, event)) = serde_json::from_str::<(IgnoredAny, String, Event)>(text)
    {
        return Ok(RelayMessage::Event {
            subscription_id: Cow::Owned(SubscriptionId::new(id)),
            event: Cow::Owned(event),
        });
    }
    RelayMessage::from_json(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, Keys};

    use super::*;

    #[test]
    fn it_reads_what_the_library_reads() {
        let event = EventBuilder::text_note("a \"note\"\n").sign_with_keys(&Keys::generate());
        let event = event.unwrap().as_json();
        let texts = [
            format!(r#"["EVENT","s1",{event}]"#),
            format!(r#"["EVENT", "s1" , {event} ]"#),
            format!(r#"["EVENT","s1",{event},"more"]"#),
            format!(r#" ["EVENT","s1",{event}]"#),
            r#"["EOSE","s1"]"#.to_owned(),
            r#"["NOTICE","[\"EVENT\","]"#.to_owned(),
        ];
        for text in texts {
            let expected = RelayMessage::from_json(&text).unwrap();
            assert_eq!(read(&text).unwrap(), expected, "{text}");
        }
        for wrong in ["", "[]", r#"["EVENT","s1"]"#, r#"["EVENT","s1",{}]"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
