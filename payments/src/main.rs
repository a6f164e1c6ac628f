//! `infernet-test-wallets`: wallets with play money that serve NIP-47, for demonstrations where no chain can be had.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use infernet_node::clock;
use infernet_node::shutdown::Shutdown;
use infernet_payments::nip47::{Encryption, Service, ServiceOptions};
use infernet_payments::test_rail::{Network, Routing};
use infernet_protocol::money::Msat;
use nostr::RelayUrl;
use tokio::time::Instant;

/// How often the network's clock is set; nothing on it is more precise.
const TICK: Duration = Duration::from_millis(100);

/// Wallets with play money. They can pay each other and nobody else, and are gone when this ends. Prints a line
/// `name connection` for each, and then `ready`.
#[derive(Debug, Parser)]
#[command(name = "infernet-test-wallets", version)]
struct Arguments {
    /// Where the wallets listen.
    #[arg(long, value_name = "URL", required = true)]
    relay: Vec<RelayUrl>,

    /// What routing a payment costs.
    #[arg(long, value_name = "MSAT", default_value_t = 0)]
    routing_msat: u64,

    /// The wallets, and how much is in each.
    #[arg(value_name = "NAME=SATS", required = true)]
    wallets: Vec<Purse>,
}

/// A wallet's name and what is in it.
#[derive(Debug, Clone)]
struct Purse {
    name: String,
    balance: Msat,
}

impl FromStr for Purse {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "it looks like alice=100000";
        let (name, sats) = text.split_once('=').ok_or(wrong)?;
        let sats = sats.parse().map_err(|_| wrong)?;
        Ok(Self {
            name: name.to_owned(),
            balance: Msat::from_sat(sats).ok_or("there is not so much money")?,
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let shutdown = Shutdown::on_signals()?;
    let network = Network::new(clock::now());
    network.set_routing(Routing {
        base: Msat(arguments.routing_msat),
        parts_per_million: 0,
    });
    let mut services = Vec::new();
    for purse in &arguments.wallets {
        let wallet = network.wallet(&purse.name, purse.balance);
        let options = ServiceOptions {
            relays: arguments.relay.clone(),
            encryption: Encryption::Nip44,
        };
        let service = Service::start(Arc::new(wallet), options).await;
        let service = service.context("the relay cannot be reached: is it running?")?;
        println!("{} {}", purse.name, service.connection().to_uri());
        services.push(service);
    }
    println!("ready");
    tokio::select! {
        () = keep_time(&network) => {}
        () = shutdown.soft() => {}
    }
    Ok(())
}

/// Lets the network's clock go as ours does.
async fn keep_time(network: &Network) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(TICK).await;
        let now = Instant::now();
        network.advance(now - last);
        last = now;
    }
}
