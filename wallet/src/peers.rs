//! Keeps the peers of our channels connected: LDK tries once a minute, and a provider that restarts wants to be paid
//! sooner.

use std::sync::Arc;
use std::time::Duration;

use ldk_node::PeerDetails;

use crate::wallet::{Wallet, blocking};

/// The pauses between attempts, which double while somebody is away.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// Reconnects until the wallet stops.
pub async fn keep(wallet: Arc<Wallet>) {
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wallet.stop.cancelled() => return,
        }
        let all_there = reconnect(&wallet).await;
        pause = if all_there {
            FIRST
        } else {
            MOST.min(2 * pause)
        };
    }
}

/// Tries all peers that are away; answers whether none is now.
async fn reconnect(wallet: &Arc<Wallet>) -> bool {
    let node = wallet.node.clone();
    let tried = blocking(move || {
        let peers = node.list_peers().into_iter();
        let away = peers.filter(|peer| peer.is_persisted && !peer.is_connected);
        let missed = |peer: &PeerDetails| {
            let place = peer.address.clone();
            node.connect(peer.node_id, place, false).is_err()
        };
        away.filter(missed).count() == 0
    });
    tried.await.unwrap_or(false)
}
