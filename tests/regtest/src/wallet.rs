//! A wallet's process.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, TryRecvError};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::wait::until;
use crate::{Bitcoind, free_port};

/// The variable that names the point at which a debug build of the wallet dies: see `wallet/src/fault.rs`.
const DIES_AT: &str = "INFERNET_WALLET_DIES_AT";

/// How much of its log is shown when something fails, in lines.
const LAST_WORDS: usize = 60;

/// A wallet in a folder of its own. Its process is killed with this value.
pub struct Wallet {
    /// What it is called.
    pub name: String,
    /// Its folder; its log is the file `log` in it.
    pub home: PathBuf,
    program: PathBuf,
    child: Option<Child>,
}

impl Wallet {
    /// A wallet that is there already, and may run for somebody else.
    pub fn at(program: &Path, home: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            home: home.to_owned(),
            program: program.to_owned(),
            child: None,
        }
    }

    /// Makes a wallet on a chain; it does not run yet. `more` are further arguments of `init`.
    ///
    /// # Errors
    /// If `infernet-wallet init` fails.
    pub fn init(
        program: &Path,
        home: &Path,
        name: &str,
        chain: &Bitcoind,
        more: &[&str],
    ) -> Result<Self> {
        let wallet = Self::at(program, home, name);
        let listen = format!("127.0.0.1:{}", free_port()?);
        let mut init = vec!["init", "--network", "regtest"];
        let url = chain.url();
        init.extend(["--bitcoind", &url, "--listen", &listen, "--alias", name]);
        init.extend(more);
        wallet.cli(&init)?;
        wallet.keep_its_relay_in_place()?;
        Ok(wallet)
    }

    /// Connection strings name the port of the wallet's own relay: it has to be free again after a kill.
    fn keep_its_relay_in_place(&self) -> Result<()> {
        let settings = self.home.join("wallet.toml");
        let rest = std::fs::read_to_string(&settings)?;
        let relay = format!("relay = \"127.0.0.1:{}\"\n{rest}", free_port()?);
        Ok(std::fs::write(settings, relay)?)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(&self.home).args(args);
        command.env_remove(DIES_AT).stdin(Stdio::null());
        command
    }

    /// The id of its process, if it was started here and not ended.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// If it does not.
    pub fn start(&mut self) -> Result<()> {
        self.begin(None)
    }

    /// Starts it, to die at a point: a name of `wallet/src/fault.rs`.
    ///
    /// # Errors
    /// If it does not come to serve.
    pub fn start_to_die_at(&mut self, point: &str) -> Result<()> {
        self.begin(Some(point))
    }

    fn begin(&mut self, dies_at: Option<&str>) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let mut command = self.command(&["start"]);
        command.envs(dies_at.map(|point| (DIES_AT, point)));
        command.stdout(Stdio::piped()).stderr(self.open_log()?);
        let mut child = command.spawn().context("the wallet does not start")?;
        let said = child.stdout.take().context("its output is piped")?;
        self.child = Some(child);
        let lines = lines(said);
        let ready = until("the wallet", || match lines.try_recv() {
            Ok(line) => Ok(line.starts_with("ready ")),
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => bail!("it has ended"),
        });
        ready.with_context(|| format!("{} does not start:\n{}", self.name, self.last_words()))
    }

    fn open_log(&self) -> Result<File> {
        let log = self.home.join("log");
        Ok(OpenOptions::new().create(true).append(true).open(log)?)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }

    /// Runs its command line; answers what it prints.
    ///
    /// # Errors
    /// With what it says, if it fails.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => bail!("{} {}: {}", self.name, args[0], text(&output.stderr)),
        }
    }

    /// How it stands: `status --json`.
    ///
    /// # Errors
    /// If it does not run.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.cli(&["status", "--json"])?)?)
    }

    /// `node@host:port`.
    ///
    /// # Errors
    /// If it does not run.
    pub fn address(&self) -> Result<String> {
        let status = self.status()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let node = text(&status["node"]).context("it names its node")?;
        let place = text(&status["listen"][0]).context("it listens")?;
        Ok(format!("{node}@{place}"))
    }

    /// Whether all its channels can be used, and there is one.
    ///
    /// # Errors
    /// If it does not run.
    pub fn is_usable(&self) -> Result<bool> {
        let status = self.status()?;
        let channels = status["channels"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(!channels.is_empty() && channels.iter().all(|channel| channel["usable"] == true))
    }

    /// Makes a connection; answers its string.
    ///
    /// # Errors
    /// If the wallet refuses.
    pub fn connect(&self, args: &[&str]) -> Result<String> {
        self.cli(&[&["connect"], args].concat())
    }

    /// Kills it, as by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until it has died by itself.
    ///
    /// # Errors
    /// If it lives on, or did not run.
    pub fn wait_dead(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        let died = until(&format!("{}'s end", self.name), || {
            Ok(child.try_wait()?.is_some())
        });
        if died.is_err() {
            self.child = Some(child);
        }
        died
    }

    /// Stops it properly.
    ///
    /// # Errors
    /// If it does not stop.
    pub fn stop(&mut self) -> Result<()> {
        self.cli(&["stop"])?;
        self.wait_dead()
    }
}

/// The lines of an output, which is read to its end: a pipe that nobody reads would stop its writer.
fn lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = said.send(line);
        }
    });
    heard
}

impl Drop for Wallet {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- {} ----\n{}", self.name, self.last_words());
        }
    }
}
