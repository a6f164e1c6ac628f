//! What the program does besides serving.

mod operator;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use infernet_node::shutdown::Shutdown;
use infernet_relay::decisions::{By, Change, Whom, decide_for};
use infernet_relay::policy;
use infernet_relay::sync::{Progress, Task, once};
use infernet_relay::{Direction, EXAMPLE, Options, filter_of, url_of};
use nostr::{Filter, PublicKey, RelayUrl};
use tokio::time::Instant;

/// How often a terminal hears how far a reconciliation has come.
const SAID_EVERY: Duration = Duration::from_secs(2);

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this relay and another equal (NIP-77): each gets what the other has
    ///
    /// If this relay runs in the folder, it does the work; otherwise this command does. It can be stopped at any
    /// time and run again: it goes on where it was.
    Sync(Box<SyncArguments>),
    /// Judge events for strfry, as its write policy plugin
    ///
    /// Lines of JSON come in on standard input and are answered on standard output. The rules,
    /// lists and limits are this relay's, by the same configuration and folder. In strfry.conf:
    /// writePolicy { plugin = "infernet-relay policy --config /etc/infernet/relay.toml" }
    #[command(verbatim_doc_comment)]
    Policy {
        /// Learn first whom these events ban and trust: a file of events, one a line, as `strfry scan` prints them
        #[arg(long, value_name = "FILE")]
        learn: Option<PathBuf>,
    },
    /// Take nothing of a key any more, remove an event for good, or talk to an address no more
    Ban {
        #[command(flatten)]
        about: About,
        /// Why, for yourself
        #[arg(default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Take a ban back
    Unban(About),
    /// Know a key to be good: it needs no work, and may write where only listed keys may
    Allow {
        /// The key, npub1… or hex
        #[arg(value_name = "NPUB", value_parser = PublicKey::parse)]
        key: PublicKey,
        /// Why, for yourself
        #[arg(default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Take that back
    Unallow {
        /// The key, npub1… or hex
        #[arg(value_name = "NPUB", value_parser = PublicKey::parse)]
        key: PublicKey,
    },
    /// Show whom the relay bans and allows
    Lists,
    /// Show how the running relay is
    Status {
        /// As JSON
        #[arg(long = "json")]
        as_json: bool,
    },
    /// Print a file with every setting and its default, for --config
    Config,
}

/// Whom a ban is about.
#[derive(Debug, Args)]
pub struct About {
    /// A key (npub1… or hex), an event (note1… or nevent1…) or an IP address
    #[arg(value_name = "WHOM")]
    whom: Whom,
}

/// What `sync` takes.
#[derive(Debug, Args)]
pub struct SyncArguments {
    /// The other relay, as wss://HOST
    #[arg(value_name = "RELAY", value_parser = url_of)]
    url: RelayUrl,

    /// Only events that match this filter, as JSON [default: all that this relay takes]
    // The options of the log have the names `filter` and `json` already.
    #[arg(long = "filter", value_name = "JSON", value_parser = filter)]
    only: Option<Filter>,

    /// Only fetch what this relay lacks
    #[arg(long, conflicts_with = "up")]
    down: bool,

    /// Only give what the other lacks
    #[arg(long)]
    up: bool,

    /// Say how far it has come as lines of JSON
    #[arg(long = "json")]
    as_json: bool,
}

fn filter(text: &str) -> Result<Filter, String> {
    filter_of(text).map_err(|error| format!("{error}; for example {{\"kinds\":[8603]}}"))
}

/// Makes two relays equal.
pub async fn sync(options: &Options, arguments: SyncArguments) -> anyhow::Result<()> {
    let task = Task {
        url: arguments.url,
        filter: arguments.only,
        direction: match (arguments.down, arguments.up) {
            (true, _) => Direction::Down,
            (_, true) => Direction::Up,
            _ => Direction::Both,
        },
    };
    let shutdown =
        Shutdown::on_signals().map_err(|error| anyhow!("cannot listen for signals: {error}"))?;
    let mut teller = Teller::new(arguments.as_json);
    let done = tokio::select! {
        done = once(options, &task, |progress| teller.hear(progress)) => Some(done),
        () = shutdown.soft() => None,
    };
    teller.end(&task.url)?;
    match done {
        Some(done) => Ok(done?),
        None => bail!("stopped. What came by then is kept; run it again to go on"),
    }
}

/// Tells how far a reconciliation has come: at times, and at its end.
struct Teller {
    as_json: bool,
    last: Progress,
    said: Option<Instant>,
}

impl Teller {
    fn new(as_json: bool) -> Self {
        Self {
            as_json,
            last: Progress::default(),
            said: None,
        }
    }

    fn hear(&mut self, progress: &Progress) {
        let is_news = self.last != *progress;
        self.last = progress.clone();
        let is_due = self.said.is_none_or(|said| said.elapsed() >= SAID_EVERY);
        if !is_news || !is_due || progress.complete {
            return;
        }
        self.said = Some(Instant::now());
        if self.as_json {
            // Who closes it early has seen enough.
            let _ = self.line();
        } else if io::stderr().is_terminal() {
            let down_to = progress.down_to.map(|at| at.to_human_datetime());
            let down_to = down_to.map(|at| format!("; equal down to {at}"));
            eprintln!("{progress}{}", down_to.unwrap_or_default());
        }
    }

    fn line(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &self.last)?;
        out.write_all(b"\n")?;
        out.flush()
    }

    fn end(&self, url: &RelayUrl) -> io::Result<()> {
        if self.as_json {
            return self.line();
        }
        let progress = &self.last;
        let mut out = io::stdout().lock();
        let equal = match progress.complete {
            true => "equal with",
            false => "not equal yet with",
        };
        writeln!(out, "{equal} {url}: {progress}")?;
        for reason in &progress.reasons {
            writeln!(out, "  {reason}")?;
        }
        Ok(())
    }
}

/// Does what the other commands say.
pub async fn run(options: &Options, command: Command) -> anyhow::Result<()> {
    let change = match command {
        Command::Sync(arguments) => return sync(options, *arguments).await,
        Command::Policy { learn } => return policy(options, learn.as_deref()),
        Command::Lists => return operator::lists(options),
        Command::Status { as_json } => return operator::status(options, as_json).await,
        Command::Config => {
            said(EXAMPLE);
            return Ok(());
        }
        Command::Ban { about, reason } => about.whom.ban(reason),
        Command::Unban(about) => about.whom.unban(),
        Command::Allow { key, reason } => Change::AllowKey(key, reason),
        Command::Unallow { key } => Change::UnallowKey(key),
    };
    // Who forgot to name the right folder sees it here.
    let folder = options.data.display();
    said(&match decide_for(options, change).await? {
        By::TheRelay => format!("the relay in {folder} holds to it\n"),
        By::Us => format!("put down in {folder}, where no relay runs now\n"),
    });
    Ok(())
}

/// Prints to standard output. Who closes it early (as `head` does) has seen enough.
pub fn said(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Judges events for strfry, until it says no more.
fn policy(options: &Options, learn: Option<&Path>) -> anyhow::Result<()> {
    tokio::task::block_in_place(|| Ok(policy::run(options, learn)?))
}
