//! `infernet-provider`: sells inference on the market, as a program.

mod arguments;
mod commands;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;
use infernet_node::complaint;

/// What a provider logs by default.
const DEFAULT_LOG: &str = "info";

/// What the other commands log, which are over in a moment.
const QUIET_LOG: &str = "warn";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let computes = match &arguments.command {
        Command::Start(start) => start.computes(),
        Command::Calibrate(_) => true,
        _ => false,
    };
    if computes && let Err(error) = infernet_engine::threads::wait_politely() {
        eprintln!("warning: libtorch's threads will spin while they wait: {error}");
    }
    match run(arguments) {
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
        Command::Start(start) => commands::start(&home, arguments.config.as_deref(), *start).await,
        Command::Status { json } => commands::status(&home, json).await,
        Command::Models { json } => {
            commands::models(&home, arguments.config.as_deref(), json).await
        }
        Command::Earnings { since, json } => commands::earnings(&home, since, json).await,
        Command::Reconcile { adopt, json } => {
            commands::reconcile(&home, arguments.config.as_deref(), adopt, json).await
        }
        Command::Stop { now } => commands::stop(&home, now).await,
        Command::Calibrate(wanted) => commands::calibrate(&wanted).await,
        Command::Completions { .. } => Ok(()),
    }
}
