//! `infernet-aggregator`: takes batches on the market, as a program.

mod arguments;
mod commands;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;
use infernet_node::complaint;

/// What an aggregator logs by default.
const DEFAULT_LOG: &str = "info";

/// What the other commands log, which are over in a moment.
const QUIET_LOG: &str = "warn";

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", complaint::told(&*error));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Command::Completions { shell } = arguments.command {
        return commands::print(&arguments::completions(shell));
    }
    let log = match arguments.command {
        Command::Start(_) => DEFAULT_LOG,
        _ => QUIET_LOG,
    };
    arguments.log.init(log)?;
    let home = commands::home(arguments.home)?;
    match arguments.command {
        Command::Init => commands::init(&home),
        Command::Start(start) => commands::start(&home, arguments.config.as_deref(), &start).await,
        Command::Status(as_json) => commands::status(&home, as_json.json).await,
        Command::Stop { now } => commands::stop(&home, now).await,
        Command::Jobs(as_json) => commands::jobs(&home, as_json.json).await,
        Command::Providers(as_json) => commands::providers(&home, as_json.json).await,
        Command::Ledger { days, json } => commands::ledger(&home, days, json).await,
        Command::Reconcile(how) => {
            commands::reconcile(&home, arguments.config.as_deref(), how.json).await
        }
        Command::Ban { provider, reason } => commands::ban(&home, &provider, reason).await,
        Command::Unban { provider } => commands::unban(&home, &provider).await,
        Command::Completions { .. } => Ok(()),
    }
}
