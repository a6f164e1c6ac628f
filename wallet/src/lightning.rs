//! The Lightning node: ldk-node, set up as the settings say.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::config::Config;
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::{BuildError, Builder, Node};

use crate::ldk_log;
use crate::seed::Seed;
use crate::settings::{self, Chain, Settings, value};

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting makes no sense.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// LDK cannot be built from what is there.
    #[error("the Lightning node cannot be set up: {0}")]
    Build(#[from] BuildError),
}

/// Builds the node; it does not run yet.
///
/// # Errors
/// See [`Error`].
pub fn build(settings: &Settings, seed: &Seed, folder: &Path) -> Result<Node, Error> {
    let mut builder = Builder::from_config(config(settings, folder)?);
    builder.set_entropy_bip39_mnemonic(seed.words().clone(), None);
    builder.set_custom_logger(Arc::new(ldk_log::Writer));
    match settings.chain()? {
        Chain::Bitcoind {
            host,
            port,
            user,
            password,
        } => builder.set_chain_source_bitcoind_rpc(host, port, user, password),
        Chain::Esplora(url) => builder.set_chain_source_esplora(url, None),
    };
    if let Some(alias) = &settings.alias {
        builder.set_node_alias(alias.clone())?;
    }
    if let Some((node, address, token)) = seller(settings)? {
        builder.set_liquidity_source_lsps2(node, address, token);
    }
    Ok(builder.build()?)
}

/// Checks what can be checked without a node.
///
/// # Errors
/// See [`Error`].
pub fn check(settings: &Settings) -> Result<(), Error> {
    config(settings, Path::new(""))?;
    seller(settings)?;
    if let Some(alias) = &settings.alias {
        Builder::new().set_node_alias(alias.clone())?;
    }
    Ok(())
}

type Seller = (PublicKey, SocketAddress, Option<String>);

fn seller(settings: &Settings) -> Result<Option<Seller>, Error> {
    let Some(lsp) = &settings.lsp else {
        return Ok(None);
    };
    let node = node_id("lsp.node", &lsp.node)?;
    let address = address("lsp.address", &lsp.address)?;
    Ok(Some((node, address, lsp.token.clone())))
}

fn config(settings: &Settings, folder: &Path) -> Result<Config, Error> {
    let mut config = Config {
        network: settings.network()?,
        storage_dir_path: folder.to_string_lossy().into_owned(),
        ..Config::default()
    };
    let listen = settings.listen.iter().map(|one| address("listen", one));
    let listen: Vec<SocketAddress> = listen.collect::<Result<_, _>>()?;
    config.listening_addresses = Some(listen).filter(|all| !all.is_empty());
    if let Some(anchors) = &mut config.anchor_channels_config {
        for node in &settings.no_reserve_for {
            anchors
                .trusted_peers_no_reserve
                .push(node_id("no_reserve_for", node)?);
        }
    }
    Ok(config)
}

/// A node id of 66 hex digits.
///
/// # Errors
/// Anything else.
pub fn node_id(key: &'static str, text: &str) -> Result<PublicKey, settings::Error> {
    PublicKey::from_str(text).map_err(|_| value(key, text, "a node id has 66 hex digits"))
}

/// `host:port`.
///
/// # Errors
/// Anything else.
pub fn address(key: &'static str, text: &str) -> Result<SocketAddress, settings::Error> {
    SocketAddress::from_str(text).map_err(|_| value(key, text, "use host:port"))
}
