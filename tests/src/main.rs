//! `infernet-test-lightning`: wallets for a market on one machine, for scripts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use infernet_tests::lightning::{self, Balance, Lightning, Money, Programs, Purses};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Lightning wallets on a private regtest, or with play money: for demonstrations and tests.
#[derive(Debug, Parser)]
#[command(name = "infernet-test-lightning", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run the wallets until Ctrl-C. Prints `money regtest` or `money play`, a line `name connection` for each, and
    /// then `ready`.
    Start {
        /// Where everything is kept. It is made; whoever named it removes it.
        #[arg(long, value_name = "FOLDER")]
        folder: PathBuf,
        /// The bitcoind to run. Without one the wallets have play money.
        #[arg(long, value_name = "PROGRAM")]
        bitcoind: Option<PathBuf>,
        /// The wallet to run.
        #[arg(long, value_name = "PROGRAM")]
        wallet: PathBuf,
        /// What the wallets are called. The first has a channel to each of the others, and so has the second if it is
        /// called `aggregator`.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Print what each wallet owns, as JSON; or compare it with such a print, and fail if it does not add up.
    Balances {
        /// The folder of the wallets.
        #[arg(long, value_name = "FOLDER")]
        folder: PathBuf,
        /// An earlier print.
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
    },
    /// Print who paid whom.
    Payments {
        /// The folder of the wallets.
        #[arg(long, value_name = "FOLDER")]
        folder: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().task).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(task: Task) -> Result<()> {
    match task {
        Task::Start {
            folder,
            bitcoind,
            wallet,
            names,
        } => start(folder, Programs::beside_this(wallet, bitcoind)?, names).await,
        Task::Balances { folder, since } => match since {
            Some(since) => compare(&folder, &since).await,
            None => print_balances(&folder).await,
        },
        Task::Payments { folder } => {
            for made in lightning::made(&Purses::read(&folder)?.open()?).await? {
                println!("{made}");
            }
            Ok(())
        }
    }
}

async fn start(folder: PathBuf, programs: Programs, names: Vec<String>) -> Result<()> {
    let mut signals = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    ];
    let mut starting = tokio::task::spawn_blocking(move || set_up(&folder, &programs, &names));
    let _lightning = tokio::select! {
        started = &mut starting => started??,
        () = told_to_stop(&mut signals) => {
            infernet_regtest::give_up();
            // What has been started ends with it.
            drop(starting.await?);
            return Ok(());
        }
    };
    told_to_stop(&mut signals).await;
    Ok(())
}

async fn told_to_stop([interrupted, terminated]: &mut [Signal; 2]) {
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
}

fn set_up(folder: &Path, programs: &Programs, names: &[String]) -> Result<Lightning> {
    std::fs::create_dir_all(folder)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let kind = match programs.bitcoind {
        Some(_) => "regtest",
        None => "play money",
    };
    let began = Instant::now();
    eprint!("{kind}: ");
    let progress = |part: &str| eprint!("{part} … ");
    let started = Lightning::start_at(folder, programs, &names, &progress);
    match &started {
        Ok(_) => eprintln!("ready in {} s", began.elapsed().as_secs_f32().ceil()),
        Err(_) => eprintln!("broken off"),
    }
    let lightning = started?;
    lightning.purses().write(folder)?;
    tell(&lightning, &names)?;
    Ok(lightning)
}

fn tell(lightning: &Lightning, names: &[&str]) -> Result<()> {
    match lightning.money() {
        Money::Regtest => println!("money regtest"),
        Money::Play => println!("money play"),
    }
    for name in names {
        println!("{name} {}", lightning.connection(name)?);
    }
    println!("ready");
    Ok(())
}

async fn print_balances(folder: &Path) -> Result<()> {
    let balances = lightning::balances(&Purses::read(folder)?.open()?).await?;
    println!("{}", serde_json::to_string(&balances)?);
    Ok(())
}

async fn compare(folder: &Path, since: &Path) -> Result<()> {
    let text = std::fs::read_to_string(since)
        .with_context(|| format!("there is no {}", since.display()))?;
    let before: Vec<Balance> = serde_json::from_str(&text)?;
    ensure!(!before.is_empty(), "{} has no balances", since.display());
    let comparison = lightning::add_up(&Purses::read(folder)?.open()?, &before).await?;
    print!("{comparison}");
    Ok(())
}
