//! The settings file, and what lies over it: defaults < file < environment <
//! flags.

use std::path::PathBuf;
use std::str::FromStr;

use infernet_blobs::Address;
use infernet_payments::nip47::Connection;
use infernet_payments::tab::provider::Terms;
use infernet_protocol::money::{Msat, Price};
use nostr::PublicKey;
use serde::{Deserialize, Deserializer};

use crate::options::Escrow;

/// The relay of a market on one's own machine.
pub const DEFAULT_RELAY: &str = "ws://127.0.0.1:7777";

/// What a settings file may say; every key is optional, unknown ones are errors.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What to call the provider.
    pub name: Option<String>,
    /// The relays to sell on.
    pub relays: Vec<String>,
    /// The blob servers to put large outputs on.
    #[serde(deserialize_with = "addresses")]
    pub blossom: Vec<Address>,
    /// The models to sell.
    pub models: Vec<Model>,
    /// Millisatoshis for a million tokens of input.
    pub price_in: Option<u64>,
    /// Millisatoshis for a million tokens of output.
    pub price_out: Option<u64>,
    /// Jobs that are computed together.
    pub slots: Option<u32>,
    /// Jobs that may wait.
    pub queue: Option<u32>,
    /// Tokens a second that one job gets at most.
    pub max_speed: Option<f32>,
    /// Processor threads for each model.
    pub threads: Option<u32>,
    /// What to compute on: auto, cpu or cuda.
    pub device: Option<Device>,
    /// What to compute in: f32, bf16, int8 or int4.
    pub dtype: Option<Dtype>,
    /// MiB for the keys and values of each text model.
    pub kv_cache_mib: Option<u64>,
    /// Whether a prompt's beginning that one buyer has sent speeds up another's.
    pub share_prefixes: Option<bool>,
    /// Whether awards may rest on the announcement alone.
    pub direct: Option<bool>,
    /// Whether to publish a profile.
    pub profile: Option<bool>,
    /// Where buyers pay.
    #[serde(deserialize_with = "connection")]
    pub wallet: Option<Connection>,
    /// Satoshis of the smallest top-up.
    pub min_top_up_sats: Option<u64>,
    /// Satoshis of the usual top-up.
    pub top_up_sats: Option<u64>,
    /// Output tokens that a buyer without credit pays ahead.
    pub prepaid_output_tokens: Option<u64>,
    /// How much of what a buyer has paid and used is its credit, in thousandths.
    pub credit_per_mille: Option<u64>,
    /// Satoshis of the most credit that anybody has.
    pub max_credit_sats: Option<u64>,
    /// Aggregators that may pay after their check: npub or hex.
    #[serde(deserialize_with = "public_keys")]
    pub escrow_from: Vec<PublicKey>,
    /// Satoshis that each of them may owe.
    pub max_owed_sats: Option<u64>,
    /// Whether to check others' results.
    pub verify: Option<bool>,
    /// Millisatoshis for a million tokens that are read to check them.
    pub price_verify: Option<u64>,
}

/// What is wrong with a connection is said without quoting it.
fn connection<'de, D: Deserializer<'de>>(text: D) -> Result<Option<Connection>, D::Error> {
    let text = String::deserialize(text)?;
    let connection = text.parse().map_err(serde::de::Error::custom)?;
    Ok(Some(connection))
}

/// Addresses of blob servers.
fn addresses<'de, D: Deserializer<'de>>(texts: D) -> Result<Vec<Address>, D::Error> {
    let texts = Vec::<String>::deserialize(texts)?;
    let parse = |text: &String| text.parse().map_err(serde::de::Error::custom);
    texts.iter().map(parse).collect()
}

/// Keys as npub or hex.
fn public_keys<'de, D: Deserializer<'de>>(texts: D) -> Result<Vec<PublicKey>, D::Error> {
    let texts = Vec::<String>::deserialize(texts)?;
    let parse = |text: &String| {
        PublicKey::parse(text).map_err(|_| serde::de::Error::custom(format!("{text} is no npub")))
    };
    texts.iter().map(parse).collect()
}

/// One model to sell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// Its GGUF file, or its folder.
    pub path: PathBuf,
    /// What to call it.
    pub name: Option<String>,
    /// Its own price for input.
    pub price_in: Option<u64>,
    /// Its own price for output.
    pub price_out: Option<u64>,
}

/// What to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// A GPU if there is one that works, else the processor
    #[default]
    Auto,
    /// The processor
    Cpu,
    /// An NVIDIA GPU, or an error
    Cuda,
}

/// What to compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats: the reference
    #[default]
    F32,
    /// bfloat16: faster where the machine supports it, and a little less exact
    Bf16,
    /// Weights of 8 bits: faster still, and less exact; on a processor
    Int8,
    /// Weights of 4 bits: the fastest and the least exact; on a processor
    Int4,
}

impl From<Dtype> for infernet_protocol::inference::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::Int8 => Self::Int8,
            Dtype::Int4 => Self::Int4,
        }
    }
}

impl FromStr for Model {
    type Err = &'static str;

    /// Reads `PATH` or `PATH=NAME`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, name) = match text.rsplit_once('=') {
            Some((path, name)) => (path, Some(name)),
            None => (text, None),
        };
        if path.is_empty() || name.is_some_and(str::is_empty) {
            return Err("expected PATH or PATH=NAME");
        }
        Ok(Self {
            path: path.into(),
            name: name.map(str::to_owned),
            ..Self::default()
        })
    }
}

impl Settings {
    /// These settings with another's laid over them: what the other says counts.
    #[must_use]
    pub fn overlaid(self, over: Self) -> Self {
        Self {
            name: over.name.or(self.name),
            relays: list(over.relays, self.relays),
            blossom: list(over.blossom, self.blossom),
            models: list(over.models, self.models),
            price_in: over.price_in.or(self.price_in),
            price_out: over.price_out.or(self.price_out),
            slots: over.slots.or(self.slots),
            queue: over.queue.or(self.queue),
            max_speed: over.max_speed.or(self.max_speed),
            threads: over.threads.or(self.threads),
            device: over.device.or(self.device),
            dtype: over.dtype.or(self.dtype),
            kv_cache_mib: over.kv_cache_mib.or(self.kv_cache_mib),
            share_prefixes: over.share_prefixes.or(self.share_prefixes),
            direct: over.direct.or(self.direct),
            profile: over.profile.or(self.profile),
            wallet: over.wallet.or(self.wallet),
            min_top_up_sats: over.min_top_up_sats.or(self.min_top_up_sats),
            top_up_sats: over.top_up_sats.or(self.top_up_sats),
            prepaid_output_tokens: over.prepaid_output_tokens.or(self.prepaid_output_tokens),
            credit_per_mille: over.credit_per_mille.or(self.credit_per_mille),
            max_credit_sats: over.max_credit_sats.or(self.max_credit_sats),
            escrow_from: list(over.escrow_from, self.escrow_from),
            max_owed_sats: over.max_owed_sats.or(self.max_owed_sats),
            verify: over.verify.or(self.verify),
            price_verify: over.price_verify.or(self.price_verify),
        }
    }

    /// Who may pay after its check, and how much each may owe; `None` if that is more
    /// than there is.
    pub fn escrow(&self) -> Option<Escrow> {
        let defaults = Escrow::default();
        let max_owed = self.max_owed_sats.map(Msat::from_sat);
        Some(Escrow {
            from: self.escrow_from.iter().copied().collect(),
            max_owed: max_owed.unwrap_or(Some(defaults.max_owed))?,
        })
    }

    /// What is asked of buyers who pay; `None` if an amount is more than there is.
    pub fn tab(&self) -> Option<Terms> {
        let defaults = Terms::default();
        let sats = |said: Option<u64>, otherwise| said.map_or(Some(otherwise), Msat::from_sat);
        let min_top_up = sats(self.min_top_up_sats, defaults.min_top_up)?;
        Some(Terms {
            min_top_up,
            top_up: sats(self.top_up_sats, defaults.top_up.max(min_top_up))?,
            prepaid_output_tokens: self
                .prepaid_output_tokens
                .unwrap_or(defaults.prepaid_output_tokens),
            credit_per_mille: self.credit_per_mille.unwrap_or(defaults.credit_per_mille),
            max_credit: sats(self.max_credit_sats, defaults.max_credit)?,
            ..defaults
        })
    }

    /// The price of models that set none of their own.
    pub fn price(&self) -> Price {
        Price {
            input_msat: self.price_in.unwrap_or(0),
            output_msat: self.price_out.unwrap_or(0),
        }
    }

    /// The price of a model that sets one of its own.
    pub fn price_of(&self, model: &Model) -> Option<Price> {
        let own = model.price_in.or(model.price_out);
        own.map(|_| Price {
            input_msat: model.price_in.or(self.price_in).unwrap_or(0),
            output_msat: model.price_out.or(self.price_out).unwrap_or(0),
        })
    }
}

fn list<T>(over: Vec<T>, under: Vec<T>) -> Vec<T> {
    if over.is_empty() { under } else { over }
}

/// A settings file that says what it can say, and changes nothing.
pub const TEMPLATE: &str = r#"# Settings of an infernet provider. Flags and the environment override them.

# What to call the provider.
#name = "my provider"

# The relays to sell on.
#relays = ["ws://127.0.0.1:7777"]

# Jobs that are computed together (without it: 8 on a processor, 64 on a GPU), and
# jobs that may wait.
#slots = 8
#queue = 8

# Millisatoshis for a million tokens. Anything but 0, which is free, needs a wallet.
#price_in = 0
#price_out = 0

# Where buyers pay: a connection to any Lightning wallet that speaks NIP-47. It
# may make and look up invoices, list payments, tell its balance, and pay, for
# refunds. Whoever reads it can use it: keep this file to yourself (chmod 600),
# or set INFERNET_WALLET instead.
#wallet = "nostr+walletconnect://b889ff5b1513b641e2a139f661a661364979c5beee91842f8f0ef42ab558e9d4?relay=wss%3A%2F%2Frelay.example.com&secret=71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c"

# Where to put outputs that are too large for an event: Blossom servers. Without it:
# the relays, as infernet-relay keeps blobs too.
#blossom = ["https://blobs.example.com"]

# Buyers pay ahead: the smallest and the usual payment, and the output, in tokens,
# that strangers pay before anything is computed.
#min_top_up_sats = 10
#top_up_sats = 10
#prepaid_output_tokens = 64

# Who has paid and used some before has credit: so many thousandths of it, and no
# more than so much. 0 gives nobody any.
#credit_per_mille = 100
#max_credit_sats = 100

# Aggregators, by their npub, that pay after they have checked the work, and how much
# each may owe. Nobody else is given that. It needs a wallet too.
#escrow_from = ["npub1t26x38jqpf9pvr8srn2ywvyytf28dr0c237umurnm9j0zz033scqdn0433"]
#max_owed_sats = 1000

# Whether to check others' results too, with each model that writes or embeds, and the
# price of a million tokens that are read for it. Without it: what input costs.
#verify = false
#price_verify = 0

# Tokens a second that one job gets at most. Without it: all the machine can do.
#max_speed = 20.0

# What to compute on (auto, cpu, cuda) and in (f32, bf16; on a processor also int8,
# int4: faster and less exact), and with how many processor threads for each model.
#device = "auto"
#dtype = "f32"
#threads = 2

# MiB of memory for what running jobs have read and written (keys and values), for
# each text model. Without it: what all slots can fill, within half of the free memory.
#kv_cache_mib = 1024

# Whether the beginning of a prompt that one buyer has sent speeds up the same of
# another's. It saves work where many use one system prompt; but a buyer can then tell
# by the clock whether somebody has sent a text before.
#share_prefixes = false

# Whether buyers may award jobs without asking for a bid first.
#direct = true

# Whether to publish a Nostr profile (kind 0) with the provider's name. It
# replaces one that the key has: say false if the key is also your own.
#profile = true

# The models to sell: a GGUF file, a folder that holds one, or a Hugging Face
# folder. Repeat the block for each. A price here counts for this model alone.
#[[models]]
#path = "/models/smollm2-135m-instruct"
#name = "smollm2-135m-instruct"
#price_in = 0
#price_out = 0
"#;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_template_changes_nothing_and_all_it_says_is_understood() {
        assert_eq!(
            toml::from_str::<Settings>(TEMPLATE).unwrap(),
            Settings::default()
        );
        let line = |line: &str| {
            let said = line
                .strip_prefix('#')
                .filter(|l| l.starts_with(|c: char| c != ' '));
            said.unwrap_or("").to_owned() + "\n"
        };
        let said: String = TEMPLATE.lines().map(line).collect();
        let settings: Settings = toml::from_str(&said).unwrap();
        assert_eq!(settings.slots, Some(8));
        assert_eq!(settings.models.len(), 1);
        assert_eq!(settings.device, Some(Device::Auto));
        assert!(settings.wallet.is_some());
        assert_eq!(settings.tab(), Some(Terms::default()));
        let escrow = settings.escrow().unwrap();
        assert_eq!(escrow.from.len(), 1);
        assert_eq!(escrow.max_owed, Escrow::default().max_owed);
        assert!(toml::from_str::<Settings>("escrow_from = [\"npub1x\"]").is_err());
    }

    #[test]
    fn a_wallet_that_is_none_is_not_quoted() {
        let secret = "nostr+walletconnect://0000?secret=1111";
        let error = toml::from_str::<Settings>(&format!("wallet = \"{secret}\"")).unwrap_err();
        assert!(!error.message().contains("1111"), "{}", error.message());
    }

    #[test]
    fn a_larger_smallest_top_up_is_the_usual_one() {
        let settings = Settings {
            min_top_up_sats: Some(50),
            ..Settings::default()
        };
        let tab = settings.tab().unwrap();
        assert_eq!((tab.min_top_up, tab.top_up), (Msat(50_000), Msat(50_000)));
        let absurd = Settings {
            max_credit_sats: Some(u64::MAX),
            ..Settings::default()
        };
        assert_eq!(absurd.tab(), None);
    }

    #[test]
    fn unknown_keys_are_errors() {
        assert!(toml::from_str::<Settings>("slot = 1").is_err());
        assert!(toml::from_str::<Settings>("[[models]]\npaht = \"x\"").is_err());
    }

    #[test]
    fn flags_lie_over_the_file() {
        let file = Settings {
            slots: Some(1),
            queue: Some(3),
            relays: vec!["ws://file".into()],
            ..Settings::default()
        };
        let flags = Settings {
            slots: Some(2),
            ..Settings::default()
        };
        let both = file.overlaid(flags);
        assert_eq!((both.slots, both.queue), (Some(2), Some(3)));
        assert_eq!(both.relays, ["ws://file"]);
    }

    #[test]
    fn a_model_may_have_a_name_and_a_price_of_its_own() {
        let model: Model = "/models/small.gguf=small".parse().unwrap();
        assert_eq!(model.path, PathBuf::from("/models/small.gguf"));
        assert_eq!(model.name.as_deref(), Some("small"));
        assert_eq!("/m".parse::<Model>().unwrap().name, None);
        assert!("=x".parse::<Model>().is_err() && "/m=".parse::<Model>().is_err());
        let settings = Settings {
            price_in: Some(5),
            price_out: Some(7),
            ..Settings::default()
        };
        assert_eq!(settings.price_of(&model), None);
        let own = Model {
            price_out: Some(9),
            ..model
        };
        let price = settings.price_of(&own).unwrap();
        assert_eq!((price.input_msat, price.output_msat), (5, 9));
    }
}
