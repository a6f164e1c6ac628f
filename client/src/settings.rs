//! The settings file, `client.toml`. Flags and environment variables lie over it.

use infernet_payments::nip47::Connection;
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
    /// Public keys (npub or hex) of aggregators whose bans are followed.
    pub follow_bans: Vec<String>,
    /// The wallet to pay with.
    pub wallet: Option<Wallet>,
    /// The most that is paid out within 24 hours.
    pub daily_sats: Option<u64>,
    /// The most that is paid to one provider ahead of what has come from it.
    pub risk_sats: Option<u64>,
    /// The most that routing one payment may cost, whatever its size.
    pub max_fee_sats: Option<u64>,
    /// Blossom servers for what no event carries; none for the relays' own addresses.
    pub blossom: Vec<String>,
    /// Who does batches: a name or an npub.
    pub aggregator: Option<String>,
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
    /// The most that a job may cost.
    pub max_sats: Option<u64>,
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

/// A wallet connection. Whoever has it can spend.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Wallet(pub Connection);

impl TryFrom<String> for Wallet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let connection = text.trim().parse::<Connection>();
        connection.map(Self).map_err(|error| error.to_string())
    }
}

/// What `init` writes.
pub const TEMPLATE: &str = r#"# Settings of infernet-client. Every line is optional; flags and environment variables lie over it.

# Relays to find providers on (INFERNET_RELAYS, --relay).
#relays = ["ws://127.0.0.1:7777"]

# Whose ratings of providers count besides your own: npub or hex. Anybody can write ratings, so name only those you
# know. `infernet-client providers` shows how many counted.
#trust = []

# Aggregators whose bans you follow, npub or hex: nothing is bought of a provider that one of them bans.
#follow_bans = []

# The wallet to pay with (INFERNET_WALLET): a connection string of any wallet that speaks NIP-47 (Nostr Wallet
# Connect); `infernet-wallet connect` prints one. Whoever has it can spend: keep this file to yourself (chmod 600).
#wallet = "nostr+walletconnect://e1e2…?relay=ws://127.0.0.1:7447&secret=…"
# The most that is paid out within 24 hours, with routing.
#daily_sats = 1000
# The most that is paid to one provider ahead of what has come from it: what you can lose to it. Twice what it asks
# for at a time (mostly 10) keeps the answer flowing.
#risk_sats = 50
# The most that routing one payment may cost; never more than a tenth of it and 1 sat.
#max_fee_sats = 5

# Blossom servers for inputs and answers that no event carries [default: the relays' own addresses].
#blossom = ["https://blobs.example.com"]

# Who does your batches: an aggregator's name or npub. It holds what you pay until the work is checked.
#aggregator = "npub1…"

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
# The highest price, IN[:OUT], in millisatoshis per million tokens; 0 buys free work only.
#max_price = "0"
# The most that one job may cost, failovers counted in.
#max_sats = 100
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
        // The one line that nobody can take as it is.
        let wallet = |line: &&str| !line.starts_with("#wallet = ");
        let live: Vec<_> = TEMPLATE
            .lines()
            .filter(wallet)
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => setting,
                _ => line,
            })
            .collect();
        let settings = load(&live.join("\n")).unwrap();
        assert_eq!(settings.relays, [DEFAULT_RELAY]);
        assert_eq!(settings.defaults.max_tokens, Some(256));
        assert_eq!(settings.defaults.max_price, Some(MaxPrice(Price::FREE)));
        assert_eq!(
            (settings.risk_sats, settings.daily_sats),
            (Some(50), Some(1_000))
        );
    }

    #[test]
    fn a_wallet_is_read_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.toml");
        let secret = "71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c";
        let key = "b889ff5b1513b641e2a139f661a661364979c5beee91842f8f0ef42ab558e9d4";
        let uri = format!("nostr+walletconnect://{key}?relay=ws://127.0.0.1:7447&secret={secret}");
        std::fs::write(&path, format!("wallet = \"{uri}\"")).unwrap();
        let settings = infernet_node::config::load::<Settings>(None, &path).unwrap();
        assert!(settings.wallet.is_some());
        assert!(!format!("{settings:?}").contains(secret));
        std::fs::write(&path, format!("wallet = \"x{uri}\"")).unwrap();
        let error = infernet_node::config::load::<Settings>(None, &path).unwrap_err();
        assert!(!error.to_string().contains(secret), "{error}");
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
