//! What the user is told of a wallet.

use serde::{Deserialize, Serialize};

use crate::channels::{self, Channel};
use crate::wallet::Wallet;
use infernet_node::link::Link;
use nostr::RelayUrl;

/// How a wallet stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The node's id.
    pub node: String,
    /// Where other nodes find it.
    pub listen: Vec<String>,
    /// The network.
    pub network: String,
    /// The last block it knows.
    pub height: u32,
    /// Whether it has seen the chain since it started.
    pub synced: bool,
    /// What it has on the chain.
    pub onchain_sats: u64,
    /// And what of that it can spend.
    pub spendable_sats: u64,
    /// What it can send over Lightning now.
    pub can_send_msat: u64,
    /// What it can receive over Lightning now.
    pub can_receive_msat: u64,
    /// Its channels.
    pub channels: Vec<Channel>,
    /// Where clients reach it.
    pub relays: Vec<Relay>,
}

/// A relay, and whether the wallet is there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Relay {
    /// Its address.
    pub url: String,
    /// Whether the wallet is connected.
    pub connected: bool,
}

/// How the wallet stands now; `told` are the relays as clients know them.
pub fn status(wallet: &Wallet, link: &Link, told: &[RelayUrl]) -> Status {
    let node = wallet.node.status();
    let balances = wallet.node.list_balances();
    let listen = wallet.node.listening_addresses().unwrap_or_default();
    let relays = told.iter().zip(link.relays());
    Status {
        node: wallet.node.node_id().to_string(),
        listen: listen.iter().map(ToString::to_string).collect(),
        network: wallet.network.to_string(),
        height: node.current_best_block.height,
        synced: node.latest_lightning_wallet_sync_timestamp.is_some(),
        onchain_sats: balances.total_onchain_balance_sats,
        spendable_sats: balances.spendable_onchain_balance_sats,
        can_send_msat: wallet.can_send_msat(),
        can_receive_msat: wallet.can_receive_msat(),
        channels: channels::list(wallet),
        relays: relays
            .map(|(url, relay)| Relay {
                url: url.to_string(),
                connected: relay.connected,
            })
            .collect(),
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let usable = self
            .channels
            .iter()
            .filter(|channel| channel.usable)
            .count();
        let seen = if self.synced {
            ""
        } else {
            " (the chain has not been seen yet)"
        };
        writeln!(f, "node         {}", self.node)?;
        for place in &self.listen {
            writeln!(f, "reached at   {}@{place}", self.node)?;
        }
        writeln!(
            f,
            "network      {}, block {}{seen}",
            self.network, self.height
        )?;
        writeln!(
            f,
            "on chain     {} sat, {} of it to spend",
            self.onchain_sats, self.spendable_sats
        )?;
        writeln!(f, "can send     {} msat", self.can_send_msat)?;
        writeln!(f, "can receive  {} msat", self.can_receive_msat)?;
        writeln!(
            f,
            "channels     {}, {usable} of them usable",
            self.channels.len()
        )?;
        for relay in &self.relays {
            let state = if relay.connected {
                "connected"
            } else {
                "not connected"
            };
            writeln!(f, "relay        {} ({state})", relay.url)?;
        }
        if self.can_receive_msat == 0 {
            writeln!(
                f,
                "\nNothing can be received yet. Have somebody open a channel to this node, or buy one:"
            )?;
            writeln!(f, "  infernet-wallet channel buy --sats <amount>")?;
        }
        Ok(())
    }
}
