//! One process of a test: its output is gathered, its end is certain.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

#[derive(Default)]
struct Output {
    stdout: String,
    stderr: String,
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
        lock(&self.output).stdout.clone()
    }

    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        lock(&self.output).stderr.clone()
    }

    /// Waits until standard output fulfils a condition; answers what was found.
    ///
    /// # Errors
    /// If it has not by the deadline, or the process ended without.
    pub fn wait_stdout<T>(&self, within: Duration, found: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.wait(within, |output| found(&output.stdout))
    }

    /// The same for standard error.
    ///
    /// # Errors
    /// As [`Process::wait_stdout`].
    pub fn wait_stderr<T>(&self, within: Duration, found: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.wait(within, |output| found(&output.stderr))
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
                    output.stdout,
                    output.stderr
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
    field: impl Fn(&mut Output) -> &mut String + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        loop {
            let bytes = match stream.fill_buf() {
                Ok([]) | Err(_) => break,
                Ok(bytes) => bytes.to_vec(),
            };
            stream.consume(bytes.len());
            field(&mut lock(&shared)).push_str(&String::from_utf8_lossy(&bytes));
            shared.1.notify_all();
        }
        lock(&shared).ended += 1;
        shared.1.notify_all();
    });
}
