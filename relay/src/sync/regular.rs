//! Relays that are kept equal with while this one serves.

use std::future::pending;
use std::time::Duration;

use futures::future::join_all;
use infernet_node::{clock, complaint};
use nostr::{Keys, Timestamp};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Ours, Progress, Task, Unwanted, equalise, key};
use crate::options::Peer;
use crate::owner::House;

/// The longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// A relay that must be read page by page is read whole this often; in between, what is new is.
const WHOLE_EVERY_SECS: u64 = 86_400;

/// How much older than the last reading an event may be to count as new.
const OVERLAP_SECS: u64 = 3_600;

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
    let mut course = Course {
        ours,
        peer,
        keys,
        unwanted: Unwanted::default(),
        read_whole: None,
    };
    let mut failures = 0;
    loop {
        failures = match course.go().await {
            Ok(()) => 0,
            Err(()) => failures + 1,
        };
        sleep(wait(peer.every, failures)).await;
    }
}

/// A relay to be kept equal with, and what is known of it from one time to the next.
struct Course<'a> {
    ours: &'a Ours,
    peer: &'a Peer,
    keys: &'a Keys,
    unwanted: Unwanted,
    /// When a relay that must be read page by page was last read whole.
    read_whole: Option<Timestamp>,
}

impl Course<'_> {
    /// Makes the two equal once, and says in the log how it went.
    async fn go(&mut self) -> Result<(), ()> {
        let now = clock::now();
        let is_recent = |whole: &Timestamp| now.as_secs() < whole.as_secs() + WHOLE_EVERY_SECS;
        self.read_whole = self.read_whole.filter(is_recent);
        let task = self.task();
        let progress = watch::Sender::new(Progress::default());
        let (ours, unwanted) = (self.ours, &mut self.unwanted);
        let done = equalise(ours, &task, self.keys, now, unwanted, &progress).await;
        let so_far = progress.borrow().clone();
        let relay = &task.url;
        if let Err(error) = done {
            let error = complaint::told(&error);
            tracing::warn!(%relay, error, "not equal yet: {so_far}");
            return Err(());
        }
        tracing::info!(%relay, "equal: {so_far}");
        if so_far.by_pages {
            self.read_whole.get_or_insert(now);
        }
        Ok(())
    }

    /// What is to be done now: all of it, or, where pages are read, what is new since they were all read.
    fn task(&self) -> Task {
        let mut filter = self.peer.filter.clone();
        if let Some(whole) = self.read_whole {
            let mut recent = filter.unwrap_or_else(|| self.ours.usual());
            recent.since = recent.since.max(Some(whole - OVERLAP_SECS));
            filter = Some(recent);
        }
        Task {
            url: self.peer.url.clone(),
            filter,
            direction: self.peer.direction,
        }
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
