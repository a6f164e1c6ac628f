//! Handing over: the answers of a group are merged, closed and put on a blob server.

use std::sync::Arc;
use std::time::Duration;

use infernet_protocol::batch::{Blob, BlobKey, Done};
use infernet_protocol::payload::Payload;
use infernet_protocol::seal::blob;
use nostr::secp256k1::rand::rngs::OsRng;
use tokio::time::sleep;

use crate::house::House;
use crate::outcomes::{Folder, merge};
use crate::store::{self, ShardRow};
use crate::tally::Ended;

/// The pauses between attempts to put a blob on a server, which double.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MOST: Duration = Duration::from_secs(15);

/// The outcomes of a group's lines, in their order.
///
/// # Errors
/// A shard's file that is gone or damaged.
pub(super) fn merged(folder: &Folder, lines: usize, shards: &[ShardRow]) -> std::io::Result<Done> {
    let mut outcomes = vec![];
    for shard in shards {
        if matches!(shard.ended, Some(Ended::Done(_))) {
            outcomes.push((shard.lines.clone(), folder.shard(shard.number)?));
        }
    }
    let why = |line: u32| {
        let failed = shards.iter().rev().find_map(|shard| match &shard.ended {
            Some(Ended::Failed { reason }) if shard.lines.contains(&line) => Some(reason.clone()),
            _ => None,
        });
        failed.unwrap_or_else(|| "it is not of the task that was ordered".to_owned())
    };
    Ok(merge(lines, outcomes, why))
}

/// Closes a group's outcomes under this key and puts them on a blob server, again and
/// again until one takes them.
///
/// # Errors
/// A store or a disk that refuses; outcomes that no blob can hold.
pub(super) async fn deliver(
    house: &Arc<House>,
    folder: Folder,
    lines: usize,
    shards: Vec<ShardRow>,
    key: BlobKey,
) -> Result<Blob, store::Error> {
    let closing = tokio::task::spawn_blocking(move || {
        let done = merged(&folder, lines, &shards)?;
        let bytes = done.to_bytes();
        blob::encrypt(key.as_bytes(), &bytes, &mut OsRng).map_err(std::io::Error::other)
    });
    let closed = closing.await.map_err(std::io::Error::other)??;
    let mut pause = PAUSE_FIRST;
    loop {
        match house.blobs.put(closed.clone()).await {
            Ok(blob) => return Ok(blob),
            Err(error) => tracing::warn!(%error, "no blob server takes a group's answers yet"),
        }
        sleep(pause).await;
        pause = PAUSE_MOST.min(2 * pause);
    }
}
