//! `infernet-wallet`: the command line.

mod backup;
mod cli;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use infernet_node::config;
use infernet_node::shutdown::Shutdown;
use infernet_wallet::channels::{Channel, Opening};
use infernet_wallet::control::{self, Command, Connect, Connected};
use infernet_wallet::home::{self, Home};
use infernet_wallet::lightning;
use infernet_wallet::nip47::Method;
use infernet_wallet::run;
use infernet_wallet::seed::{self, Seed};
use infernet_wallet::settings::Settings;
use infernet_wallet::status::Status;
use serde::de::DeserializeOwned;

use crate::cli::{ChannelTask, Cli, ConnectArgs, InitArgs, Task};

const REAL_MONEY: &str =
    "This wallet holds real bitcoin. It is young software: put in what you can afford to lose.";

fn main() -> ExitCode {
    match run_task(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_task(cli: Cli) -> anyhow::Result<()> {
    let folder = match cli.home {
        Some(folder) => folder,
        None => config::home("wallet")?,
    };
    let home = Home::at(folder);
    cli.log.init("info")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(act(&home, cli.task))
}

async fn act(home: &Home, task: Task) -> anyhow::Result<()> {
    match task {
        Task::Init(args) => init(home, &args),
        Task::Start => start(home).await,
        Task::Status { json } => {
            let status: Status = ask(home, &Command::Status).await?;
            match json {
                true => println!("{}", serde_json::to_string_pretty(&status)?),
                false => print!("{status}"),
            }
            Ok(())
        }
        Task::Stop => stop(home).await,
        Task::Connect(args) => connect(home, args).await,
        Task::Connections { json } => connections(home, json).await,
        Task::Revoke { name } => {
            ask::<()>(home, &Command::Revoke { name: name.clone() }).await?;
            println!("{name} is revoked.");
            Ok(())
        }
        Task::Address => {
            println!("{}", ask::<String>(home, &Command::Address).await?);
            Ok(())
        }
        Task::Channel { task } => channel(home, task).await,
        Task::Backup(args) => backup::backup(home, &args).await,
    }
}

async fn ask<T: DeserializeOwned>(home: &Home, command: &Command) -> anyhow::Result<T> {
    Ok(control::ask(&home.socket(), command).await?)
}

fn init(home: &Home, args: &InitArgs) -> anyhow::Result<()> {
    let settings = Settings {
        network: args.network.clone(),
        real_money: args.real_money,
        bitcoind: args.bitcoind.clone(),
        esplora: args.esplora.clone(),
        listen: args.listen.clone(),
        alias: args.alias.clone(),
        relay: None,
        relays: args.relay.clone(),
        no_reserve_for: args.no_reserve_for.clone(),
        lsp: args.lsp()?,
    };
    settings.check()?;
    lightning::check(&settings)?;
    home.make()?;
    // Made first: a seed that is there is never made again. One without settings was put there to be restored, or is
    // what an interrupted init has left.
    let is_new = match Seed::make(&home.seed()) {
        Err(seed::Error::There(_)) if !home.settings().exists() => {
            Seed::read(&home.seed())?;
            false
        }
        made => made.map(|_| true)?,
    };
    let text = toml::to_string(&settings).context("the settings cannot be written")?;
    home::write_private(&home.settings(), text.as_bytes())
        .with_context(|| format!("cannot write {}", home.settings().display()))?;
    println!(
        "A wallet for {} lies in {}.",
        settings.network,
        home.folder().display()
    );
    if !is_new {
        println!("It has the words that were in {}.", home.seed().display());
    }
    println!("Start it: infernet-wallet start");
    println!("Then write its words down: infernet-wallet backup --show-words");
    if settings.is_real() {
        eprintln!("\n{REAL_MONEY}");
    }
    Ok(())
}

async fn start(home: &Home) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let ready = |relay: &str| {
        println!("ready {relay}");
        tracing::info!(relay, "the wallet serves");
    };
    if Settings::read(&home.settings()).is_ok_and(|settings| settings.is_real()) {
        eprintln!("{REAL_MONEY}");
    }
    Ok(run::run(home.clone(), shutdown, ready).await?)
}

/// Asks the wallet to stop, and waits until it has: its lock is free then.
async fn stop(home: &Home) -> anyhow::Result<()> {
    ask::<()>(home, &Command::Stop).await?;
    let patience = tokio::time::Instant::now() + std::time::Duration::from_secs(90);
    while home.lock().is_err() {
        anyhow::ensure!(
            tokio::time::Instant::now() < patience,
            "the wallet is still stopping; see its log"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    println!("The wallet has stopped.");
    Ok(())
}

async fn connect(home: &Home, args: ConnectArgs) -> anyhow::Result<()> {
    let methods = match args.methods.is_empty() {
        true => Method::ALL
            .iter()
            .map(|method| method.name().to_owned())
            .collect(),
        false => args.methods,
    };
    let command = Command::Connect(Connect {
        name: args.name,
        methods,
        budget_sats: args.budget_sats,
        per_s: args.per.seconds(),
        whole_history: args.whole_history,
    });
    println!("{}", ask::<String>(home, &command).await?);
    Ok(())
}

async fn connections(home: &Home, json: bool) -> anyhow::Result<()> {
    let all: Vec<Connected> = ask(home, &Command::Connections).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    if all.is_empty() {
        println!("There are no connections. Make one: infernet-wallet connect --name <name>");
    }
    for one in all {
        let state = if one.revoked { " (revoked)" } else { "" };
        println!("{}{state}", one.name);
        println!("  may     {}", one.methods.join(", "));
        match (one.budget_msat, one.left_msat, one.period) {
            (Some(budget), Some(left), Some(period)) => {
                println!(
                    "  budget  {} sat ({period}), {left} msat left",
                    budget / 1_000
                );
            }
            _ => println!("  budget  none: it may spend everything it is allowed to pay with"),
        }
    }
    Ok(())
}

async fn channel(home: &Home, task: ChannelTask) -> anyhow::Result<()> {
    match task {
        ChannelTask::Open {
            peer,
            sats,
            push_sats,
            public,
        } => {
            let opening = Opening {
                peer,
                sats,
                push_sats,
                public,
            };
            let id: String = ask(home, &Command::ChannelOpen(opening)).await?;
            println!(
                "Channel {id} is being opened. It is ready once its transaction has six confirmations:"
            );
            println!("  infernet-wallet channel list");
        }
        ChannelTask::Close { id, force } => {
            ask::<()>(home, &Command::ChannelClose { id, force }).await?;
            println!("The channel is being closed; its money comes back to the chain.");
        }
        ChannelTask::List { json } => {
            let all: Vec<Channel> = ask(home, &Command::ChannelList).await?;
            match json {
                true => println!("{}", serde_json::to_string_pretty(&all)?),
                false => list(&all),
            }
        }
        ChannelTask::Buy { sats, max_fee_sats } => {
            let invoice: String = ask(home, &Command::ChannelBuy { sats, max_fee_sats }).await?;
            println!("{invoice}");
            eprintln!(
                "Pay this invoice from another wallet. A channel opens with it, and the amount, less the"
            );
            eprintln!("seller's fee, arrives through it. Keep the wallet running until then.");
        }
    }
    Ok(())
}

fn list(all: &[Channel]) {
    if all.is_empty() {
        println!("There are no channels. Open one, or buy one: infernet-wallet channel --help");
    }
    for one in all {
        let state = match (one.usable, one.ready) {
            (true, _) => "usable",
            (false, true) => "its peer is away",
            (false, false) => "not confirmed yet",
        };
        println!(
            "{}  {} sat with {} ({state})",
            one.id, one.value_sats, one.peer
        );
        println!(
            "  can send {} msat ({} in one payment), can receive {} msat",
            one.can_send_msat, one.can_send_at_once_msat, one.can_receive_msat
        );
    }
}
