//! Buying a channel from a seller that speaks LSPS2.

use std::sync::Arc;

use ldk_node::bitcoin::Network;
use ldk_node::config::{AnchorChannelsConfig, Config};
use ldk_node::liquidity::LSPS2ServiceConfig;
use ldk_node::{Builder, Node};

use crate::bitcoind::{self, Bitcoind, free_port};
use crate::process::{PATIENCE, Process, until};

/// A seller: a bare LDK node that serves LSPS2. Its parts of fees are in millionths.
fn seller(bitcoind: &Bitcoind, folder: &std::path::Path) -> Arc<Node> {
    let config = Config {
        network: Network::Regtest,
        storage_dir_path: folder.display().to_string(),
        listening_addresses: Some(vec![format!("127.0.0.1:{}", free_port()).parse().unwrap()]),
        anchor_channels_config: Some(AnchorChannelsConfig {
            per_channel_reserve_sats: 1_000,
            ..AnchorChannelsConfig::default()
        }),
        ..Config::default()
    };
    let mut builder = Builder::from_config(config);
    let (host, port, user, password) = bitcoind.rpc();
    builder.set_chain_source_bitcoind_rpc(host, port, user, password);
    builder.set_liquidity_provider_lsps2(LSPS2ServiceConfig {
        require_token: None,
        advertise_service: false,
        channel_opening_fee_ppm: 10_000,
        channel_over_provisioning_ppm: 1_000_000,
        min_channel_opening_fee_msat: 1_000,
        min_channel_lifetime: 100,
        max_client_to_self_delay: 1_024,
        min_payment_size_msat: 0,
        max_payment_size_msat: 1_000_000_000,
        client_trusts_lsp: true,
    });
    let node = Arc::new(builder.build().unwrap());
    node.start().unwrap();
    node
}

#[test]
fn a_new_wallet_buys_its_first_channel() {
    let Some(executable) = bitcoind::find("a_new_wallet_buys_its_first_channel") else {
        return;
    };
    let chain = tempfile::tempdir().unwrap();
    let bitcoind = Bitcoind::start(&executable, chain.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lsp = seller(&bitcoind, folder.path());
    let place = format!(
        "{}@{}",
        lsp.node_id(),
        lsp.listening_addresses().unwrap()[0]
    );
    let trusts = lsp.node_id().to_string();
    let mut payer = Process::init("payer", &bitcoind, &[]);
    let mut buyer = Process::init(
        "buyer",
        &bitcoind,
        &["--lsp", &place, "--no-reserve-for", &trusts],
    );
    payer.start();
    buyer.start();
    bitcoind.pay(&payer.cli(&["address"]), 10_000_000).unwrap();
    let sellers = lsp.onchain_payment().new_address().unwrap();
    bitcoind.pay(&sellers.to_string(), 10_000_000).unwrap();
    bitcoind.mine(1).unwrap();
    until("money on the chain", || {
        payer.status()["spendable_sats"].as_u64() > Some(0)
    });
    until("the seller's money", || {
        lsp.list_balances().spendable_onchain_balance_sats > 0
    });
    payer.cli(&["channel", "open", &place, "--sats", "2000000"]);
    until("a funding transaction", || bitcoind.waiting().unwrap() > 0);
    bitcoind.mine(6).unwrap();
    until("the payer's channel", || {
        payer.status()["can_send_msat"].as_u64() > Some(0)
    });

    assert!(
        buyer
            .cli(&["status"])
            .contains("Nothing can be received yet")
    );
    let invoice = buyer.cli(&[
        "channel",
        "buy",
        "--sats",
        "50000",
        "--max-fee-sats",
        "1000",
    ]);
    let payer_string = payer.connect(&["--name", "payer"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = crate::client::Client::new(&payer_string).await;
        let paid = client.ask(
            "pay_invoice",
            serde_json::json!({ "invoice": invoice.trim() }),
        );
        tokio::time::timeout(PATIENCE, paid).await.unwrap().unwrap();
    });
    until("a bought channel", || {
        buyer.status()["can_receive_msat"].as_u64() > Some(0)
    });
    let channels = buyer.status()["channels"].as_array().unwrap().clone();
    assert_eq!(channels.len(), 1);
    assert_eq!(channels[0]["peer"], trusts.as_str());
    lsp.stop().unwrap();
}
