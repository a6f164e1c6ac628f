//! One provider and one buyer with money, on a relay of their own.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use infernet_payments::PaymentHash;
use infernet_tests::lightning::Balance;
use infernet_tests::{Client, Lightning, Market, Process, WALLET, binary};
use nostr::EventId;

/// How long a job, or the end of a process, may take.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The wallets.
pub const BUYER: &str = "buyer";
pub const SELLER: &str = "alpha";

/// The variables that name the points at which they die.
const PROVIDER: &str = "INFERNET_PROVIDER_DIES_AT";
pub const CLIENT: &str = "INFERNET_CLIENT_DIES_AT";

/// How soon is asked again for what could not be had.
const RETRY: Duration = Duration::from_secs(2);

/// What a token of output costs, in msat. One of input costs 1.
pub const OUTPUT_MSAT: i64 = 200;

/// How long the answer is, in tokens: 32 sat, so that there are several top-ups.
pub const ANSWER: usize = 160;

/// The most that the buyer pays ahead, in sat.
pub const RISK_SATS: i64 = 30;

/// The most credit that a buyer with such small jobs can have grown to, in msat.
pub const CREDIT_MSAT: i64 = 20_000;

/// Whether a test is left to `make faults`: `make test` runs a spread.
pub fn is_left_out(test: &str) -> bool {
    let runs_all = std::env::var("INFERNET_FAULTS").is_ok_and(|which| which == "all");
    if !runs_all {
        println!("{test} is run by make faults");
    }
    !runs_all
}

/// The wallets of a buyer and a seller; none, and a loud skip, where there is no regtest.
pub async fn wallets(test: &str) -> Option<Lightning> {
    let started = Lightning::start_regtest(test, &[BUYER, SELLER]).await;
    started.expect("the wallets do not start")
}

/// A word for each token of the answer.
pub fn answer() -> String {
    let words = (0..ANSWER).map(|n| format!("word{n}"));
    words.collect::<Vec<_>>().join(" ")
}

/// A market with a provider that is paid, and the wallets as they were before.
pub struct Shop {
    pub market: Market,
    pub provider: Process,
    /// What the provider is started with.
    extra: Vec<String>,
    sellers_wallet: String,
    buyers_wallet: String,
    pub before: Vec<Balance>,
    /// Payments that were there before.
    pub old: BTreeSet<PaymentHash>,
}

impl Shop {
    /// Opens it; the provider dies at a point, if one is named.
    ///
    /// # Errors
    /// If something does not come up.
    pub async fn open(lightning: &Lightning, dies_at: Option<&str>) -> Result<Self> {
        let speed = ["--scripted-speed", "80"];
        Self::open_with(lightning, dies_at, &speed).await
    }

    /// The same with further arguments for the provider.
    ///
    /// # Errors
    /// If something does not come up.
    pub async fn open_with(
        lightning: &Lightning,
        dies_at: Option<&str>,
        extra: &[&str],
    ) -> Result<Self> {
        let mut old = BTreeSet::new();
        for name in [BUYER, SELLER] {
            let payments = lightning.payments(name).await?;
            old.extend(payments.into_iter().map(|payment| payment.hash));
        }
        let before = lightning.balances().await?;
        let market = Market::open()?;
        let extra: Vec<_> = extra.iter().map(|one| (*one).to_owned()).collect();
        let sellers_wallet = lightning.connection(SELLER)?.to_owned();
        let provider = start(&market, &sellers_wallet, &extra, dies_at)?;
        let settings = market.folder(BUYER).join("client");
        std::fs::create_dir_all(&settings)?;
        let risk = format!("risk_sats = {RISK_SATS}\n");
        std::fs::write(settings.join("client.toml"), risk)?;
        Ok(Self {
            market,
            provider,
            extra,
            sellers_wallet,
            buyers_wallet: lightning.connection(BUYER)?.to_owned(),
            before,
            old,
        })
    }

    /// The buyer, at its next start.
    pub fn buyer(&self) -> Client {
        self.market.client(BUYER).with(WALLET, &self.buyers_wallet)
    }

    /// Starts the provider again in the same home.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart_provider(&mut self) -> Result<()> {
        self.provider = start(&self.market, &self.sellers_wallet, &self.extra, None)?;
        Ok(())
    }

    /// Runs a command of the provider's beside it; answers the JSON that it prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn provider_says(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut command = Command::new(binary("infernet-provider"));
        command
            .args(arguments)
            .env("INFERNET_HOME", self.market.folder(SELLER))
            .env(WALLET, &self.sellers_wallet);
        let mut process = Process::start("provider command", &mut command)?;
        let status = process.ended(PATIENCE)?;
        ensure!(
            status.success(),
            "provider {arguments:?}: {}{}",
            process.stdout(),
            process.stderr()
        );
        serde_json::from_str(&process.stdout()).context("no JSON")
    }

    /// Has all that is left on the tab paid back.
    ///
    /// # Errors
    /// If it is not in time.
    pub fn closes_the_tab(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let closed = self.buyer().run(&["tab", "close", "all", "--json"])?;
            if closed.status.success() {
                return Ok(());
            }
            if Instant::now() >= until {
                bail!("the tab is not closed: {}{}", closed.stdout, closed.stderr);
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Buys an answer to its end. What cannot be had at once is asked for again: the other side may have come back a
    /// moment ago. Answers the job's id.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn buys(&self) -> Result<EventId> {
        let until = Instant::now() + PATIENCE;
        loop {
            let done = self.buyer().run(&submit(&["--json"]))?;
            if done.status.success() {
                let told: serde_json::Value = serde_json::from_str(&done.stdout)?;
                ensure!(told["text"] == answer(), "another answer: {told}");
                let job = told["job"].as_str().context("a job has an id")?;
                return Ok(EventId::from_hex(job)?);
            }
            if Instant::now() >= until {
                bail!("no job is done any more: {}{}", done.stdout, done.stderr);
            }
            eprintln!("a job is tried again: {}{}", done.stdout, done.stderr);
            std::thread::sleep(RETRY);
        }
    }
}

/// The command line of a job.
pub fn submit<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut line = vec!["submit", "--max-price", "1000000:200000000"];
    line.extend(["--max-sats", "200", "--max-tokens", "160"]);
    if !more.contains(&"--deadline") {
        line.extend(["--deadline", "60"]);
    }
    line.extend(more);
    line.push("hello");
    line
}

fn start(
    market: &Market,
    wallet: &str,
    extra: &[String],
    dies_at: Option<&str>,
) -> Result<Process> {
    let mut environment = vec![(WALLET, wallet)];
    environment.extend(dies_at.map(|point| (PROVIDER, point)));
    let text = answer();
    let mut arguments = vec!["--engine", "scripted", "--scripted-text", &text];
    arguments.extend(["--price-in", "1000000", "--price-out", "200000000"]);
    arguments.extend(extra.iter().map(String::as_str));
    let provider = market.provider_with(&environment, SELLER, &arguments)?;
    Ok(provider.process)
}
