//! The relays that this one is kept equal with.

use std::time::Duration;

use nostr::{Filter, RelayUrl};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::session;

/// A relay to be kept equal with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its address, `wss://…`.
    #[serde(deserialize_with = "url")]
    pub url: RelayUrl,
    /// Of which events; without it, of all that this relay takes.
    #[serde(default, deserialize_with = "filter")]
    pub filter: Option<Filter>,
    /// Which way events go.
    #[serde(default)]
    pub direction: Direction,
    /// How long to wait after one reconciliation before the next, such as `30s`, `5m` or `1h`.
    #[serde(default = "five_minutes", deserialize_with = "duration")]
    pub every: Duration,
}

/// Which way events go between two relays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Both have all in the end.
    #[default]
    Both,
    /// From the other to this one only.
    Down,
    /// From this one to the other only.
    Up,
}

/// A filter as a table. A filter reads numbers as JSON has them, not as TOML does.
fn filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Filter>, D::Error> {
    let table = serde_json::Value::deserialize(deserializer)?;
    let filter = filter_of(&table.to_string()).map_err(serde::de::Error::custom)?;
    Ok(Some(filter))
}

/// Reads a filter from JSON as strictly as a client's: with a field that is unknown here it would be one for events
/// that nobody asked for.
///
/// # Errors
/// When it is none, or has such a field.
pub fn filter_of(json: &str) -> Result<Filter, String> {
    let json: &RawValue = serde_json::from_str(json).map_err(|error| error.to_string())?;
    session::filter(json).map_err(|unreadable| unreadable.to_string())
}

/// The address of a relay.
fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RelayUrl, D::Error> {
    let text = String::deserialize(deserializer)?;
    url_of(&text).map_err(serde::de::Error::custom)
}

/// Reads the address of a relay.
///
/// # Errors
/// When it is none.
pub fn url_of(text: &str) -> Result<RelayUrl, String> {
    RelayUrl::parse(text)
        .map_err(|_| format!("{text:?} is no relay's address such as wss://relay.example.org"))
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

/// A time such as `30s`, `5m` or `1h`; at least a second.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let unknown = || serde::de::Error::custom(format!("{text:?} is no time such as 30s, 5m or 1h"));
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(unknown)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(unknown()),
    };
    let number: u32 = number.parse().map_err(|_| unknown())?;
    match u64::from(number) * seconds {
        0 => Err(unknown()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Options;
    use super::*;

    #[test]
    fn a_peer_has_a_url_and_how_often_it_is_asked() {
        let parse = |text: &str| toml::from_str::<Options>(text);
        let text = "[[sync]]\nurl = \"wss://a.example\"\n[[sync]]\nurl = \"ws://b.example:7777\"\nevery = \"90s\"\ndirection = \"down\"\nfilter = { kinds = [8603], \"#t\" = [\"text\"] }";
        let peers = parse(text).unwrap().sync;
        assert_eq!(peers[0].every, Duration::from_secs(300));
        assert_eq!(
            (peers[0].direction, &peers[0].filter),
            (Direction::Both, &None)
        );
        assert_eq!(peers[1].every, Duration::from_secs(90));
        assert_eq!(peers[1].direction, Direction::Down);
        let filter = peers[1].filter.clone().unwrap();
        assert_eq!(filter.generic_tags.len(), 1);
        for wrong in ["0s", "5", "m", "", "5 m", "-1s", "5d", "5ä"] {
            let text = format!("[[sync]]\nurl = \"wss://a.example\"\nevery = \"{wrong}\"");
            let refused = parse(&text).unwrap_err().to_string();
            assert!(refused.contains("30s"), "{wrong}: {refused}");
        }
        assert!(parse("[[sync]]\nurl = \"https://a.example\"").is_err());
        let misspelt = "[[sync]]\nurl = \"wss://a.example\"\nfilter = { kind = [8603] }";
        let refused = parse(misspelt).unwrap_err().to_string();
        assert!(refused.contains("no field \"kind\""), "{refused}");
    }
}
