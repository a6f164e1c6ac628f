//! Ctrl-C: the first one asks to stop, the second one stops.

use std::process;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGINT or SIGTERM cancels, saying what is done about it; the second ends the process.
///
/// # Errors
/// When the operating system refuses the handlers.
pub fn on_signals(what: &'static str) -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if told.is_cancelled() {
                process::exit(130);
            }
            eprintln!("\n{what} Once more (Ctrl-C) stops at once.");
            told.cancel();
        }
    });
    Ok(stop)
}
