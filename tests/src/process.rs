//! One process of a test: its output is gathered, its end is certain.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

#[derive(Default)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// How many of the two streams have ended.
    ended: u8,
}

type Shared = Arc<(Mutex<Output>, Condvar)>;

/// A running process of one of the binaries. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    output: Shared,
}

impl Process {
    /// Starts a command and gathers what it says.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let output = Shared::default();
        if let Some(stdout) = child.stdout.take() {
            gather(stdout, output.clone(), |output| &mut output.stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            gather(stderr, output.clone(), |output| &mut output.stderr);
        }
        let name = name.to_owned();
        Ok(Self {
            name,
            child,
            output,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output.
    pub fn stdout(&self) -> String {
        text(&lock(&self.output).stdout)
    }

    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        text(&lock(&self.output).stderr)
    }

    /// Waits until standard output fulfils a condition; answers what was found.
    ///
    /// # Errors
    /// If it has not by the deadline, or the process ended without.
    pub fn wait_stdout<T>(&self, within: Duration, found: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.wait(within, |output| found(&text(&output.stdout)))
    }

    /// The same for standard error.
    ///
    /// # Errors
    /// As [`Process::wait_stdout`].
    pub fn wait_stderr<T>(&self, within: Duration, found: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.wait(within, |output| found(&text(&output.stderr)))
    }

    fn wait<T>(&self, within: Duration, found: impl Fn(&Output) -> Option<T>) -> Result<T> {
        let until = Instant::now() + within;
        let mut output = lock(&self.output);
        loop {
            if let Some(found) = found(&output) {
                return Ok(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || output.ended == 2 {
                bail!(
                    "{} did not say what was waited for; it said:\n{}\n{}",
                    self.name,
                    text(&output.stdout),
                    text(&output.stderr)
                );
            }
            output = match self.output.1.wait_timeout(output, left) {
                Ok((output, _)) => output,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Sends a signal by name, `INT` or `KILL` for instance.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill")
            .args(["-s", signal, &self.id().to_string()])
            .status()?;
        match status.success() {
            true => Ok(()),
            false => bail!("{} takes no signal {signal}", self.name),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it has not ended by the deadline.
    pub fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        // Its streams close when it ends; only then is there anything to reap.
        let closed = self.wait(within, |output| (output.ended == 2).then_some(()));
        if closed.is_err() {
            bail!("{} has not ended; it said:\n{}", self.name, self.stderr());
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- {} said:\n{}{}",
                self.name,
                self.stdout(),
                self.stderr()
            );
        }
    }
}

/// What a stream has said so far. A character of which only a part has come shows
/// as �, until the rest is there.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Output> {
    shared
        .0
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Reads a stream on a thread of its own: bytes as they come, since an answer
/// streams without line ends.
fn gather(
    stream: impl Read + Send + 'static,
    shared: Shared,
    field: impl Fn(&mut Output) -> &mut Vec<u8> + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        loop {
            let bytes = match stream.fill_buf() {
                Ok([]) | Err(_) => break,
                Ok(bytes) => bytes.to_vec(),
            };
            stream.consume(bytes.len());
            field(&mut lock(&shared)).extend(bytes);
            shared.1.notify_all();
        }
        lock(&shared).ended += 1;
        shared.1.notify_all();
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_character_that_comes_in_two_parts_is_whole() {
        let folder = tempfile::TempDir::new().unwrap();
        let heard = folder.path().join("heard");
        let script = "printf '\\303'; until [ -e \"$0\" ]; do sleep 0.01; done; printf '\\251'";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&heard);
        let process = Process::start("sh", &mut command).unwrap();
        let soon = Duration::from_secs(10);
        let some = |said: &str| (!said.is_empty()).then_some(());
        process.wait_stdout(soon, some).unwrap();
        std::fs::write(&heard, "").unwrap();
        let whole = |said: &str| (said == "é").then_some(());
        process.wait_stdout(soon, whole).unwrap();
    }
}
