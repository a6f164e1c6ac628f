//! A whole market of real processes: a relay, providers, a buyer.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{Process, binary};

/// How long a process may take to be ready: a debug build loads a real model in
/// seconds, on a busy machine in some more.
const READY: Duration = Duration::from_secs(180);

/// The variable that connects a provider or a client to its wallet.
pub const WALLET: &str = "INFERNET_WALLET";

/// A relay's settings, in its folder.
const SETTINGS: &str = "relay.toml";

/// A relay, and whoever joins it.
pub struct Market {
    /// The relay.
    pub relay: Relay,
    home: TempDir,
}

impl Market {
    /// Starts a relay.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn open() -> Result<Self> {
        Self::open_with("")
    }

    /// Starts a relay with such settings (TOML).
    ///
    /// # Errors
    /// If it does not come up.
    pub fn open_with(settings: &str) -> Result<Self> {
        let home = TempDir::new()?;
        let folder = home.path().join("relay");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(SETTINGS), settings)?;
        let relay = Relay::start(folder, "127.0.0.1:0")?;
        Ok(Self { relay, home })
    }

    /// A folder of the market's own.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Starts a provider and waits until it is announced.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn provider(&self, name: &str, arguments: &[&str]) -> Result<Provider> {
        self.provider_with(&[], name, arguments)
    }

    /// The same with variables of the environment.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn provider_with(
        &self,
        environment: &[(&str, &str)],
        name: &str,
        arguments: &[&str],
    ) -> Result<Provider> {
        let provider = self.launch_provider_with(environment, name, arguments)?;
        provider
            .process
            .wait_stdout(READY, |said| said.contains("ready:").then_some(()))?;
        Ok(provider)
    }

    /// Starts a provider without waiting for it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch_provider(&self, name: &str, arguments: &[&str]) -> Result<Provider> {
        self.launch_provider_with(&[], name, arguments)
    }

    /// The same with variables of the environment: [`WALLET`], for one that is paid.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch_provider_with(
        &self,
        environment: &[(&str, &str)],
        name: &str,
        arguments: &[&str],
    ) -> Result<Provider> {
        let (process, home) = self.launch("infernet-provider", environment, name, arguments)?;
        Ok(Provider {
            process,
            home,
            name: name.to_owned(),
        })
    }

    /// Starts a program that sells here, in a home of its own.
    fn launch(
        &self,
        program: &str,
        environment: &[(&str, &str)],
        name: &str,
        arguments: &[&str],
    ) -> Result<(Process, PathBuf)> {
        let home = self.folder(name);
        let mut command = Command::new(binary(program));
        command
            .args(["start", "--name", name, "--relay", &self.relay.url])
            .args(arguments)
            .env("INFERNET_HOME", &home)
            .envs(environment.iter().copied());
        Ok((Process::start(name, &mut command)?, home))
    }

    /// A provider with a scripted engine.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn scripted_provider(&self, name: &str, arguments: &[&str]) -> Result<Provider> {
        let mut all = vec!["--engine", "scripted"];
        all.extend(arguments);
        self.provider(name, &all)
    }

    /// Starts an aggregator and waits until it is announced.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn aggregator(&self, name: &str, arguments: &[&str]) -> Result<Aggregator> {
        self.aggregator_with(&[], name, arguments)
    }

    /// The same with variables of the environment: [`WALLET`], for one that holds money.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn aggregator_with(
        &self,
        environment: &[(&str, &str)],
        name: &str,
        arguments: &[&str],
    ) -> Result<Aggregator> {
        let (process, home) = self.launch("infernet-aggregator", environment, name, arguments)?;
        process.wait_stdout(READY, |said| said.contains("ready:").then_some(()))?;
        Ok(Aggregator { process, home })
    }

    /// A buyer with a key of its own.
    pub fn client(&self, name: &str) -> Client {
        Client {
            home: self.folder(name),
            relays: self.relay.url.clone(),
            environment: Vec::new(),
        }
    }
}

/// A running relay.
pub struct Relay {
    /// Its process.
    pub process: Process,
    /// Its address, as clients use it.
    pub url: String,
    folder: PathBuf,
}

impl Relay {
    /// Starts a relay on an address over a folder, with the settings that lie there.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(folder: PathBuf, address: &str) -> Result<Self> {
        Self::launch(Command::new(binary("infernet-relay")), folder, address)
    }

    /// The same with a command that may have arguments of its own.
    ///
    /// # Errors
    /// If it does not come up.
    pub(crate) fn launch(mut command: Command, folder: PathBuf, address: &str) -> Result<Self> {
        command.args(["--listen", address, "--data"]).arg(&folder);
        let settings = folder.join(SETTINGS);
        if settings.exists() {
            command.arg("--config").arg(settings);
        }
        let process = Process::start("relay", &mut command)?;
        let url = process.wait_stdout(READY, |said| {
            let (_, rest) = said.split_once("listening on ")?;
            let (url, _) = rest.split_once('\n')?;
            Some(url.trim().to_owned())
        })?;
        Ok(Self {
            process,
            url,
            folder,
        })
    }

    /// Kills the relay, without warning.
    ///
    /// # Errors
    /// If it does not die.
    pub fn kill(&mut self) -> Result<()> {
        self.process.signal("KILL")?;
        self.process.ended(READY)?;
        Ok(())
    }

    /// Starts it again where it was.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        let address = self.url.trim_start_matches("ws://").trim_end_matches('/');
        *self = Self::start(self.folder.clone(), address)?;
        Ok(())
    }

    /// Kills it, and starts it again with other settings (TOML).
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart_with(&mut self, settings: &str) -> Result<()> {
        self.kill()?;
        std::fs::write(self.folder.join(SETTINGS), settings)?;
        self.restart()
    }
}

/// A running provider.
pub struct Provider {
    /// Its process.
    pub process: Process,
    /// Its folder.
    pub home: PathBuf,
    /// What it is called.
    pub name: String,
}

/// A running aggregator.
pub struct Aggregator {
    /// Its process.
    pub process: Process,
    /// Its folder.
    pub home: PathBuf,
}

impl Aggregator {
    /// What it answers its owner, as JSON: `status`, `jobs`, `providers`, `ledger`.
    ///
    /// # Errors
    /// If it does not answer, or answers no JSON.
    pub fn ask(&self, command: &str) -> Result<serde_json::Value> {
        let output = Command::new(binary("infernet-aggregator"))
            .args([command, "--json"])
            .env("INFERNET_HOME", &self.home)
            .output()?;
        anyhow::ensure!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// A buyer: runs `infernet-client` with a folder of its own.
pub struct Client {
    home: PathBuf,
    relays: String,
    environment: Vec<(String, String)>,
}

/// A run of the client that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Client {
    /// The same client with a variable of the environment: [`WALLET`], for one that pays.
    #[must_use]
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.environment.push((variable.into(), value.into()));
        self
    }

    /// Starts the client with these arguments.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(binary("infernet-client"));
        command
            .args(arguments)
            .env("INFERNET_HOME", &self.home)
            .env("INFERNET_RELAYS", &self.relays)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::start("client", &mut command)
    }

    /// Runs the client to its end.
    ///
    /// # Errors
    /// If it has not ended within five minutes: longer than any job may take.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        let mut process = self.start(arguments)?;
        let status = process.ended(Duration::from_secs(300))?;
        Ok(Finished {
            status,
            stdout: process.stdout(),
            stderr: process.stderr(),
        })
    }

    /// Runs the client, which must succeed, and reads the JSON it prints.
    ///
    /// # Errors
    /// If it fails or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let finished = self.run(arguments)?;
        anyhow::ensure!(
            finished.status.success(),
            "{arguments:?} failed: {}",
            finished.stderr
        );
        serde_json::from_str(&finished.stdout)
            .with_context(|| format!("no JSON: {}", finished.stdout))
    }
}
