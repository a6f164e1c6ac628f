//! Channels: opened, closed, listed, bought.

use std::sync::Arc;

use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description};
use ldk_node::{ChannelDetails, NodeError, UserChannelId};
use serde::{Deserialize, Serialize};

use crate::lightning::{address, node_id};
use crate::wallet::{Wallet, blocking};

/// How long the invoice lives that pays for a bought channel.
const OFFER_S: u32 = 3_600;

/// A channel as the user is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// What `channel close` wants.
    pub id: String,
    /// The other node.
    pub peer: String,
    /// Its size.
    pub value_sats: u64,
    /// What can be sent through it.
    pub can_send_msat: u64,
    /// What one payment can carry now: nothing while as many are under way as the channel takes (50), or as much value
    /// as the other node takes at a time.
    pub can_send_at_once_msat: u64,
    /// What can be received through it.
    pub can_receive_msat: u64,
    /// Whether it is confirmed.
    pub ready: bool,
    /// Whether it is confirmed and the other node is there.
    pub usable: bool,
    /// The output that funds it, `txid:index`.
    pub funding: Option<String>,
}

/// Why something with a channel cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Asked(String),
    /// LDK refuses.
    #[error("{0}")]
    Refused(String),
}

impl From<NodeError> for Error {
    fn from(error: NodeError) -> Self {
        Self::Refused(match error {
            NodeError::InsufficientFunds => "the wallet has too few bitcoin on the chain for this (25,000 sat stay as \
                                             a reserve for each channel). Send some to: infernet-wallet address"
                .to_owned(),
            NodeError::ConnectionFailed => "the other node cannot be reached there".to_owned(),
            NodeError::LiquiditySourceUnavailable => "nobody sells channels to this wallet: name a seller that speaks \
                                                      LSPS2 in wallet.toml: [lsp] node = …, address = …"
                .to_owned(),
            other => other.to_string(),
        })
    }
}

fn told(channel: &ChannelDetails) -> Channel {
    Channel {
        id: channel.user_channel_id.0.to_string(),
        peer: channel.counterparty_node_id.to_string(),
        value_sats: channel.channel_value_sats,
        can_send_msat: channel.outbound_capacity_msat,
        can_send_at_once_msat: channel.next_outbound_htlc_limit_msat,
        can_receive_msat: channel.inbound_capacity_msat,
        ready: channel.is_channel_ready,
        usable: channel.is_usable,
        funding: channel.funding_txo.map(|out| out.to_string()),
    }
}

/// All channels.
pub fn list(wallet: &Wallet) -> Vec<Channel> {
    wallet.node.list_channels().iter().map(told).collect()
}

/// A channel that is to be opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Opening {
    /// `node@host:port`.
    pub peer: String,
    /// Its size.
    pub sats: u64,
    /// What the other node is given of it.
    pub push_sats: u64,
    /// Whether all the world is told.
    pub public: bool,
}

fn peer(text: &str) -> Result<(PublicKey, SocketAddress), Error> {
    let asked = |error: crate::settings::Error| Error::Asked(error.to_string());
    let (node, place) = text
        .split_once('@')
        .ok_or_else(|| Error::Asked(format!("{text:?} is not <node id>@<host>:<port>")))?;
    Ok((
        node_id("peer", node).map_err(asked)?,
        address("peer", place).map_err(asked)?,
    ))
}

/// Opens a channel; answers its id. It can be used once it is confirmed.
///
/// # Errors
/// See [`Error`].
pub async fn open(wallet: &Arc<Wallet>, asked: Opening) -> Result<String, Error> {
    let (node_id, place) = peer(&asked.peer)?;
    let push_msat = asked.push_sats.saturating_mul(1_000);
    let node = wallet.node.clone();
    let opened = blocking(move || match asked.public {
        true => node.open_announced_channel(node_id, place, asked.sats, Some(push_msat), None),
        false => node.open_channel(node_id, place, asked.sats, Some(push_msat), None),
    });
    let id = opened
        .await
        .map_err(|error| Error::Refused(error.to_string()))??;
    Ok(id.0.to_string())
}

/// Closes a channel, together with the other node or against it.
///
/// # Errors
/// See [`Error`].
pub async fn close(wallet: &Arc<Wallet>, id: &str, force: bool) -> Result<(), Error> {
    let unknown = || {
        Error::Asked(format!(
            "there is no channel {id}; see: infernet-wallet channel list"
        ))
    };
    let id = UserChannelId(id.parse().map_err(|_| unknown())?);
    let channels = wallet.node.list_channels();
    let channel = channels
        .iter()
        .find(|channel| channel.user_channel_id == id)
        .ok_or_else(unknown)?;
    let peer = channel.counterparty_node_id;
    let node = wallet.node.clone();
    let closed = blocking(move || match force {
        true => node.force_close_channel(&id, peer, None),
        false => node.close_channel(&id, peer),
    });
    Ok(closed
        .await
        .map_err(|error| Error::Refused(error.to_string()))??)
}

/// Buys a channel: answers the invoice that pays for it. Whoever pays it, its amount less the seller's fee arrives
/// through the new channel.
///
/// # Errors
/// See [`Error`].
pub async fn buy(
    wallet: &Arc<Wallet>,
    sats: u64,
    max_fee_sats: Option<u64>,
) -> Result<String, Error> {
    let text = Description::new("the first payment through a bought channel".to_owned());
    let text = text.map_err(|error| Error::Asked(format!("{error:?}")))?;
    let node = wallet.node.clone();
    let bought = blocking(move || {
        let limit = max_fee_sats.map(|sats| sats.saturating_mul(1_000));
        let description = Bolt11InvoiceDescription::Direct(text);
        node.bolt11_payment().receive_via_jit_channel(
            sats.saturating_mul(1_000),
            &description,
            OFFER_S,
            limit,
        )
    });
    let invoice = bought
        .await
        .map_err(|error| Error::Refused(error.to_string()))??;
    Ok(invoice.to_string())
}
