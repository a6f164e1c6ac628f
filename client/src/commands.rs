//! The subcommands, and what they share: arguments, settings, identity, exit codes.

mod audit;
mod batch;
mod embed;
mod init;
mod interrupt;
mod job_id;
mod jobs;
mod providers;
mod reconcile;
mod run;
mod show;
mod spending;
mod submit;
mod tab;
mod table;
mod terminal;
mod verify;
mod work;

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, CommandFactory, Parser, Subcommand};
use infernet_client::history::History;
use infernet_client::purse::{self, Books, Moved};
use infernet_client::{Client, Error, Options};
use infernet_node::config;
use infernet_node::keys::{self, Origin};
use infernet_node::link;
use infernet_node::telemetry::LogOptions;
use infernet_payments::nip47::{self, Connection, Rail};
use infernet_protocol::money::Msat;
use nostr::{EventId, Keys, PublicKey, ToBech32};
use tokio::time::timeout;

use crate::settings::{DEFAULT_RELAY, Settings, Wallet};

/// Buys inference on an open market: your prompt goes to one provider, encrypted, and its answer streams back.
///
/// Nothing needs to be set up: a key is made at first use, and you are told where it lies.
#[derive(Debug, Parser)]
#[command(name = "infernet-client", version, after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  infernet-client submit \"Why is the sky blue?\"
  cat letter.txt | infernet-client submit --system \"Translate to French\"
  infernet-client batch requests.jsonl -o answers.jsonl
  infernet-client providers
  infernet-client audit 1a2b3c4d

INFERNET_SECRET_KEY, if set, is the key to use (nsec or hex) instead of the one in the home folder.
INFERNET_WALLET, if set, is the wallet to pay with (nostr+walletconnect://…) instead of the one in client.toml.

Exit codes:
  0    done
  1    it failed, an audit found something wrong, or a check rejected it
  2    the command line or a setting cannot be understood
  130  interrupted";

/// How long relays may take to answer before the user is told that they are waited for.
const QUIET: Duration = Duration::from_secs(1);

/// What every subcommand takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub struct Global {
    /// A relay to use; several if given several times [default: those of client.toml, else ws://127.0.0.1:7777]
    #[arg(
        long = "relay",
        value_name = "URL",
        env = "INFERNET_RELAYS",
        value_delimiter = ',',
        global = true,
        hide_env_values = true
    )]
    relays: Vec<String>,

    /// The folder with key, settings and list of jobs [default: ~/.local/share/infernet/client]
    #[arg(
        long,
        value_name = "FOLDER",
        env = "INFERNET_CLIENT_HOME",
        global = true,
        hide_env_values = true
    )]
    home: Option<PathBuf>,

    /// A settings file to use instead of client.toml in the home folder
    #[arg(
        long,
        value_name = "FILE",
        env = "INFERNET_CLIENT_CONFIG",
        global = true,
        hide_env_values = true
    )]
    config: Option<PathBuf>,

    #[command(flatten)]
    pub log: LogOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a model; the answer streams to standard output
    Submit(Box<submit::Submit>),
    /// Turn texts into vectors, one JSON array a line
    Embed(Box<embed::Embed>),
    /// Have a file of requests done by an aggregator
    Batch(Box<batch::BatchCommand>),
    /// Run a module: tensors in, tensors out
    Run(Box<run::Run>),
    /// List who sells what, the best score first
    Providers(providers::Providers),
    /// List the jobs of this machine, the newest first
    Jobs(jobs::Jobs),
    /// Show the life of a job as its signed events tell it
    Show(show::Show),
    /// Check a job's events, or a batch's, anew: what is proven, what is not, what is wrong
    Audit(audit::Audit),
    /// Have a job of yours checked by another provider
    Verify(verify::Verify),
    /// Tell what was spent, by provider
    Spending(spending::Spending),
    /// See what is left on the tabs with providers, or have it back
    Tab(tab::Tab),
    /// Compare the ledger with the wallet, and explain every difference
    Reconcile(reconcile::Reconcile),
    /// Write a settings file with comments, and make a key (nothing needs this)
    Init,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is done.
    Done,
    /// It could not be done, or something is wrong.
    Failed,
    /// The command line or a setting cannot be understood.
    Usage,
    /// The user stopped it.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Interrupted => 130,
        })
    }
}

/// What was asked cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misunderstood(String);

impl Exit {
    /// The exit code of an error.
    pub fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<Error>() {
            Some(Error::Invalid(_) | Error::RelayAddress(_) | Error::SeveralProviders { .. }) => {
                Self::Usage
            }
            Some(Error::Stopped) => Self::Interrupted,
            Some(_) => Self::Failed,
            None if error.is::<Misunderstood>() || error.is::<config::Error>() => Self::Usage,
            None => Self::Failed,
        }
    }
}

/// Does what was asked.
pub async fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let place = Place::of(arguments.global)?;
    match arguments.command {
        Command::Submit(submit) => submit.run(place).await,
        Command::Embed(embed) => embed.run(place).await,
        Command::Batch(batch) => batch.run(place).await,
        Command::Run(run) => run.run(place).await,
        Command::Providers(providers) => providers.run(place).await,
        Command::Jobs(jobs) => jobs.run(place).await,
        Command::Show(show) => show.run(place).await,
        Command::Audit(audit) => audit.run(place).await,
        Command::Verify(verify) => verify.run(place).await,
        Command::Spending(spending) => spending.run(place).await,
        Command::Tab(tab) => tab.run(place).await,
        Command::Reconcile(reconcile) => reconcile.run(place).await,
        Command::Init => init::run(&place),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "infernet-client",
                &mut script,
            );
            print(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Done)
        }
    }
}

/// Where this user's things are, and what they are.
struct Place {
    home: PathBuf,
    settings_file: PathBuf,
    settings: Settings,
    relays: Vec<String>,
}

impl Place {
    fn of(global: Global) -> anyhow::Result<Self> {
        let home = match global.home {
            Some(home) => home,
            None => config::home("client")?,
        };
        let usual = home.join("client.toml");
        let settings: Settings = config::load(global.config.as_deref(), &usual)?;
        let relays = [
            global.relays,
            settings.relays.clone(),
            vec![DEFAULT_RELAY.into()],
        ];
        let relays = relays.into_iter().find(|relays| !relays.is_empty());
        Ok(Self {
            home,
            settings_file: global.config.unwrap_or(usual),
            settings,
            relays: relays.unwrap_or_default(),
        })
    }

    fn key_file(&self) -> PathBuf {
        self.home.join("client.key")
    }

    /// The user's keys; who has none is given some, and told.
    fn keys(&self) -> anyhow::Result<Keys> {
        let identity = keys::load_or_make(&self.key_file())?;
        if let Origin::Made(path) = &identity.origin {
            eprintln!(
                "Made a key for you. It is your name on the market; it lies in {}",
                path.display()
            );
        }
        Ok(identity.keys)
    }

    /// Connects as this user, for what costs nothing.
    async fn client(&self) -> anyhow::Result<Client> {
        self.connect(None).await
    }

    /// Connects as this user, with a wallet if there is one.
    async fn paying_client(&self) -> anyhow::Result<Client> {
        self.connect(self.purse()?).await
    }

    async fn connect(&self, purse: Option<purse::Options>) -> anyhow::Result<Client> {
        let mut options = Options::new(&self.relays).keys(self.keys()?);
        options.trust = self.trusted()?;
        options.follow_bans = self.keys_of("follow_bans", &self.settings.follow_bans)?;
        options.purse = purse;
        options.blobs = self.blob_servers()?;
        let mut connecting = pin!(Client::connect(options));
        let connected = match timeout(QUIET, &mut connecting).await {
            Ok(connected) => connected,
            Err(_) => {
                eprintln!("Waiting for {} …", self.relays.join(", "));
                connecting.await
            }
        };
        connected.map_err(|error| match &error {
            Error::Link(link::Error::Unreachable(_)) => anyhow!(
                "{error}. Is the relay running? Others are named by --relay or in {}",
                self.settings_file.display()
            ),
            _ => error.into(),
        })
    }

    /// The wallet with its limits, if there is one.
    fn purse(&self) -> anyhow::Result<Option<purse::Options>> {
        let Some(connection) = self.wallet()? else {
            return Ok(None);
        };
        let rail = Rail::open(&connection, nip47::Options::default())?;
        let mut options = purse::Options::new(rail, &self.home);
        let sats = |sats: Option<u64>, usual: Msat| match sats {
            Some(sats) => Msat::from_sat(sats).unwrap_or(Msat::MAX),
            None => usual,
        };
        let (settings, limits) = (&self.settings, &mut options.limits);
        limits.risk = sats(settings.risk_sats, limits.risk);
        limits.daily = sats(settings.daily_sats, limits.daily);
        limits.max_fee = sats(settings.max_fee_sats, limits.max_fee);
        Ok(Some(options))
    }

    /// The wallet's connection: of the environment, else of the settings.
    fn wallet(&self) -> anyhow::Result<Option<Connection>> {
        let named = std::env::var("INFERNET_WALLET").unwrap_or_default();
        if !named.trim().is_empty() {
            let connection = named.trim().parse::<Connection>();
            let wrong = |error| Misunderstood(format!("INFERNET_WALLET: {error}"));
            return Ok(Some(connection.map_err(wrong)?));
        }
        let Some(Wallet(connection)) = self.settings.wallet.clone() else {
            return Ok(None);
        };
        warn_if_open(&self.settings_file);
        Ok(Some(connection))
    }

    /// What was paid, for reading: there need be no wallet.
    async fn books(&self) -> anyhow::Result<Books> {
        Ok(Books::open(&self.home).await?)
    }

    /// What each job has moved; nothing where nothing was ever paid.
    async fn moved(&self) -> anyhow::Result<HashMap<EventId, Moved>> {
        if !self.home.join("attempts.sqlite").exists() {
            return Ok(HashMap::new());
        }
        let books = self.books().await?;
        let moved = books.moved().await;
        books.close().await;
        Ok(moved?)
    }

    fn blob_servers(&self) -> anyhow::Result<Vec<infernet_blobs::Address>> {
        let parse = |text: &String| {
            let wrong = |error| format!("blossom in {}: {error}", self.settings_file.display());
            text.parse()
                .map_err(|error: infernet_blobs::InvalidAddress| Misunderstood(wrong(error)).into())
        };
        self.settings.blossom.iter().map(parse).collect()
    }

    fn trusted(&self) -> anyhow::Result<Vec<PublicKey>> {
        self.keys_of("trust", &self.settings.trust)
    }

    /// Public keys of the settings.
    fn keys_of(&self, setting: &str, keys: &[String]) -> anyhow::Result<Vec<PublicKey>> {
        let parse = |text: &String| {
            let file = self.settings_file.display();
            let unknown = || format!("{setting} in {file}: {text:?} is no npub");
            PublicKey::parse(text).map_err(|_| Misunderstood(unknown()).into())
        };
        keys.iter().map(parse).collect()
    }

    async fn history(&self) -> anyhow::Result<History> {
        make_folder(&self.home)?;
        Ok(History::open(&self.home.join("client.sqlite")).await?)
    }
}

/// Who can read the wallet's connection can spend.
fn warn_if_open(settings: &Path) {
    let mode = std::fs::metadata(settings).map(|file| file.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        eprintln!(
            "Others can read {}, and with it spend from your wallet: chmod 600 {}",
            settings.display(),
            settings.display()
        );
    }
}

/// Makes a folder for its owner alone, if it is not there.
fn make_folder(folder: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make {}", folder.display()))
}

/// Prints to standard output. Who closes it early (as `head` does) has seen enough.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Prints a value as JSON.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

fn npub(key: &PublicKey) -> String {
    let Ok(npub) = key.to_bech32();
    npub
}

/// A public key short enough for a table.
fn short(key: &PublicKey) -> String {
    npub(key).chars().take(12).collect()
}

/// What to call somebody.
fn who(key: &PublicKey, own: &PublicKey, names: &HashMap<PublicKey, String>) -> String {
    match names.get(key) {
        _ if key == own => "you".into(),
        Some(name) => name.clone(),
        None => short(key),
    }
}
