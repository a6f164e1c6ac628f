//! An aggregator between a buyer and two providers, on a relay of their own, each with a wallet.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use infernet_payments::Ledger;
use infernet_tests::lightning::Balance;
use infernet_tests::{Client, Lightning, Market, Process, Provider, WALLET, binary};

/// The wallets, in this order: an aggregator is the second.
pub const BUYER: &str = "buyer";
pub const AGGREGATOR: &str = "aggregator";
pub const PROVIDERS: [&str; 2] = ["alpha", "beta"];
pub const WALLETS: [&str; 4] = [BUYER, AGGREGATOR, PROVIDERS[0], PROVIDERS[1]];

/// The variables that name the points at which they die.
const AGGREGATOR_DIES: &str = "INFERNET_AGGREGATOR_DIES_AT";
const CLIENT_DIES: &str = "INFERNET_CLIENT_DIES_AT";
const PROVIDER_DIES: &str = "INFERNET_PROVIDER_DIES_AT";

/// How long a batch, or the end of a process, may take.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Lines of a batch.
pub const LINES: usize = 12;

/// A word for each token of an answer.
const ANSWER: &str = "one two three four five six seven eight nine ten eleven twelve";

/// Tokens a second of a provider, and of one that takes half a minute for a shard.
pub const SPEED: &str = "200";
pub const SLOW: &str = "0.4";

/// Where each dies.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dies {
    pub aggregator: Option<&'static str>,
    pub client: Option<&'static str>,
    pub provider: Option<&'static str>,
}

/// All of them.
pub struct Bazaar {
    pub market: Market,
    pub aggregator: Process,
    pub providers: Vec<Provider>,
    pub before: Vec<Balance>,
    connections: Vec<(&'static str, String)>,
    npub: String,
}

impl Bazaar {
    /// Opens it.
    ///
    /// # Errors
    /// If something does not come up.
    pub async fn open(lightning: &Lightning, dies: Dies) -> Result<Self> {
        let mut bazaar = Self::open_without_providers(lightning, dies).await?;
        for (name, dies_at) in PROVIDERS.into_iter().zip([dies.provider, None]) {
            bazaar.add_provider(name, dies_at, SPEED)?;
        }
        Ok(bazaar)
    }

    /// Opens it, with nobody in it who would do any work.
    ///
    /// # Errors
    /// If something does not come up.
    pub async fn open_without_providers(lightning: &Lightning, dies: Dies) -> Result<Self> {
        let before = lightning.balances().await?;
        let market = Market::open()?;
        let connections = WALLETS.map(|name| Ok((name, lightning.connection(name)?.to_owned())));
        let connections: Vec<_> = connections.into_iter().collect::<Result<_>>()?;
        let aggregator = start(&market, &connections, dies.aggregator)?;
        let npub = aggregator.wait_stdout(PATIENCE, npub)?;
        let bazaar = Self {
            market,
            aggregator,
            providers: Vec::new(),
            before,
            connections,
            npub,
        };
        bazaar.write_input()?;
        Ok(bazaar)
    }

    /// Starts a provider of so many tokens a second.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn add_provider(&mut self, name: &str, dies_at: Option<&str>, speed: &str) -> Result<()> {
        let provider = self.start_provider(name, dies_at, speed)?;
        self.providers.push(provider);
        Ok(())
    }

    fn connection(&self, name: &str) -> Result<&str> {
        connection(&self.connections, name)
    }

    fn start_provider(&self, name: &str, dies_at: Option<&str>, speed: &str) -> Result<Provider> {
        let mut environment = vec![(WALLET, self.connection(name)?)];
        environment.extend(dies_at.map(|point| (PROVIDER_DIES, point)));
        let arguments = [
            "--engine",
            "scripted",
            "--scripted-text",
            ANSWER,
            "--scripted-speed",
            speed,
            "--price-in",
            "1000000",
            "--price-out",
            "400000000",
            "--escrow",
            &self.npub,
            "--max-owed",
            "1000",
        ];
        self.market.provider_with(&environment, name, &arguments)
    }

    /// Starts a provider again in the same home.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart_provider(&mut self) -> Result<()> {
        self.providers[0] = self.start_provider(PROVIDERS[0], None, SPEED)?;
        Ok(())
    }

    /// Starts the aggregator again in the same home.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart_aggregator(&mut self) -> Result<()> {
        self.aggregator = start(&self.market, &self.connections, None)?;
        self.aggregator.wait_stdout(PATIENCE, npub)?;
        Ok(())
    }

    fn write_input(&self) -> Result<()> {
        let line = |number: usize| {
            format!(
                r#"{{"custom_id":"line-{number}","method":"POST","url":"/v1/chat/completions","body":{{"model":"scripted","max_tokens":20,"messages":[{{"role":"user","content":"say {number}"}}]}}}}"#
            )
        };
        let lines: Vec<_> = (0..LINES).map(line).collect();
        std::fs::write(self.input(), lines.join("\n") + "\n")?;
        Ok(())
    }

    fn input(&self) -> PathBuf {
        self.market.folder("input.jsonl")
    }

    pub fn output(&self) -> PathBuf {
        self.market.folder("output.jsonl")
    }

    fn client(&self) -> Result<Client> {
        let client = self.market.client(BUYER);
        Ok(client.with(WALLET, self.connection(BUYER)?))
    }

    /// Starts the batch, or goes on with it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn batch(&self, dies_at: Option<&str>) -> Result<Process> {
        let mut client = self.client()?;
        if let Some(point) = dies_at {
            client = client.with(CLIENT_DIES, point);
        }
        let (input, output) = (self.input(), self.output());
        client.start(&[
            "batch",
            &input.to_string_lossy(),
            "--output",
            &output.to_string_lossy(),
            "--yes",
            "--max-sats",
            "500",
            "--max-price",
            "1000000:400000000",
            "--checking",
            "none",
            "--deadline",
            "600",
            "--json",
        ])
    }

    /// Whether a role's ledger and its wallet agree, by its own command.
    ///
    /// # Errors
    /// If they do not.
    pub fn reconciles(&self, name: &str) -> Result<()> {
        let (program, home) = match name {
            AGGREGATOR => ("infernet-aggregator", "INFERNET_AGGREGATOR_HOME"),
            BUYER => ("infernet-client", "INFERNET_HOME"),
            _ => ("infernet-provider", "INFERNET_HOME"),
        };
        let mut command = Command::new(binary(program));
        command
            .arg("reconcile")
            .env(home, self.market.folder(name))
            .env(WALLET, self.connection(name)?);
        let mut process = Process::start(name, &mut command)?;
        let status = process.ended(PATIENCE)?;
        let said = (process.stdout(), process.stderr());
        ensure!(status.success(), "{name}: {}{}", said.0, said.1);
        Ok(())
    }

    /// A role's ledger, beside its process.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn ledger(&self, name: &str) -> Result<Ledger> {
        let folder = self.market.folder(name);
        let folder = match name {
            AGGREGATOR => folder,
            BUYER => folder.join("client"),
            _ => folder.join("provider"),
        };
        Ok(Ledger::open(&folder.join("ledger.sqlite")).await?)
    }
}

fn connection<'a>(all: &'a [(&str, String)], name: &str) -> Result<&'a str> {
    let named = all.iter().find(|(of, _)| *of == name);
    Ok(&named.context("there is no such wallet")?.1)
}

fn start(
    market: &Market,
    connections: &[(&'static str, String)],
    dies_at: Option<&str>,
) -> Result<Process> {
    let mut command = Command::new(binary("infernet-aggregator"));
    command
        .args(["start", "--name", "agora", "--relay", &market.relay.url])
        .args(["--shard-tokens", "128", "--margin-s", "10"])
        .env("INFERNET_AGGREGATOR_HOME", market.folder(AGGREGATOR))
        .env(WALLET, connection(connections, AGGREGATOR)?)
        .envs(dies_at.map(|point| (AGGREGATOR_DIES, point)));
    Process::start(AGGREGATOR, &mut command)
}

fn npub(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("ready: ")?;
    Some(rest.split_whitespace().next()?.to_owned())
}
