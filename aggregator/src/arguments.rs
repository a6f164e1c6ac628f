//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use infernet_aggregator::settings::Settings;
use infernet_node::telemetry::LogOptions;

/// Takes batches of inference on an open market: it splits them, buys the work from providers, has it checked, holds
/// the buyer's money until it is done, and pays.
///
/// Nobody needs an account: a key is made at the first start. Stop it with Ctrl-C: shards that run may end, and the
/// next start goes on with the rest; a second Ctrl-C stops at once.
#[derive(Debug, Parser)]
#[command(name = "infernet-aggregator", version, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,

    /// The folder of the key, the settings, the store and the work [default: ~/.local/share/infernet/aggregator]
    #[arg(
        long,
        value_name = "DIR",
        env = "INFERNET_AGGREGATOR_HOME",
        global = true,
        help_heading = "Options of all commands",
        hide_env_values = true
    )]
    pub home: Option<PathBuf>,

    /// A TOML file with settings; flags and the environment override it [default: aggregator.toml in the home]
    #[arg(
        long,
        value_name = "FILE",
        env = "INFERNET_AGGREGATOR_CONFIG",
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
  infernet-aggregator start --relay wss://relay.example.com
  infernet-aggregator status
  infernet-aggregator providers
  infernet-aggregator ledger
  infernet-aggregator ban npub1... --reason 'never answers'
  infernet-aggregator stop

INFERNET_SECRET_KEY, if set, is the key to use (nsec or hex) instead of the one in the home folder.
INFERNET_WALLET, if set, is the wallet that holds buyers' money: a connection that speaks NIP-47. Without a wallet
only free work is done.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a settings file to edit, and make the key
    Init,
    /// Take batches until told to stop
    ///
    /// Prints one line on standard output when it is announced: `ready: <npub> takes batches on <relays>`.
    Start(Box<Start>),
    /// Show what runs, how fast, and what is owed
    Status(Json),
    /// Stop the running aggregator: shards that run may end first
    Stop {
        /// Do not wait for them
        #[arg(long)]
        now: bool,
    },
    /// List the newest orders
    Jobs(Json),
    /// List providers: what was bought of them, how they stand, and who is banned
    Providers(Json),
    /// Show what is owed to buyers and providers, what was earned, and what has moved
    Ledger {
        /// How many days back
        #[arg(long, default_value_t = 30)]
        days: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare the ledger with the wallet
    Reconcile(Json),
    /// Buy nothing more of a provider
    Ban {
        /// Its public key, as npub or hex
        provider: String,
        /// Why; others may read it
        #[arg(long, default_value = "by hand")]
        reason: String,
    },
    /// Buy of a provider again
    Unban {
        /// Its public key, as npub or hex
        provider: String,
    },
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// How to print.
#[derive(Debug, Clone, Copy, Args)]
pub struct Json {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How to take batches.
#[derive(Debug, Args)]
pub struct Start {
    /// A relay to work on; repeat for more [default: ws://127.0.0.1:7777]
    #[arg(
        long = "relay",
        value_name = "URL",
        env = "INFERNET_RELAYS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    relays: Vec<String>,

    /// A Blossom server for the blobs of batches; repeat for more [default: the relays' own]
    #[arg(long = "blossom", value_name = "URL")]
    blossom: Vec<String>,

    /// What to call the aggregator
    #[arg(long, env = "INFERNET_AGGREGATOR_NAME", hide_env_values = true)]
    name: Option<String>,

    /// The fee on accepted work, in percent, 2 at most [default: 1]
    #[arg(long = "fee", value_name = "PERCENT")]
    fee_percent: Option<f64>,

    /// The most that is held for one group of lines [default: 100000]
    #[arg(long, value_name = "SATS")]
    max_hold_sats: Option<u64>,

    /// A checker that you run yourself, as npub; repeat for more
    #[arg(long = "checker", value_name = "NPUB")]
    checkers: Vec<String>,

    /// Whose attestations of providers count besides this aggregator's own; repeat for more
    #[arg(long = "trust", value_name = "NPUB")]
    trust: Vec<String>,

    /// Tokens that a provider is given at a time [default: 8192]
    #[arg(long, value_name = "TOKENS")]
    shard_tokens: Option<u64>,

    /// How many times longer than expected a provider may take before another is asked too [default: 3]
    #[arg(long, value_name = "TIMES")]
    straggler: Option<f64>,

    /// Seconds before a deadline at which nothing more is bought [default: 60]
    #[arg(long, value_name = "SECONDS")]
    margin_s: Option<u64>,
}

impl Start {
    /// What the flags and the environment say.
    pub fn settings(&self) -> Settings {
        Settings {
            name: self.name.clone(),
            relays: self.relays.clone(),
            blossom: self.blossom.clone(),
            fee_percent: self.fee_percent,
            max_hold_sats: self.max_hold_sats,
            checkers: self.checkers.clone(),
            trust: self.trust.clone(),
            shard_tokens: self.shard_tokens,
            straggler: self.straggler,
            margin_s: self.margin_s,
            ..Settings::default()
        }
    }
}

/// Completions for a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    let mut command = Arguments::command();
    clap_complete::generate(shell, &mut command, "infernet-aggregator", &mut script);
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
        let line =
            "infernet-aggregator start --relay ws://a --fee 0.5 --checker npub1x --margin-s 5";
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        let Command::Start(start) = arguments.command else {
            unreachable!("the line says start");
        };
        let settings = start.settings();
        assert_eq!(settings.relays, ["ws://a"]);
        assert_eq!(
            (settings.fee_ppm(), settings.margin_s),
            (Some(5_000), Some(5))
        );
    }
}
