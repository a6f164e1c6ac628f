//! Several wallets on one chain, with channels between those in the middle and each of the others.

use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::wait::until;
use crate::{Bitcoind, Wallet};

/// A channel's size.
pub const CHANNEL_SATS: u64 = 2_000_000;

/// What of it belongs to the first wallet at the start. The rest is the other's, who has opened the channel.
pub const PUSHED_SATS: u64 = 800_000;

/// What each wallet is given on the chain: a channel, and a reserve with which to close one against the other's will.
const ONCHAIN_SATS: u64 = 10_000_000;

/// How deep a channel's funding lies before LDK uses it.
const CONFIRMATIONS: u32 = 6;

/// A chain and its wallets. They end with this value.
pub struct Network {
    /// The wallets, those in the middle first.
    pub wallets: Vec<Wallet>,
    /// The chain.
    pub bitcoind: Bitcoind,
}

impl Network {
    /// Starts all of it in a folder, with the first `hubs` wallets in the middle, and tells `progress` how far it has
    /// come.
    ///
    /// # Errors
    /// If something does not come up.
    pub fn start(
        bitcoind: &Path,
        wallet: &Path,
        folder: &Path,
        names: &[&str],
        hubs: usize,
        progress: &dyn Fn(&str),
    ) -> Result<Self> {
        progress("chain");
        let bitcoind = Bitcoind::start(bitcoind, &folder.join("chain"))?;
        progress("wallets");
        let wallets = at_once(names, |name| {
            Wallet::init(wallet, &folder.join(name), name, &bitcoind, &[])
        })?;
        let mut network = Self { wallets, bitcoind };
        at_once(&mut network.wallets, Wallet::start)?;
        network.fund()?;
        progress("channels");
        for hub in 0..hubs {
            network.open_channels(hub)?;
            network.wait_usable()?;
        }
        Ok(network)
    }

    /// A wallet by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn wallet(&mut self, name: &str) -> Result<&mut Wallet> {
        let named = self.wallets.iter_mut().find(|wallet| wallet.name == name);
        named.with_context(|| format!("there is no wallet {name}"))
    }

    fn fund(&self) -> Result<()> {
        for wallet in &self.wallets {
            self.bitcoind
                .pay(&wallet.cli(&["address"])?, ONCHAIN_SATS)?;
        }
        self.bitcoind.mine(1)?;
        for wallet in &self.wallets {
            until("money on the chain", || {
                Ok(wallet.status()?["spendable_sats"].as_u64() > Some(0))
            })?;
        }
        Ok(())
    }

    /// Each of those behind a hub opens its channel to it: one wallet that opened several at once might spend the same
    /// coins twice.
    fn open_channels(&self, hub: usize) -> Result<()> {
        let Some((hub, others)) = self.wallets[hub..].split_first() else {
            return Ok(());
        };
        let peer = hub.address()?;
        let (sats, push) = (CHANNEL_SATS.to_string(), PUSHED_SATS.to_string());
        let open = [
            "channel",
            "open",
            &peer,
            "--sats",
            &sats,
            "--push-sats",
            &push,
        ];
        at_once(others, |other| other.cli(&open).map(drop))?;
        let channels = others.len();
        until("the channels' transactions", || {
            Ok(self.bitcoind.waiting()? >= channels)
        })?;
        self.bitcoind.mine(CONFIRMATIONS)
    }

    /// Waits until all can use their channels.
    ///
    /// # Errors
    /// If they cannot in time, or one does not run.
    pub fn wait_usable(&self) -> Result<()> {
        for wallet in &self.wallets {
            until("usable channels", || wallet.is_usable())?;
        }
        Ok(())
    }
}

/// Does the same with all of them at the same time.
fn at_once<T: Send, R: Send>(
    all: impl IntoIterator<Item = T>,
    act: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let act = &act;
    std::thread::scope(|scope| {
        let threads = all.into_iter().map(|one| scope.spawn(move || act(one)));
        let threads: Vec<_> = threads.collect();
        let panicked = |_| Err(anyhow!("a thread has panicked"));
        let results = threads
            .into_iter()
            .map(|one| one.join().unwrap_or_else(panicked));
        results.collect()
    })
}
