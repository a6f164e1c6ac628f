//! What the market hears of the provider: its announcement, and what comes along.

use infernet_node::clock;
use infernet_node::link::{Error as LinkError, Published};
use infernet_protocol::event::{Load, Status};
use nostr::Event;

use super::Floor;
use crate::announcing::{self, Bulletin};
use crate::visibility;

impl Floor {
    /// What there is to announce at this moment.
    pub(super) fn bulletin(&self) -> Bulletin {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Bulletin {
            status: match self.is_closing || self.queue.is_full() {
                true => Status::Busy,
                false => Status::Online,
            },
            load: Load {
                running: count(self.queue.running()),
                queued: count(self.queue.queued()),
            },
        }
    }

    /// Says it, beside the loop.
    pub(super) async fn announce(&mut self) {
        let bulletin = self.bulletin();
        let created_at = match self.shop.store.next_announcement(clock::now()).await {
            Ok(created_at) => created_at,
            Err(error) => {
                tracing::error!(%error, "cannot write when it was announced");
                clock::now()
            }
        };
        let announcement = announcing::announcement(&self.shop, bulletin, created_at);
        let event = self.shop.sign(&announcement, created_at);
        self.schedule.says(self.clock.now(), bulletin);
        let link = self.shop.link.clone();
        self.announcements
            .spawn(async move { link.publish(&event).await });
    }

    /// It was said, and heard or not.
    pub(super) fn was_announced(&mut self, announced: Result<Published, LinkError>) {
        self.schedule.was_heard(self.clock.now(), announced.is_ok());
        match announced {
            Ok(published) => {
                self.is_unheard = false;
                for refused in &published.refused {
                    tracing::warn!(relay = %refused.relay, reason = refused.reason, "refuses the announcement");
                }
                if self.announced.borrow().is_empty() {
                    self.announced.send_replace(published.accepted);
                }
            }
            // Once is enough: it is tried again every few seconds.
            Err(error) if !self.is_unheard => {
                self.is_unheard = true;
                tracing::warn!(%error, "no relay takes the announcement; it is tried again");
            }
            Err(error) => tracing::debug!(%error, "not announced yet"),
        }
    }

    /// A relay that has come (back) is told who we are and what we sell.
    pub(super) fn relays_changed(&mut self) {
        let sessions = self
            .relays
            .borrow_and_update()
            .iter()
            .map(|r| r.sessions)
            .sum();
        if sessions <= self.sessions {
            return;
        }
        self.sessions = sessions;
        self.schedule.reconnected(self.clock.now());
        let at = clock::now();
        let mut events = visibility::introduction(&self.shop, at);
        events.push(visibility::heartbeat(&self.shop, at));
        self.publish(events);
    }

    /// Publishes what is nobody's loss if it fails.
    pub(super) fn publish(&self, events: Vec<Event>) {
        let link = self.shop.link.clone();
        tokio::spawn(async move {
            for event in events {
                if let Err(error) = link.publish(&event).await {
                    tracing::debug!(kind = %event.kind, %error, "not published");
                }
            }
        });
    }
}
