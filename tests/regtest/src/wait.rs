//! Waiting for what has to come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// How long anything here may take: it takes seconds, on a busy machine some more.
pub const PATIENCE: Duration = Duration::from_secs(90);

const LOOK_EVERY: Duration = Duration::from_millis(50);

static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Fails all waits of this process, now and later: whoever started it wants it to end.
pub fn give_up() {
    GIVEN_UP.store(true, Ordering::Relaxed);
}

/// Waits until `look` sees it.
///
/// # Errors
/// If it fails, or has not come after [`PATIENCE`], or if somebody has called [`give_up`].
pub fn until(what: &str, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !look()? {
        ensure!(!GIVEN_UP.load(Ordering::Relaxed), "given up: {what}");
        ensure!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
