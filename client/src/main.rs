//! `infernet-client`: buys inference on the market, from the command line.

mod commands;
mod settings;

use std::process::ExitCode;

use clap::Parser;

use commands::{Arguments, Exit};
use infernet_node::complaint;

/// What is logged by default: the program itself says what matters.
const DEFAULT_LOG: &str = "error";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = arguments.global.log.init(DEFAULT_LOG) {
        eprintln!("error: {error}");
        return Exit::Usage.into();
    }
    match commands::run(arguments).await {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {}", complaint::told(&*error));
            Exit::of(&error).into()
        }
    }
}
