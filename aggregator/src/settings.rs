//! The settings file, and what lies over it: defaults < file < environment < flags.

use infernet_payments::nip47::Connection;
use serde::{Deserialize, Deserializer};

/// The relay of a market on one's own machine.
pub const DEFAULT_RELAY: &str = "ws://127.0.0.1:7777";

/// What a settings file may say; every key is optional, unknown ones are errors.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What to call the aggregator.
    pub name: Option<String>,
    /// The relays to work on.
    pub relays: Vec<String>,
    /// Blossom servers for the blobs of batches.
    pub blossom: Vec<String>,
    /// The fee on accepted work, in percent.
    pub fee_percent: Option<f64>,
    /// Satoshis of the most that is held for one group.
    pub max_hold_sats: Option<u64>,
    /// Keys of the checkers that the owner runs, as npub or hex.
    pub checkers: Vec<String>,
    /// Keys whose attestations count besides our own.
    pub trust: Vec<String>,
    /// Where buyers' money is held and providers are paid from.
    #[serde(deserialize_with = "connection")]
    pub wallet: Option<Connection>,
    /// Orders that may be open.
    pub max_orders: Option<u32>,
    /// Of these, one buyer's.
    pub max_orders_of_a_buyer: Option<u32>,
    /// Groups of one order that may be under way.
    pub groups_at_once: Option<u32>,
    /// Tokens of a shard.
    pub shard_tokens: Option<u64>,
    /// How many times longer than expected a shard may take.
    pub straggler: Option<f64>,
    /// Seconds before a deadline at which the last work is waited for.
    pub margin_s: Option<u64>,
}

/// What is wrong with a connection is said without quoting it.
fn connection<'de, D: Deserializer<'de>>(text: D) -> Result<Option<Connection>, D::Error> {
    let text = String::deserialize(text)?;
    let connection = text.parse().map_err(serde::de::Error::custom)?;
    Ok(Some(connection))
}

impl Settings {
    /// These settings with another's laid over them: what the other says counts.
    #[must_use]
    pub fn overlaid(self, over: Self) -> Self {
        let list = |over: Vec<String>, under| if over.is_empty() { under } else { over };
        Self {
            name: over.name.or(self.name),
            relays: list(over.relays, self.relays),
            blossom: list(over.blossom, self.blossom),
            fee_percent: over.fee_percent.or(self.fee_percent),
            max_hold_sats: over.max_hold_sats.or(self.max_hold_sats),
            checkers: list(over.checkers, self.checkers),
            trust: list(over.trust, self.trust),
            wallet: over.wallet.or(self.wallet),
            max_orders: over.max_orders.or(self.max_orders),
            max_orders_of_a_buyer: over.max_orders_of_a_buyer.or(self.max_orders_of_a_buyer),
            groups_at_once: over.groups_at_once.or(self.groups_at_once),
            shard_tokens: over.shard_tokens.or(self.shard_tokens),
            straggler: over.straggler.or(self.straggler),
            margin_s: over.margin_s.or(self.margin_s),
        }
    }

    /// The fee in millionths, rounded; nothing if it is no fee.
    pub fn fee_ppm(&self) -> Option<u32> {
        let percent = self.fee_percent?;
        let ppm = (percent * 10_000.0).round();
        (0.0..=1_000_000.0).contains(&ppm).then_some(ppm as u32)
    }
}

/// A settings file that says what it can say, and changes nothing.
pub const TEMPLATE: &str = r#"# Settings of an infernet aggregator. Flags and the environment override them.

# What to call the aggregator.
#name = "my aggregator"

# The relays to work on.
#relays = ["ws://127.0.0.1:7777"]

# Blossom servers for the blobs of batches. Without it: the relays' own.
#blossom = ["http://127.0.0.1:7777"]

# The fee on accepted work, in percent: 2 at most.
#fee_percent = 1.0

# Where buyers' money is held and providers are paid from: a connection to a Lightning
# wallet that speaks NIP-47 and can hold invoices. Without it only free work is done.
# Whoever reads it can use it: keep this file to yourself (chmod 600), or set
# INFERNET_WALLET instead.
#wallet = "nostr+walletconnect://b889ff5b1513b641e2a139f661a661364979c5beee91842f8f0ef42ab558e9d4?relay=wss%3A%2F%2Frelay.example.com&secret=71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c"

# Satoshis of the most that is held for one group of lines.
#max_hold_sats = 100000

# Checkers that you run yourself (infernet-provider start --verify), as npub: they see
# the work of buyers who let nobody else check it.
#checkers = []

# Whose attestations of providers count besides this aggregator's own.
#trust = []

# Orders that may be open, in all and of one buyer, and groups of one order.
#max_orders = 64
#max_orders_of_a_buyer = 4
#groups_at_once = 4

# Tokens that a provider is given at a time, and how many times longer than expected it
# may take before another is asked too.
#shard_tokens = 8192
#straggler = 3.0

# Seconds before a deadline at which nothing more is bought.
#margin_s = 60
"#;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_template_changes_nothing_and_all_it_says_is_understood() {
        let nothing: Settings = toml::from_str(TEMPLATE).unwrap();
        assert_eq!(nothing, Settings::default());
        let line = |line: &str| {
            let said = line.strip_prefix('#');
            let said = said.filter(|l| l.starts_with(|c: char| c != ' '));
            said.unwrap_or("").to_owned() + "\n"
        };
        let said: String = TEMPLATE.lines().map(line).collect();
        let settings: Settings = toml::from_str(&said).unwrap();
        assert_eq!(settings.fee_ppm(), Some(10_000));
        assert_eq!(settings.margin_s, Some(60));
        assert!(settings.wallet.is_some());
    }

    #[test]
    fn unknown_keys_are_errors_and_a_wallet_is_not_quoted() {
        assert!(toml::from_str::<Settings>("fee = 1").is_err());
        let secret = "wallet = \"nostr+walletconnect://0000?secret=1111\"";
        let error = toml::from_str::<Settings>(secret).unwrap_err();
        assert!(!error.message().contains("1111"), "{}", error.message());
    }

    #[test]
    fn flags_lie_over_the_file() {
        let file = Settings {
            fee_percent: Some(0.5),
            relays: vec!["ws://file".into()],
            ..Settings::default()
        };
        let flags = Settings {
            fee_percent: Some(2.0),
            ..Settings::default()
        };
        let both = file.overlaid(flags);
        assert_eq!(
            (both.fee_ppm(), &both.relays[..]),
            (Some(20_000), &["ws://file".to_owned()][..])
        );
    }
}
