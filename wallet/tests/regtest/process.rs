//! A wallet's process, and two of them with a channel between them. What fails here fails the test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use infernet_regtest::{Network, Wallet};
use infernet_wallet::fault;
use infernet_wallet::nip47::ConnectionString;
use serde_json::Value;
use tempfile::TempDir;

use crate::bitcoind::{self, Bitcoind};

pub const EXECUTABLE: &str = env!("CARGO_BIN_EXE_infernet-wallet");
pub const PATIENCE: Duration = infernet_regtest::PATIENCE;

/// A wallet that dies with this value.
pub struct Process {
    pub home: PathBuf,
    wallet: Wallet,
    _folder: Option<TempDir>,
}

impl Process {
    /// Makes a wallet in a folder of its own; it does not run yet.
    pub fn init(name: &str, bitcoind: &Bitcoind, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = Path::new(EXECUTABLE);
        let wallet = Wallet::init(program, folder.path(), name, bitcoind, more).unwrap();
        Self {
            _folder: Some(folder),
            ..Self::of(wallet)
        }
    }

    fn of(wallet: Wallet) -> Self {
        Self {
            home: wallet.home.clone(),
            wallet,
            _folder: None,
        }
    }

    /// Starts it, and waits until it serves.
    pub fn start(&mut self) {
        self.wallet.start().unwrap();
    }

    /// Starts it, to die at a point.
    pub fn start_to_die_at(&mut self, point: fault::Point) {
        self.wallet.start_to_die_at(point.name()).unwrap();
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.wallet.log()
    }

    /// Runs its command line.
    pub fn cli(&self, args: &[&str]) -> String {
        self.wallet.cli(args).unwrap()
    }

    /// Runs its command line; what it says when it fails.
    pub fn try_cli(&self, args: &[&str]) -> Result<String, String> {
        self.wallet.cli(args).map_err(|error| error.to_string())
    }

    /// How it stands.
    pub fn status(&self) -> Value {
        self.wallet.status().unwrap()
    }

    /// Makes a connection.
    pub fn connect(&self, args: &[&str]) -> ConnectionString {
        let string = self.wallet.connect(args).unwrap();
        string.parse().expect("a connection string")
    }

    /// Kills it, as by SIGKILL.
    pub fn kill(&mut self) {
        self.wallet.kill();
    }

    /// Waits until it has died by itself.
    pub fn wait_dead(&mut self) {
        self.wallet.wait_dead().unwrap();
    }

    /// Stops it properly.
    pub fn stop(&mut self) {
        self.wallet.stop().unwrap();
    }
}

/// Waits until `look` is true.
pub fn until(what: &str, mut look: impl FnMut() -> bool) {
    infernet_regtest::until(what, || Ok(look())).unwrap();
}

/// Two wallets with a channel between them: Alice has opened it and given Bob the smaller part.
pub struct Pair {
    pub alice: Process,
    pub bob: Process,
    pub bitcoind: Bitcoind,
    _folder: TempDir,
}

impl Pair {
    /// Sets them up; nothing where no bitcoind can be had.
    pub fn start(test: &str) -> Option<Self> {
        let bitcoind = bitcoind::find(test)?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (program, names) = (Path::new(EXECUTABLE), ["bob", "alice"]);
        let network = Network::start(&bitcoind, program, folder.path(), &names, 1, &|_| ());
        let Network { wallets, bitcoind } = network.unwrap();
        let [bob, alice] = wallets.try_into().ok().expect("two wallets");
        Some(Self {
            alice: Process::of(alice),
            bob: Process::of(bob),
            bitcoind,
            _folder: folder,
        })
    }

    /// Waits until both can use the channel.
    pub fn wait_usable(&self) {
        for wallet in [&self.alice, &self.bob] {
            until("a usable channel", || {
                wallet.status()["can_send_msat"].as_u64() > Some(0)
            });
        }
    }
}
