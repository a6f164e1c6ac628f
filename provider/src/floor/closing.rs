//! The end of a provider: what runs is finished, or failed honestly, and the
//! market is told.

use std::time::Duration;

use infernet_node::clock;
use tokio::time::timeout;

use super::{Floor, Phase};
use crate::announcing;
use crate::attempt::Order;

/// How long a graceful stop waits for relays to take results. What they do not
/// take is kept, and published at the next start.
const PATIENCE: Duration = Duration::from_secs(15);

/// The same for a stop at once.
const HASTE: Duration = Duration::from_secs(3);

/// How long relays have to take the goodbye; without it the announcement runs
/// out by itself.
const GOODBYE: Duration = Duration::from_secs(3);

impl Floor {
    /// Takes nothing new, and finishes what it has taken on.
    pub(super) fn stop_soon(&mut self) {
        self.is_closing = true;
        let (running, queued) = (self.queue.running(), self.queue.queued());
        tracing::info!(
            running,
            queued,
            "stopping: takes no new work, finishes what it has"
        );
        self.schedule.changed(self.bulletin());
        let unpaid = self.attempts.values().filter(|e| e.phase == Phase::Unpaid);
        for entry in unpaid {
            entry.order(Order::GiveUp("the provider is about to stop"));
        }
    }

    /// Fails what it has taken on, honestly.
    pub(super) fn stop_now(&mut self) {
        self.is_closing = true;
        self.is_aborting = true;
        for entry in self.attempts.values().filter(|e| e.phase != Phase::Over) {
            entry.order(Order::GiveUp("the provider was stopped"));
        }
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_done(&self) -> bool {
        let busy = self.attempts.values().any(|e| e.phase != Phase::Over);
        self.is_closing && !busy && self.admissions.is_empty()
    }

    /// Waits until results are out, says goodbye, and lets go of everything.
    pub(super) async fn close(mut self) {
        self.announcements.abort_all();
        self.shop.publications.close();
        let patience = if self.is_aborting { HASTE } else { PATIENCE };
        let hurried = self.shutdown.clone();
        tokio::select! {
            () = self.shop.publications.wait() => {}
            () = tokio::time::sleep(patience) => {
                tracing::warn!("some results have not reached a relay; the next start publishes them");
            }
            () = hurried.hard(), if !self.is_aborting => {}
        }
        self.say_goodbye().await;
        self.write_refused().await;
        if let Some(till) = &self.shop.till {
            till.close().await;
        }
        self.shop.store.close().await;
        self.shop.link.clone().shutdown().await;
        tracing::info!(
            completed = self.tally.completed,
            failed = self.tally.failed,
            "stopped"
        );
    }

    async fn say_goodbye(&self) {
        let shop = &self.shop;
        let at = shop.store.next_announcement(clock::now()).await;
        let at = at.unwrap_or_else(|_| clock::now());
        let goodbye = shop.sign(&announcing::goodbye(shop, at), at);
        match timeout(GOODBYE, shop.link.publish(&goodbye)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "could not say goodbye"),
            Err(_) => tracing::warn!("could not say goodbye: no relay answered"),
        }
    }
}
