//! What lets any Nostr client see the provider: its profile (NIP-01), what it
//! handles (NIP-89), and the heartbeat that NIP-90's clients look for.

use std::time::Duration;

use infernet_protocol::kinds;
use nostr::{Event, Kind, Tag, TagKind, Tags, Timestamp, UnsignedEvent};
use serde_json::json;

use crate::announcing::IDENTIFIER;
use crate::shop::Shop;

/// How often the heart beats, as NIP-90's clients expect it.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(300);

/// How long one beat counts: one may be lost.
const HEARTBEAT_STANDS_S: u64 = 660;

/// NIP-01's profile.
const PROFILE: u16 = 0;
/// NIP-89's handler information.
const HANDLER: u16 = 31990;
/// NIP-90's heartbeat.
const HEARTBEAT: u16 = 11998;

/// Profile (unless the options say no) and handler information.
pub fn introduction(shop: &Shop, now: Timestamp) -> Vec<Event> {
    let mut events = vec![];
    if shop.options.profile {
        let alt = tag("alt", [format!("Profile of {}", shop.options.name)]);
        events.push(make(shop, PROFILE, vec![alt], about(shop), now));
    }
    events.push(handler(shop, now));
    events
}

fn handler(shop: &Shop, now: Timestamp) -> Event {
    let mut tags = vec![tag("d", [IDENTIFIER.to_owned()])];
    tags.extend(kinds::ALL.iter().map(|kind| tag("k", [kind.to_string()])));
    let tasks = shop.catalogue.tasks().into_iter();
    tags.extend(tasks.map(|task| tag("t", [task.as_str().to_owned()])));
    tags.push(tag(
        "alt",
        [format!("{} handles inference jobs", shop.options.name)],
    ));
    make(shop, HANDLER, tags, about(shop), now)
}

/// A sign of life.
pub fn heartbeat(shop: &Shop, now: Timestamp) -> Event {
    let expires = now.as_secs() + HEARTBEAT_STANDS_S;
    let tags = vec![
        tag("d", [IDENTIFIER.to_owned()]),
        tag("expiration", [expires.to_string()]),
        tag("alt", [format!("{} is alive", shop.options.name)]),
    ];
    make(shop, HEARTBEAT, tags, String::new(), now)
}

/// Metadata in the form of kind 0, which NIP-89 uses too.
fn about(shop: &Shop) -> String {
    let items = shop.catalogue.items().iter();
    // What is checked with is there for its own work already.
    let items = items.filter(|item| item.task == item.model.task);
    let models: Vec<&str> = items.map(|item| item.model.name.as_str()).collect();
    json!({
        "name": shop.options.name,
        "about": format!("Sells inference on an open market: {}", models.join(", ")),
        "bot": true,
    })
    .to_string()
}

fn tag<const N: usize>(name: &str, values: [String; N]) -> Tag {
    Tag::custom(TagKind::from(name), values)
}

fn make(shop: &Shop, kind: u16, tags: Vec<Tag>, content: String, now: Timestamp) -> Event {
    let author = shop.public_key();
    let tags = Tags::from_list(tags);
    shop.sign_raw(UnsignedEvent::new(
        author,
        now,
        Kind::from(kind),
        tags,
        content,
    ))
}
