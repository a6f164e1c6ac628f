//! The wallet: a Lightning node, and the records beside it. What clients may ask for stands in `pay`, `receive`,
//! `holding` and `history`; what LDK tells in `events`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infernet_node::clock;
use ldk_node::Node;
use ldk_node::bitcoin::Network;
use ldk_node::bitcoin::secp256k1::SecretKey;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::payment::PaymentDetails;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::nip47::{Code, Refusal, Transaction};
use crate::record::{Connection, Records};

/// How many notifications may wait to be sent; more are dropped, since each can be looked up.
pub const MAX_NEWS: usize = 1_024;

/// Something that a client is to be told unasked.
#[derive(Clone, Debug)]
pub struct News {
    /// Whose invoice or payment it is.
    pub connection: i64,
    /// One of [`crate::nip47::NOTIFICATIONS`].
    pub kind: &'static str,
    /// The invoice or payment.
    pub transaction: Transaction,
}

/// A wallet that runs. Shared as an `Arc`.
pub struct Wallet {
    /// The Lightning node.
    pub node: Arc<Node>,
    /// What we remember.
    pub records: Records,
    /// Which money this is.
    pub network: Network,
    /// The key with which the node signs invoices.
    pub node_secret: SecretKey,
    /// What others call it.
    pub alias: String,
    /// Ends every wait.
    pub stop: CancellationToken,
    changes: watch::Sender<u64>,
    news: mpsc::Sender<News>,
    turn: Mutex<()>,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wallet")
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// What a wallet is put together from.
pub struct Parts {
    /// The Lightning node, running.
    pub node: Arc<Node>,
    /// What we remember.
    pub records: Records,
    /// Which money this is.
    pub network: Network,
    /// The key with which the node signs invoices.
    pub node_secret: SecretKey,
    /// What others call it.
    pub alias: String,
    /// Ends every wait.
    pub stop: CancellationToken,
}

impl Wallet {
    /// Puts a wallet together; the other half is what clients are to be told.
    pub fn new(parts: Parts) -> (Arc<Self>, mpsc::Receiver<News>) {
        let (news, heard) = mpsc::channel(MAX_NEWS);
        let wallet = Self {
            node: parts.node,
            records: parts.records,
            network: parts.network,
            node_secret: parts.node_secret,
            alias: parts.alias,
            stop: parts.stop,
            changes: watch::Sender::new(0),
            news,
            turn: Mutex::default(),
        };
        (Arc::new(wallet), heard)
    }

    /// The height of the chain as LDK knows it.
    pub fn height(&self) -> u32 {
        self.node.status().current_best_block.height
    }

    /// What LDK knows of a payment, either way.
    pub fn ldk_payment(&self, payment_hash: &str) -> Option<PaymentDetails> {
        let mut id = [0; 32];
        hex::decode_to_slice(payment_hash, &mut id).ok()?;
        self.node.payment(&PaymentId(id))
    }

    /// Waits for one's turn to ask LDK to pay, or to record that it did not: what a record calls failed is never sent.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all who wait for a state to change.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Asks `look` after every change until it finds something; nothing when `patience` is over or the wallet stops.
    ///
    /// # Errors
    /// As `look`.
    pub async fn wait_for<T>(
        &self,
        patience: Duration,
        look: impl Fn() -> Result<Option<T>, Refusal>,
    ) -> Result<Option<T>, Refusal> {
        let mut changes = self.changes.subscribe();
        let over = tokio::time::sleep(patience);
        tokio::pin!(over);
        loop {
            changes.mark_unchanged();
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = &mut over => return Ok(None),
                () = self.stop.cancelled() => return Ok(None),
            }
        }
    }

    /// Has a client told.
    pub fn tell(&self, connection: Option<i64>, kind: &'static str, transaction: Transaction) {
        if let Some(connection) = connection
            && self
                .news
                .try_send(News {
                    connection,
                    kind,
                    transaction,
                })
                .is_err()
        {
            tracing::warn!(kind, "too many notifications wait; one is dropped");
        }
    }

    /// What can be sent now, in msat, over all channels together.
    pub fn can_send_msat(&self) -> u64 {
        let channels = self.node.list_channels();
        let usable = channels.iter().filter(|channel| channel.is_usable);
        usable.map(|channel| channel.outbound_capacity_msat).sum()
    }

    /// What one payment can carry now, in msat: the channels bound how many payments are under way (LDK takes 50 each
    /// way) and how much of a channel's value they may be together (the payee's node says; LDK's default is a tenth).
    pub fn room_msat(&self) -> u64 {
        let channels = self.node.list_channels();
        let usable = channels.iter().filter(|channel| channel.is_usable);
        usable
            .map(|channel| channel.next_outbound_htlc_limit_msat)
            .sum()
    }

    /// Waits until it is time to look again; answers whether to go on.
    pub async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// What can be received now, in msat, over all channels together.
    pub fn can_receive_msat(&self) -> u64 {
        let channels = self.node.list_channels();
        let usable = channels.iter().filter(|channel| channel.is_usable);
        usable.map(|channel| channel.inbound_capacity_msat).sum()
    }

    /// What is ours in channels and not held back as a channel's reserve, in msat, whether its peers are there or not.
    pub fn balance_msat(&self) -> u64 {
        let channels = self.node.list_channels();
        let ready = channels.iter().filter(|channel| channel.is_channel_ready);
        ready.map(|channel| channel.outbound_capacity_msat).sum()
    }
}

/// Whose invoices and payments a connection sees: its own, or all.
pub fn sight(connection: &Connection) -> Option<i64> {
    (!connection.whole_history).then_some(connection.id)
}

/// Whether a connection sees what belongs to `owner`.
pub fn sees(connection: &Connection, owner: Option<i64>) -> bool {
    connection.whole_history || owner == Some(connection.id)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    clock::now().as_secs()
}

/// Runs what may block (LDK writes to the disk, or talks to peers) where it blocks nobody.
///
/// # Errors
/// When it panics.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Refusal::new(Code::Internal, "the wallet failed at this; see its log"))
}
