//! How libtorch's threads share a machine.

use std::convert::Infallible;
use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What tells libgomp how its threads wait for work.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// Starts this program anew, with the same arguments and process id, so that
/// libtorch's threads sleep while they wait for work, unless the environment
/// says already how they wait. Call it first in `main`.
///
/// Left alone, they spin. On a machine of its own that is the fastest; beside
/// any other busy process it is many times slower for both. libgomp reads the
/// environment when the program is loaded, so setting it later does nothing.
///
/// # Errors
/// When the program cannot be started anew; it can go on as it is.
pub fn wait_politely() -> io::Result<()> {
    if env::var_os(WAIT_POLICY).is_some() {
        return Ok(());
    }
    restart().map(|never| match never {})
}

/// Replaces this process by itself.
fn restart() -> io::Result<Infallible> {
    let mut arguments = env::args_os();
    let name = arguments.next();
    let mut command = Command::new(env::current_exe()?);
    if let Some(name) = name {
        command.arg0(name);
    }
    Err(command.args(arguments).env(WAIT_POLICY, "PASSIVE").exec())
}

/// The number of threads to compute with where nobody says: one for each core.
pub(crate) fn default_count() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores).unwrap_or(1)
}
