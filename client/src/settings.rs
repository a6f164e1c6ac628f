//! The settings file, `client.toml`. Flags and environment variables lie over it.

use infernet_protocol::money::Price;
use serde::Deserialize;

/// The relay of a market on one's own machine.
pub const DEFAULT_RELAY: &str = "ws://127.0.0.1:7777";

/// What the settings file may say. Every key is optional; unknown ones are errors.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Relays to find providers on.
    pub relays: Vec<String>,
    /// Public keys (npub or hex) whose attestations count, besides one's own.
    pub trust: Vec<String>,
    /// What `submit` and `embed` do unless they are told otherwise.
    pub defaults: Defaults,
}

/// What `submit` and `embed` do unless they are told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// The model of `submit`.
    pub model: Option<String>,
    /// The model of `embed`.
    pub embedding_model: Option<String>,
    /// Instructions that stand over every chat.
    pub system: Option<String>,
    /// Tokens an answer may have.
    pub max_tokens: Option<u32>,
    /// How freely tokens are drawn, 0 to 2.
    pub temperature: Option<f32>,
    /// The highest price.
    pub max_price: Option<MaxPrice>,
    /// How long a job may take, in seconds.
    pub deadline_s: Option<u64>,
}

/// A price as people write it: `IN[:OUT]`, in millisatoshis per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MaxPrice(pub Price);

impl std::str::FromStr for MaxPrice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (input, output) = text.split_once(':').unwrap_or((text, text));
        let msat = |part: &str| part.trim().parse::<u64>();
        match (msat(input), msat(output)) {
            (Ok(input_msat), Ok(output_msat)) => Ok(Self(Price {
                input_msat,
                output_msat,
            })),
            _ => Err(format!(
                "{text:?} is no price: write IN or IN:OUT, in msat per million tokens"
            )),
        }
    }
}

impl TryFrom<String> for MaxPrice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What `init` writes.
pub const TEMPLATE: &str = r#"# Settings of infernet-client. Every line is optional; flags and environment variables lie over it.

# Relays to find providers on (INFERNET_RELAYS, --relay).
#relays = ["ws://127.0.0.1:7777"]

# Whose ratings of providers count besides your own: npub or hex. Anybody can write ratings, so name only those you
# know. `infernet-client providers` shows how many counted.
#trust = []

[defaults]
# The model of `submit`; without one, the best-ranked provider's.
#model = "SmolLM2-135M-Instruct"
# The model of `embed`.
#embedding_model = "all-MiniLM-L6-v2"
# Instructions that stand over every chat.
#system = "Answer briefly."
# Tokens an answer may have.
#max_tokens = 256
# 0 takes the most probable token each time, so that the same prompt gives the same text; at most 2.
#temperature = 0.0
# The highest price, IN[:OUT], in millisatoshis per million tokens. Only free work can be bought so far.
#max_price = "0"
# How long a job may take, in seconds.
#deadline_s = 120
"#;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_template_says_nothing_until_it_is_uncommented_and_then_it_is_valid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.toml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            infernet_node::config::load::<Settings>(None, &path)
        };
        assert_eq!(load(TEMPLATE).unwrap(), Settings::default());
        let live: Vec<_> = TEMPLATE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => setting,
                _ => line,
            })
            .collect();
        let settings = load(&live.join("\n")).unwrap();
        assert_eq!(settings.relays, [DEFAULT_RELAY]);
        assert_eq!(settings.defaults.max_tokens, Some(256));
        assert_eq!(settings.defaults.max_price, Some(MaxPrice(Price::FREE)));
    }

    #[test]
    fn prices_are_read() {
        let read = |text: &str| {
            text.parse::<MaxPrice>()
                .map(|p| (p.0.input_msat, p.0.output_msat))
        };
        assert_eq!(read("100:400"), Ok((100, 400)));
        assert_eq!(read("7"), Ok((7, 7)));
        for wrong in ["", "a", "1:2:3", "-1", "1:"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
