//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use infernet_node::telemetry::LogOptions;
use infernet_protocol::inference;
use infernet_provider::settings::{Device, Dtype, Model, Settings};
use nostr::PublicKey;

/// Sells inference on an open market: it announces its models on Nostr relays, bids on jobs, runs them, and streams
/// the answers, encrypted, to whoever asked.
///
/// Nobody needs an account: a key is made at the first start. Stop it with Ctrl-C: it finishes what runs and says
/// goodbye; a second Ctrl-C stops at once.
#[derive(Debug, Parser)]
#[command(name = "infernet-provider", version, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,

    /// The folder of the key, the settings and the store [default: ~/.local/share/infernet/provider]
    #[arg(
        long,
        value_name = "DIR",
        env = "INFERNET_PROVIDER_HOME",
        global = true,
        help_heading = "Options of all commands",
        hide_env_values = true
    )]
    pub home: Option<PathBuf>,

    /// A TOML file with settings; flags and the environment override it [default: provider.toml in the home]
    #[arg(
        long,
        value_name = "FILE",
        env = "INFERNET_PROVIDER_CONFIG",
        global = true,
        help_heading = "Options of all commands",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,

    #[command(flatten, next_help_heading = "Options of all commands")]
    pub log: LogOptions,
}

const EXAMPLES: &str = "\
Examples:
  infernet-provider start --model ./smollm2-135m-instruct
  infernet-provider start --model ./small.gguf=small --relay wss://relay.example.com --slots 2
  infernet-provider status
  infernet-provider earnings --since 7
  infernet-provider stop

INFERNET_SECRET_KEY, if set, is the key to use (nsec or hex) instead of the one in the home folder.
INFERNET_WALLET, if set, is where buyers pay: a connection to a Lightning wallet that speaks NIP-47.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a settings file to edit, and make the key
    Init,
    /// Sell until told to stop
    ///
    /// Prints one line on standard output when it is announced: `ready: <npub> sells <models> on <relays>`.
    Start(Box<Start>),
    /// Show how the running provider stands
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the models on sale
    Models {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what was earned: by model, by day, and what buyers have left on their tabs
    Earnings {
        /// Only the last so many days
        #[arg(long, value_name = "DAYS")]
        since: Option<u32>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare the ledger with the wallet, and explain every difference
    ///
    /// Fails if something is left unexplained.
    Reconcile {
        /// Write down what is not of the provider's doing as come from, or gone, elsewhere
        #[arg(long)]
        adopt: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop the running provider: it finishes what runs first
    Stop {
        /// Do not finish what runs; its buyers are told
        #[arg(long)]
        now: bool,
    },
    /// Measure how far honest answers of a model are apart, and choose what work of it is judged by
    ///
    /// Takes a while: it answers the same questions in each number format, and checks all answers in each.
    Calibrate(Calibrate),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// What to measure.
#[derive(Debug, Args)]
pub struct Calibrate {
    /// The model: a GGUF file, a folder with one, or a Hugging Face folder
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,

    /// The number formats whose work is to be judged; repeat for more [default: f32, bf16]
    #[arg(long = "dtype", value_name = "DTYPE", value_delimiter = ',')]
    dtypes: Vec<Dtype>,

    /// The number formats of checkers; repeat for more [default: f32, bf16]
    #[arg(long, value_name = "DTYPE", value_delimiter = ',')]
    against: Vec<Dtype>,

    /// Answers for each number format
    #[arg(long, default_value_t = 1000)]
    pub answers: usize,

    /// An answer's length at most
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub tokens: u32,

    /// Processor threads [default: one for each core]
    #[arg(long)]
    pub threads: Option<u32>,

    /// Write what is found to a file for each format here
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,

    /// Print JSON: what kind 38502 holds, for each format
    #[arg(long)]
    pub json: bool,

    /// Say how far it is, also where nobody seems to watch
    #[arg(long)]
    pub verbose: bool,
}

impl Calibrate {
    /// The formats whose work is to be judged.
    pub fn judged(&self) -> Vec<inference::Dtype> {
        formats(&self.dtypes)
    }

    /// The formats of checkers.
    pub fn against(&self) -> Vec<inference::Dtype> {
        formats(&self.against)
    }
}

fn formats(named: &[Dtype]) -> Vec<inference::Dtype> {
    match named {
        [] => vec![inference::Dtype::F32, inference::Dtype::Bf16],
        named => named.iter().map(|&dtype| dtype.into()).collect(),
    }
}

/// What to sell, and how.
#[derive(Debug, Args)]
pub struct Start {
    /// A model to sell: a GGUF file, a folder with one, a Hugging Face folder, or a folder with a TorchScript
    /// module, which runs with your rights; repeat for more
    #[arg(
        long = "model",
        value_name = "PATH[=NAME]",
        env = "INFERNET_MODELS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    models: Vec<Model>,

    /// A relay to sell on; repeat for more [default: ws://127.0.0.1:7777]
    #[arg(
        long = "relay",
        value_name = "URL",
        env = "INFERNET_RELAYS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    relays: Vec<String>,

    /// What to call the provider
    #[arg(long, env = "INFERNET_PROVIDER_NAME", hide_env_values = true)]
    name: Option<String>,

    /// Price of a million tokens of input, in millisatoshis [default: 0, which is free]
    #[arg(long, value_name = "MSAT_PER_M")]
    price_in: Option<u64>,

    /// Price of a million tokens of output, in millisatoshis [default: 0, which is free]
    #[arg(long, value_name = "MSAT_PER_M")]
    price_out: Option<u64>,

    /// Jobs that are computed together [default: 8 on a processor, 64 on a GPU]
    #[arg(long, value_name = "JOBS")]
    slots: Option<u32>,

    /// Jobs that may wait [default: 8]
    #[arg(long, value_name = "JOBS")]
    queue: Option<u32>,

    /// Sell no more than this speed to one job
    #[arg(long, value_name = "TOKENS_PER_S")]
    max_speed: Option<f32>,

    /// Processor threads for each model [default: one for each core]
    #[arg(long)]
    threads: Option<u32>,

    /// What to compute on [default: auto]
    #[arg(long)]
    device: Option<Device>,

    /// What to compute in [default: f32]
    #[arg(long)]
    dtype: Option<Dtype>,

    /// Memory for the keys and values of running jobs, for each text model [default: what all slots can fill, within
    /// half of the free memory]
    #[arg(long = "kv-cache", value_name = "MIB")]
    kv_cache_mib: Option<u64>,

    /// Let prompts of different buyers share what they begin with; a buyer can then tell by the clock whether somebody
    /// has sent a text before
    #[arg(long)]
    share_prefixes: bool,

    /// Take only awards on bids, none on the announcement alone
    #[arg(long)]
    no_direct: bool,

    /// Check others' results too, with each model that writes or embeds
    #[arg(long)]
    verify: bool,

    /// Price of a million tokens that are read to check them, in millisatoshis [default: what input costs]
    #[arg(long, value_name = "MSAT_PER_M")]
    price_verify: Option<u64>,

    /// An aggregator that may pay after it has checked the work; repeat for more
    #[arg(long = "escrow", value_name = "NPUB", value_delimiter = ',', value_parser = public_key)]
    escrow_from: Vec<PublicKey>,

    /// What each of them may owe
    #[arg(long = "max-owed", value_name = "SATS")]
    max_owed_sats: Option<u64>,

    /// Publish no Nostr profile; for a key that has one already
    #[arg(long)]
    no_profile: bool,

    /// What computes
    #[arg(long, value_enum, default_value_t = Engine::Torch)]
    pub engine: Engine,

    #[command(flatten)]
    pub script: Script,
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Real models on libtorch
    Torch,
    /// No model at all: it says a given text. For tests and load
    Scripted,
}

/// What the scripted engine says and does wrong.
#[derive(Debug, Args)]
pub struct Script {
    /// Name of the scripted text model
    #[arg(long, hide = true, value_name = "NAME")]
    pub scripted_name: Option<String>,

    /// The text it says
    #[arg(long, hide = true, value_name = "TEXT")]
    pub scripted_text: Option<String>,

    /// How fast it says it
    #[arg(long, hide = true, value_name = "TOKENS_PER_S")]
    pub scripted_speed: Option<f64>,

    /// Fail after so many tokens
    #[arg(long, hide = true, value_name = "TOKENS", group = "fault")]
    pub scripted_fail_after: Option<u32>,

    /// Say nothing more after so many tokens
    #[arg(long, hide = true, value_name = "TOKENS", group = "fault")]
    pub scripted_stall_after: Option<u32>,

    /// Say wrong tokens after so many
    #[arg(long, hide = true, value_name = "TOKENS", group = "fault")]
    pub scripted_wrong_after: Option<u32>,

    /// Refuse every job
    #[arg(long, hide = true, group = "fault")]
    pub scripted_refuse: bool,
}

impl Start {
    /// Whether libtorch will compute.
    pub fn computes(&self) -> bool {
        self.engine == Engine::Torch
    }

    /// What the flags and the environment say.
    pub fn settings(&self) -> Settings {
        Settings {
            name: self.name.clone(),
            relays: self.relays.clone(),
            models: self.models.clone(),
            price_in: self.price_in,
            price_out: self.price_out,
            slots: self.slots,
            queue: self.queue,
            max_speed: self.max_speed,
            threads: self.threads,
            device: self.device,
            dtype: self.dtype,
            kv_cache_mib: self.kv_cache_mib,
            share_prefixes: self.share_prefixes.then_some(true),
            direct: self.no_direct.then_some(false),
            profile: self.no_profile.then_some(false),
            escrow_from: self.escrow_from.clone(),
            max_owed_sats: self.max_owed_sats,
            verify: self.verify.then_some(true),
            price_verify: self.price_verify,
            ..Settings::default()
        }
    }
}

/// A key as npub or hex.
fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).map_err(|_| "expected an npub, or a key in hex".to_owned())
}

/// Completions for a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    let mut command = Arguments::command();
    clap_complete::generate(shell, &mut command, "infernet-provider", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let line = "infernet-provider start --model /m=small --relay ws://a --relay ws://b --no-direct --slots 3";
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        let Command::Start(start) = arguments.command else {
            unreachable!("the line says start");
        };
        let settings = start.settings();
        assert_eq!(settings.relays, ["ws://a", "ws://b"]);
        assert_eq!(settings.models[0].name.as_deref(), Some("small"));
        assert_eq!(
            (settings.slots, settings.direct, settings.queue),
            (Some(3), Some(false), None)
        );
    }

    #[test]
    fn one_fault_at_a_time() {
        let line =
            "infernet-provider start --engine scripted --scripted-fail-after 3 --scripted-refuse";
        assert!(Arguments::try_parse_from(line.split(' ')).is_err());
    }
}
