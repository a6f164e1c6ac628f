//! Money for a market of real processes: a wallet for each who buys or sells.
//!
//! On a private regtest ([`Money::Regtest`]): a bitcoind, an `infernet-wallet` process for each name, a channel
//! between the first and each of the others, and between one called [`AGGREGATOR`], if the second is, and those. Where no bitcoind can be had, on wallets with play money that answer as
//! real ones do ([`Money::Play`]). Both are spoken to by NIP-47, with the connection strings that are told here.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use infernet_tests::{Lightning, Market, WALLET};
//!
//! let mut lightning = Lightning::start(&["buyer", "alpha"]).await?;
//! let before = lightning.balances().await?;
//! let market = Market::open()?;
//! let paid = [(WALLET, lightning.connection("alpha")?)];
//! let _alpha = market.provider_with(&paid, "alpha", &["--engine", "scripted"])?;
//! let buyer = market.client("buyer").with(WALLET, lightning.connection("buyer")?);
//! buyer.run(&["submit", "hello"])?;
//! lightning.kill("alpha")?;
//! lightning.restart("alpha")?;
//! lightning.add_up(&before).await?; // or an error that shows where money is missing
//! # Ok(())
//! # }
//! ```
//!
//! Starting, killing and restarting block their thread for seconds: use a runtime of several.

mod account;
mod balance;
mod payments;
mod play;
mod programs;
mod purse;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use infernet_payments::nip47;
use infernet_payments::rail::Payment;
use infernet_regtest::{Bitcoind, Network, Wallet};
use tempfile::TempDir;

pub use self::account::Account;
pub use self::balance::{Balance, Comparison};
pub use self::payments::{Made, made};
use self::play::Play;
pub use self::programs::Programs;
pub use self::purse::{Purse, Purses};
use crate::skip;

/// What a wallet is called that pays all the others too.
pub const AGGREGATOR: &str = "aggregator";

/// What the first wallet's connection may spend, and an aggregator's: a buyer's.
const BUYERS_BUDGET_SATS: &str = "100000";

/// What the others' may: providers pay nothing but what is left on a tab.
const PROVIDERS_BUDGET_SATS: &str = "10000";

/// What a connection may do: pay and be paid.
const METHODS: &str =
    "pay_invoice,make_invoice,lookup_invoice,list_transactions,get_balance,get_info";

/// What an aggregator's may do besides: hold.
const HOLDING: &str = "make_hold_invoice,settle_hold_invoice,cancel_hold_invoice";

/// Money that is on its way counts in no wallet; it arrives within this time, or never.
const ARRIVAL: Duration = Duration::from_secs(60);

/// How soon it is looked for again.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Which money it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Money {
    /// Bitcoin of a private regtest, in real channels.
    Regtest,
    /// Numbers in one process.
    Play,
}

/// What holds the wallets. It ends with this value.
enum House {
    Regtest(Network),
    Play { _program: Play },
}

/// Wallets that can pay each other. They end with this value.
pub struct Lightning {
    accounts: Vec<Account>,
    purses: Purses,
    house: House,
    _folder: Option<TempDir>,
}

impl Lightning {
    /// Starts a wallet for each name in a folder of its own; the first has a channel to each of the others. On a
    /// regtest, or loudly on play money.
    ///
    /// # Errors
    /// If they do not come up.
    pub async fn start(names: &[&str]) -> Result<Self> {
        let bitcoind = infernet_regtest::find();
        if let Err(why) = &bitcoind {
            eprintln!("PLAY MONEY instead of a regtest: {why}");
        }
        Self::start_in_a_folder(bitcoind.ok().as_deref(), names).await
    }

    /// The same for a test that needs a regtest: nothing, and a loud skip, where none can be had.
    ///
    /// # Errors
    /// If they do not come up.
    pub async fn start_regtest(test: &str, names: &[&str]) -> Result<Option<Self>> {
        match infernet_regtest::find() {
            Ok(bitcoind) => Ok(Some(Self::start_in_a_folder(Some(&bitcoind), names).await?)),
            Err(why) => {
                skip(test, &why.to_string());
                Ok(None)
            }
        }
    }

    /// The same on play money, wherever it is.
    ///
    /// # Errors
    /// If they do not come up.
    pub async fn start_play(names: &[&str]) -> Result<Self> {
        Self::start_in_a_folder(None, names).await
    }

    async fn start_in_a_folder(bitcoind: Option<&Path>, names: &[&str]) -> Result<Self> {
        let folder = TempDir::new()?;
        let programs = Programs::of_tests(bitcoind);
        let mut started = Self::start_at(folder.path(), &programs, names, &|_| ())?;
        started._folder = Some(folder);
        Ok(started)
    }

    /// Starts the wallets in a folder that is there, and tells `progress` how far it has come. Without a bitcoind
    /// among the programs they have play money. Blocks its thread, and needs a runtime.
    ///
    /// # Errors
    /// If they do not come up.
    pub fn start_at(
        folder: &Path,
        programs: &Programs,
        names: &[&str],
        progress: &dyn Fn(&str),
    ) -> Result<Self> {
        let (house, purses) = match &programs.bitcoind {
            Some(bitcoind) => {
                let hubs = 1 + usize::from(names.get(1) == Some(&AGGREGATOR));
                let program = &programs.wallet;
                let network = Network::start(bitcoind, program, folder, names, hubs, progress)?;
                let purses = connect(&network, &programs.wallet)?;
                (House::Regtest(network), purses)
            }
            None => {
                let (program, purses) = Play::start(folder, programs, names, progress)?;
                (House::Play { _program: program }, purses)
            }
        };
        let accounts = purses.open()?;
        Ok(Self {
            accounts,
            purses,
            house,
            _folder: None,
        })
    }

    /// Which money it is.
    pub fn money(&self) -> Money {
        self.purses.money
    }

    /// What another process needs to know the wallets by.
    pub fn purses(&self) -> &Purses {
        &self.purses
    }

    fn account(&self, name: &str) -> Result<&Account> {
        let named = self.accounts.iter().find(|account| account.name == name);
        named.with_context(|| format!("there is no wallet {name}"))
    }

    /// The connection string of a wallet, with a budget and the methods that a market needs.
    ///
    /// # Errors
    /// If there is no such wallet.
    pub fn connection(&self, name: &str) -> Result<&str> {
        Ok(&self.account(name)?.connection)
    }

    /// A wallet by NIP-47, which sees its whole history.
    ///
    /// # Errors
    /// If there is no such wallet.
    pub fn rail(&self, name: &str) -> Result<&nip47::Rail> {
        Ok(self.account(name)?.rail())
    }

    /// What a wallet owns.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn balance(&self, name: &str) -> Result<Balance> {
        self.account(name)?.balance().await
    }

    /// What each wallet owns, in the order of their names.
    ///
    /// # Errors
    /// If one does not answer.
    pub async fn balances(&self) -> Result<Vec<Balance>> {
        balances(&self.accounts).await
    }

    /// All payments of a wallet, to it and from it, unpaid invoices too, the oldest first.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn payments(&self, name: &str) -> Result<Vec<Payment>> {
        self.account(name)?.payments().await
    }

    /// Waits until all money has arrived: what the wallets owned before is what they own now and what routing cost.
    ///
    /// # Errors
    /// If it does not add up in time, with all the balances; or if a wallet does not answer.
    pub async fn add_up(&self, before: &[Balance]) -> Result<Comparison> {
        add_up(&self.accounts, before).await
    }

    /// Kills a wallet's process, as by SIGKILL.
    ///
    /// # Errors
    /// If there is no such process: play money has none.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        self.wallet(name)?.kill();
        Ok(())
    }

    /// Starts a wallet again and waits until it serves. Its channels come back a moment later: see
    /// [`Lightning::wait_usable`].
    ///
    /// # Errors
    /// If it still runs, or does not come up.
    pub fn restart(&mut self, name: &str) -> Result<()> {
        self.wallet(name)?.start()
    }

    /// Stops a wallet properly and starts it again, to die at a point: a name of `wallet/src/fault.rs`.
    ///
    /// # Errors
    /// If it does not stop, or does not come up.
    pub fn restart_to_die_at(&mut self, name: &str, point: &str) -> Result<()> {
        let wallet = self.wallet(name)?;
        wallet.stop()?;
        wallet.start_to_die_at(point)
    }

    /// Waits until a wallet has died by itself.
    ///
    /// # Errors
    /// If it lives on.
    pub fn wait_dead(&mut self, name: &str) -> Result<()> {
        self.wallet(name)?.wait_dead()
    }

    /// Waits until all wallets can use all their channels.
    ///
    /// # Errors
    /// If they cannot in time, or one does not run.
    pub fn wait_usable(&mut self) -> Result<()> {
        match &self.house {
            House::Regtest(network) => network.wait_usable(),
            House::Play { .. } => Ok(()),
        }
    }

    /// A wallet's process, for everything else that its command line can do.
    ///
    /// # Errors
    /// If there is none: play money has no processes.
    pub fn wallet(&mut self, name: &str) -> Result<&mut Wallet> {
        match &mut self.house {
            House::Regtest(network) => network.wallet(name),
            House::Play { .. } => bail!("play money has no process for each wallet"),
        }
    }

    /// The chain, to mine on.
    ///
    /// # Errors
    /// If there is none: play money has no chain.
    pub fn chain(&self) -> Result<&Bitcoind> {
        match &self.house {
            House::Regtest(network) => Ok(&network.bitcoind),
            House::Play { .. } => bail!("play money has no chain"),
        }
    }
}

/// What each of these wallets owns.
///
/// # Errors
/// If one does not answer.
pub async fn balances(accounts: &[Account]) -> Result<Vec<Balance>> {
    let asked = accounts.iter().map(Account::balance);
    futures::future::try_join_all(asked).await
}

/// As [`Lightning::add_up`].
///
/// # Errors
/// As there.
pub async fn add_up(accounts: &[Account], before: &[Balance]) -> Result<Comparison> {
    let deadline = tokio::time::Instant::now() + ARRIVAL;
    loop {
        let comparison = Comparison::of(before, &balances(accounts).await?)?;
        if comparison.adds_up() {
            return Ok(comparison);
        }
        if tokio::time::Instant::now() > deadline {
            bail!("the balances do not add up:\n{comparison}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Makes the connections: one to use, with a budget, and one that sees everything.
fn connect(network: &Network, program: &Path) -> Result<Purses> {
    let mut purses = Vec::new();
    for (index, wallet) in network.wallets.iter().enumerate() {
        let holds = wallet.name == AGGREGATOR;
        let budget = match index == 0 || holds {
            true => BUYERS_BUDGET_SATS,
            false => PROVIDERS_BUDGET_SATS,
        };
        let methods = match holds {
            true => format!("{METHODS},{HOLDING}"),
            false => METHODS.to_owned(),
        };
        let may = [
            "--methods",
            &methods,
            "--budget-sats",
            budget,
            "--per",
            "day",
        ];
        let sees = ["--methods", METHODS, "--whole-history"];
        purses.push(Purse {
            name: wallet.name.clone(),
            connection: wallet.connect(&[&["--name", "market"][..], &may].concat())?,
            watch: wallet.connect(&[&["--name", "watch"][..], &sees].concat())?,
            home: Some(wallet.home.clone()),
        });
    }
    Ok(Purses {
        money: Money::Regtest,
        program: program.to_owned(),
        purses,
    })
}
