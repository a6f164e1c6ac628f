//! Relays that are kept equal with while this one serves.

use std::future::pending;
use std::time::Duration;

use futures::future::join_all;
use infernet_node::{clock, complaint};
use nostr::Keys;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Ours, Progress, Task, Unwanted, equalise, key};
use crate::options::Peer;
use crate::owner::House;

/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// Keeps equal with all that the operator named, for ever.
pub async fn keep_equal(house: &House) {
    let keys = match house.peers.is_empty() {
        true => return pending().await,
        false => key(&house.folder),
    };
    match keys {
        Ok(keys) => {
            let peers = house.peers.iter();
            join_all(peers.map(|peer| keep(&house.ours, peer, &keys))).await;
        }
        Err(error) => {
            let error = complaint::told(&error);
            tracing::error!(error, "without a key there is no sync with other relays");
        }
    }
    pending().await
}

async fn keep(ours: &Ours, peer: &Peer, keys: &Keys) {
    let task = Task {
        url: peer.url.clone(),
        filter: peer.filter.clone(),
        direction: peer.direction,
    };
    let mut unwanted = Unwanted::default();
    let mut failures = 0;
    loop {
        let progress = watch::Sender::new(Progress::default());
        let now = clock::now();
        let done = equalise(ours, &task, keys, now, &mut unwanted, &progress).await;
        let so_far = progress.borrow().clone();
        match done {
            Ok(()) => {
                failures = 0;
                tracing::info!(relay = %task.url, "equal: {so_far}");
            }
            Err(error) => {
                failures += 1;
                let error = complaint::told(&error);
                tracing::warn!(relay = %task.url, error, "not equal yet: {so_far}");
            }
        }
        sleep(wait(peer.every, failures)).await;
    }
}

/// How long to wait after so many failures in a row: twice as long after each.
fn wait(every: Duration, failures: u32) -> Duration {
    let longer = every.saturating_mul(2_u32.saturating_pow(failures));
    longer.min(LONGEST_WAIT.max(every))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_make_the_wait_longer_up_to_an_hour() {
        let seconds = |every, failures| wait(Duration::from_secs(every), failures).as_secs();
        assert_eq!(seconds(300, 0), 300);
        assert_eq!(seconds(300, 1), 600);
        assert_eq!(seconds(300, 3), 2_400);
        assert_eq!(seconds(300, 4), 3_600);
        assert_eq!(seconds(300, u32::MAX), 3_600);
        assert_eq!(seconds(7_200, 0), 7_200, "who wants it rarer has it so");
        assert_eq!(seconds(7_200, 5), 7_200);
    }
}
