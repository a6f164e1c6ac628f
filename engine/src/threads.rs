//! How libtorch's threads share a machine.

use std::convert::Infallible;
use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What tells libgomp how its threads wait for work: for how many turns of a loop
/// they look for it before they sleep.
const SPIN_COUNT: &str = "GOMP_SPINCOUNT";
/// The common name of the same, which comes first where somebody set it.
const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// As long as it takes from one product of a model's step to the next, some tenths of
/// a millisecond. Measured with four-bit weights of a small model on two cores, in
/// tokens a second alone and of each of two processes side by side: sleeping at once
/// gives 100 and 110, this 239 and 117, libgomp's own 300,000 gives 226 and 1.
const TURNS: &str = "10000";

/// Starts this program anew, with the same arguments and process id, so that
/// libtorch's threads soon sleep while they wait for work, unless the environment
/// says already how they wait. Call it first in `main`.
///
/// Left alone, they look for work so long that beside any other busy process both are
/// many times slower. libgomp reads the environment when the program is loaded, so
/// setting it later does nothing.
///
/// # Errors
/// When the program cannot be started anew; it can go on as it is.
pub fn wait_politely() -> io::Result<()> {
    if [SPIN_COUNT, WAIT_POLICY]
        .iter()
        .any(|name| env::var_os(name).is_some())
    {
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
    Err(command.args(arguments).env(SPIN_COUNT, TURNS).exec())
}

/// The number of threads to compute with where nobody says: one for each core.
pub(crate) fn default_count() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores).unwrap_or(1)
}
