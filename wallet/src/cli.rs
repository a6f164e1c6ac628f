//! What can be typed.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use infernet_node::telemetry::LogOptions;
use infernet_wallet::record::Period;
use infernet_wallet::settings::Lsp;

/// A Lightning wallet in a process of its own, spoken to by NIP-47 (Nostr Wallet Connect).
#[derive(Debug, Parser)]
#[command(name = "infernet-wallet", version)]
pub struct Cli {
    /// The wallet's folder (default: wallet under INFERNET_HOME, or in your data folder).
    #[arg(
        long,
        env = "INFERNET_WALLET_HOME",
        global = true,
        value_name = "FOLDER"
    )]
    pub home: Option<PathBuf>,
    #[command(flatten)]
    pub log: LogOptions,
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Debug, Subcommand)]
pub enum Task {
    /// Make a wallet: a seed and its settings.
    Init(InitArgs),
    /// Run the wallet until Ctrl-C or `stop`.
    Start,
    /// Say how the running wallet stands: money, channels, relays.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stop the running wallet, and wait until it has written down everything.
    Stop,
    /// Make a connection and print its string, once. Whoever has it can use the wallet.
    Connect(ConnectArgs),
    /// List the connections and what is left of their budgets.
    Connections {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a connection.
    Revoke {
        /// Its name.
        name: String,
    },
    /// A new address for bitcoin on the chain.
    Address,
    /// Open, close, list and buy channels.
    Channel {
        #[command(subcommand)]
        task: ChannelTask,
    },
    /// Show the words of the seed, or copy what can be copied.
    Backup(BackupArgs),
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// regtest, signet, testnet or bitcoin.
    #[arg(long)]
    pub network: String,
    /// Yes, use real bitcoin.
    #[arg(long)]
    pub real_money: bool,
    /// Blocks from a bitcoind: http://user:password@host:port
    #[arg(
        long,
        value_name = "URL",
        env = "INFERNET_WALLET_BITCOIND",
        hide_env_values = true
    )]
    pub bitcoind: Option<String>,
    /// Blocks from an Esplora server: https://host/api
    #[arg(long, value_name = "URL")]
    pub esplora: Option<String>,
    /// Where other Lightning nodes find this one. Can be given more than once.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Vec<String>,
    /// The name other Lightning nodes see.
    #[arg(long)]
    pub alias: Option<String>,
    /// A relay on which the wallet can be reached beside its own. Can be given more than once.
    #[arg(long, value_name = "URL")]
    pub relay: Vec<String>,
    /// A Lightning node that is trusted to close channels for us: no on-chain reserve is kept for them.
    #[arg(long, value_name = "NODE")]
    pub no_reserve_for: Vec<String>,
    /// From whom `channel buy` buys (LSPS2): node@host:port
    #[arg(long, value_name = "NODE@HOST:PORT")]
    pub lsp: Option<String>,
    /// What the seller gave us to be known by.
    #[arg(long, value_name = "TOKEN", requires = "lsp")]
    pub lsp_token: Option<String>,
}

impl InitArgs {
    /// The seller of channels.
    pub fn lsp(&self) -> anyhow::Result<Option<Lsp>> {
        let Some(lsp) = &self.lsp else {
            return Ok(None);
        };
        let (node, address) = lsp
            .split_once('@')
            .with_context(|| format!("--lsp {lsp:?} is not <node id>@<host>:<port>"))?;
        Ok(Some(Lsp {
            node: node.to_owned(),
            address: address.to_owned(),
            token: self.lsp_token.clone(),
        }))
    }
}

#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// What you call it.
    #[arg(long)]
    pub name: String,
    /// What it may do, separated by commas (default: everything).
    #[arg(long, value_delimiter = ',', value_name = "METHOD")]
    pub methods: Vec<String>,
    /// How much it may spend, fees included (default: no limit).
    #[arg(long, value_name = "SATS")]
    pub budget_sats: Option<u64>,
    /// In which time: the last 24 hours, 7 days, 30 days, or in all.
    #[arg(long, value_enum, default_value = "total", requires = "budget_sats")]
    pub per: Period,
    /// Let it see the invoices and payments of other connections.
    #[arg(long)]
    pub whole_history: bool,
}

#[derive(Debug, Subcommand)]
pub enum ChannelTask {
    /// Open a channel to another node.
    Open {
        /// <node id>@<host>:<port>
        peer: String,
        /// Its size.
        #[arg(long)]
        sats: u64,
        /// Give the other node this much of it.
        #[arg(long, default_value_t = 0)]
        push_sats: u64,
        /// Announce it to all the world.
        #[arg(long)]
        public: bool,
    },
    /// Close a channel.
    Close {
        /// As `channel list` names it.
        id: String,
        /// Without the other node's help. Your money is locked for a while; use it when the other is gone.
        #[arg(long)]
        force: bool,
    },
    /// List the channels.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Buy a channel through which you can receive: prints an invoice to be paid from another wallet.
    Buy {
        /// The first payment through it.
        #[arg(long)]
        sats: u64,
        /// The highest fee that the seller may keep.
        #[arg(long, value_name = "SATS")]
        max_fee_sats: Option<u64>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct BackupArgs {
    /// Show the words of the seed. Whoever reads them can take everything.
    #[arg(long)]
    pub show_words: bool,
    /// Copy the records, the settings and the list of channels into this new folder. Without the words.
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
}
