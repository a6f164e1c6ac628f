//! `infernet-relay`: a relay for the market, as a program.

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{CommandFactory, Parser};
use clap_complete::{Shell, generate};
use commands::{Command, said};
use infernet_node::complaint;
use infernet_node::config;
use infernet_node::shutdown::Shutdown;
use infernet_node::telemetry::LogOptions;
use infernet_relay::{Options, run};
use nostr::PublicKey;

/// What is logged by default: nothing of a single connection.
const DEFAULT_LOG: &str = "info";

/// What the other commands log, which talk to people.
const QUIET_LOG: &str = "warn";

/// A relay for an open market for inference: it carries the signed events between buyers and providers, and keeps
/// the evidence of every job.
///
/// It serves Nostr, and Blossom for what is too large for an event, on one port. Stop it with Ctrl-C; a restart loses nothing that was acknowledged.
#[derive(Debug, Parser)]
#[command(name = "infernet-relay", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Where to listen, as HOST:PORT; port 0 takes any free one [default: 127.0.0.1:7777]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "INFERNET_RELAY_LISTEN",
        hide_env_values = true
    )]
    listen: Option<String>,

    /// The folder of the store, made if it is not there [default: ~/.local/share/infernet/relay]
    #[arg(
        long,
        value_name = "FOLDER",
        global = true,
        env = "INFERNET_RELAY_DATA",
        hide_env_values = true
    )]
    data: Option<PathBuf>,

    /// Take events of every kind, not only the market's
    #[arg(long, global = true, env = "INFERNET_RELAY_GENERAL", value_parser = clap::builder::FalseyValueParser::new(), hide_env_values = true)]
    general: bool,

    /// Keep and serve no blobs
    #[arg(long, env = "INFERNET_RELAY_NO_BLOBS", value_parser = clap::builder::FalseyValueParser::new(), hide_env_values = true)]
    no_blobs: bool,

    /// Follow this aggregator's bans: whom it bans cannot announce or bid here; may be given more than once
    #[arg(long, global = true, value_name = "NPUB", env = "INFERNET_RELAY_FOLLOW_BANS", value_delimiter = ',', value_parser = PublicKey::parse, hide_env_values = true)]
    follow_bans: Vec<PublicKey>,

    /// Serve the metrics there too, to whoever reaches it, as HOST:PORT
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "INFERNET_RELAY_METRICS",
        hide_env_values = true
    )]
    metrics: Option<String>,

    /// A TOML file with settings; flags and the environment override it
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        env = "INFERNET_RELAY_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,

    #[command(flatten)]
    log: LogOptions,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", hide = true)]
    completions: Option<Shell>,
}

const EXAMPLES: &str = "\
Examples:
  infernet-relay --data ./relay-data
  infernet-relay config > relay.toml        # every setting, with its default
  infernet-relay --listen 0.0.0.0:7777 --config relay.toml
  infernet-relay ban npub1... 'floods' --config relay.toml
  infernet-relay sync wss://other.example.org --config relay.toml
  infernet-relay --completions bash > /etc/bash_completion.d/infernet-relay";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(shell) = arguments.completions {
        let mut command = Arguments::command();
        let mut script = Vec::new();
        generate(shell, &mut command, "infernet-relay", &mut script);
        said(&String::from_utf8_lossy(&script));
        return ExitCode::SUCCESS;
    }
    match start(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", complaint::told(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn start(mut arguments: Arguments) -> anyhow::Result<()> {
    let command = arguments.command.take();
    let log = match command {
        None => DEFAULT_LOG,
        Some(_) => QUIET_LOG,
    };
    arguments.log.init(log)?;
    let options = match command {
        // It needs no folder.
        Some(Command::Config) => Options::default(),
        _ => options(arguments)?,
    };
    match command {
        None => serve(options).await,
        Some(command) => commands::run(&options, command).await,
    }
}

async fn serve(options: Options) -> anyhow::Result<()> {
    let shutdown =
        Shutdown::on_signals().map_err(|error| anyhow!("cannot listen for signals: {error}"))?;
    let relay = run(options, shutdown).await?;
    // Scripts read this line; it is the only one on standard output.
    said(&format!("listening on {}\n", relay.url()));
    relay.ended().await;
    Ok(())
}

/// The file's settings, with the arguments (and the environment) laid over them.
fn options(arguments: Arguments) -> anyhow::Result<Options> {
    let home = config::home("relay");
    let usual = match (&arguments.config, &home) {
        (None, Ok(home)) => home.join("relay.toml"),
        _ => PathBuf::new(),
    };
    let mut options: Options = config::load(arguments.config.as_deref(), &usual)?;
    if let Some(listen) = arguments.listen {
        options.listen = listen;
    }
    if arguments.metrics.is_some() {
        options.metrics = arguments.metrics;
    }
    if let Some(data) = arguments.data {
        options.data = data;
    }
    if options.data.as_os_str().is_empty() {
        options.data = home.map_err(|error| anyhow!("{error}, or give --data"))?;
    }
    options.general |= arguments.general;
    options.blobs &= !arguments.no_blobs;
    options.follow_bans.extend(arguments.follow_bans);
    options.check()?;
    Ok(options)
}
