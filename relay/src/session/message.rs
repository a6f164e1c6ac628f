//! What clients say (NIPs 1, 42, 45 and 77), read as far as its type and its parts: each part is read when its turn
//! comes, and not at all if it was refused before.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use nostr::{EventId, Filter, JsonUtil};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Characters of a subscription's id (NIP-01).
pub const MAX_SUBSCRIPTION_ID: usize = 64;

/// Filters of one request.
pub const MAX_FILTERS: usize = 20;

/// Bytes of what is said of a message that could not be read.
const MAX_REASON: usize = 200;

/// A message of a client.
#[derive(Debug)]
pub enum Message<'a> {
    /// An event to be kept, as JSON.
    Event(&'a RawValue),
    /// A subscription.
    Request(Asked<'a>),
    /// How many events there are.
    Count(Asked<'a>),
    /// A subscription ends.
    Close(Cow<'a, str>),
    /// An event that shows who the client is.
    Auth(&'a RawValue),
    /// A reconciliation begins.
    NegOpen {
        /// Its id.
        id: Cow<'a, str>,
        /// Of which events.
        filter: &'a RawValue,
        /// The first message, in hex.
        message: Cow<'a, str>,
    },
    /// A reconciliation goes on.
    NegMsg {
        /// Its id.
        id: Cow<'a, str>,
        /// The next message, in hex.
        message: Cow<'a, str>,
    },
    /// A reconciliation ends.
    NegClose(Cow<'a, str>),
}

/// An id, and what is asked for under it.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What the answers bear.
    pub id: Cow<'a, str>,
    /// One or more filters.
    pub filters: Vec<&'a RawValue>,
    /// Whether there were more than [`MAX_FILTERS`].
    pub too_many: bool,
}

/// Why a message or a part of it cannot be read, for people.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

impl Asked<'_> {
    /// Bytes of the filters as JSON.
    pub fn bytes(&self) -> usize {
        self.filters.iter().map(|json| json.get().len()).sum()
    }
}

impl Unreadable {
    /// With this reason, or its beginning.
    pub fn new(reason: impl fmt::Display) -> Self {
        let mut reason = reason.to_string();
        if reason.len() > MAX_REASON {
            let end = (0..=MAX_REASON)
                .rev()
                .find(|at| reason.is_char_boundary(*at));
            reason.truncate(end.unwrap_or_default());
        }
        Self(reason)
    }
}

impl<'a> Message<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is none that is known here.
    pub fn parse(text: &'a str) -> Result<Self, Unreadable> {
        let Parts { parts, more } = serde_json::from_str(text).map_err(Unreadable::new)?;
        let mut parts = parts.into_iter();
        let word = string(parts.next(), "a type")?;
        let mut next = || parts.next();
        let message = match &*word {
            "EVENT" => Self::Event(given(next(), "an event")?),
            "AUTH" => Self::Auth(given(next(), "an event")?),
            "REQ" | "COUNT" => {
                let id = id(next())?;
                let filters: Vec<_> = parts.collect();
                if filters.is_empty() {
                    return Err(Unreadable::new("it lacks a filter"));
                }
                let too_many = more;
                let asked = Asked {
                    id,
                    filters,
                    too_many,
                };
                match &*word {
                    "REQ" => Self::Request(asked),
                    _ => Self::Count(asked),
                }
            }
            "CLOSE" => Self::Close(id(next())?),
            "NEG-OPEN" => {
                let (id, filter) = (id(next())?, given(next(), "a filter")?);
                // Between the two, older clients say how many bytes an id has.
                let message = string(parts.last(), "a message")?;
                Self::NegOpen {
                    id,
                    filter,
                    message,
                }
            }
            "NEG-MSG" => Self::NegMsg {
                id: id(next())?,
                message: string(next(), "a message")?,
            },
            "NEG-CLOSE" => Self::NegClose(id(next())?),
            _ => return Err(Unreadable::new("its type is unknown here")),
        };
        Ok(message)
    }

    /// Its type, for counting.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Event(_) => "EVENT",
            Self::Request(_) => "REQ",
            Self::Count(_) => "COUNT",
            Self::Close(_) => "CLOSE",
            Self::Auth(_) => "AUTH",
            Self::NegOpen { .. } => "NEG-OPEN",
            Self::NegMsg { .. } => "NEG-MSG",
            Self::NegClose(_) => "NEG-CLOSE",
        }
    }
}

fn given<'a>(part: Option<&'a RawValue>, what: &str) -> Result<&'a RawValue, Unreadable> {
    part.ok_or_else(|| Unreadable::new(format_args!("it lacks {what}")))
}

fn string<'a>(part: Option<&'a RawValue>, what: &str) -> Result<Cow<'a, str>, Unreadable> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let part = given(part, what)?;
    let text: Text<'a> = serde_json::from_str(part.get()).map_err(Unreadable::new)?;
    Ok(text.0)
}

fn id<'a>(part: Option<&'a RawValue>) -> Result<Cow<'a, str>, Unreadable> {
    let id = string(part, "an id")?;
    let most = 2 * MAX_SUBSCRIPTION_ID;
    match id.chars().take(most + 1).count() {
        0 => Err(Unreadable::new("its id is empty")),
        // Of those a bit longer, a session says so under the id itself.
        many if many > most => Err(Unreadable::new("its id is too long")),
        _ => Ok(id),
    }
}

/// The first parts of an array.
struct Parts<'a> {
    parts: Vec<&'a RawValue>,
    /// Whether more came than any message has.
    more: bool,
}

impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InParts;

        impl<'de> Visitor<'de> for InParts {
            type Value = Parts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Parts<'de>, A::Error> {
                let mut parts = Vec::new();
                while parts.len() < 2 + MAX_FILTERS {
                    match array.next_element()? {
                        Some(part) => parts.push(part),
                        None => return Ok(Parts { parts, more: false }),
                    }
                }
                let more = array.next_element::<IgnoredAny>()?.is_some();
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Parts { parts, more })
            }
        }

        deserializer.deserialize_seq(InParts)
    }
}

/// Reads a filter, strictly: what is unknown here would be answered with events that were not asked for.
///
/// # Errors
/// When it is none, or has fields that are unknown here.
pub fn filter(json: &RawValue) -> Result<Filter, Unreadable> {
    let Names(unknown) = serde_json::from_str(json.get()).map_err(Unreadable::new)?;
    if let Some(name) = unknown {
        let reason = format!("a filter has no field {:?}", Unreadable::new(name).0);
        return Err(Unreadable::new(reason));
    }
    Filter::from_json(json.get()).map_err(Unreadable::new)
}

/// Whether no event matches a filter: one of its lists is empty (NIP-01 wants one of its values met).
pub fn matches_nothing(filter: &Filter) -> bool {
    let none = |count: Option<usize>| count == Some(0);
    none(filter.ids.as_ref().map(|ids| ids.len()))
        || none(filter.authors.as_ref().map(|authors| authors.len()))
        || none(filter.kinds.as_ref().map(|kinds| kinds.len()))
        || filter.generic_tags.values().any(|values| values.is_empty())
}

/// The first field of an object that no filter has.
struct Names(Option<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InNames;

        impl<'de> Visitor<'de> for InNames {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a filter")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Names, A::Error> {
                let mut unknown = None;
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    match &*name {
                        // A kind that is read as a number would be cut to sixteen bits.
                        "kinds" => map.next_value::<BTreeSet<u16>>().map(drop)?,
                        _ => map.next_value::<IgnoredAny>().map(drop)?,
                    }
                    if unknown.is_none() && !is_a_field(&name) {
                        unknown = Some(name.into_owned());
                    }
                }
                Ok(Names(unknown))
            }
        }

        deserializer.deserialize_map(InNames)
    }
}

fn is_a_field(name: &str) -> bool {
    let fields = [
        "ids", "authors", "kinds", "since", "until", "limit", "search",
    ];
    let is_tag = |name: &[u8]| matches!(name, [b'#', letter] if letter.is_ascii_alphabetic());
    fields.contains(&name) || is_tag(name.as_bytes())
}

/// The id that an event bears which could not be read, so that its refusal can name it.
pub fn claimed_id(json: &RawValue) -> Option<EventId> {
    #[derive(Deserialize)]
    struct Claim<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let claim: Claim<'_> = serde_json::from_str(json.get()).ok()?;
    EventId::from_hex(&claim.id).ok()
}

#[cfg(test)]
mod tests;
