//! What the market says to the floor, and whether it says it now.

use infernet_node::link::{Delivery, Subscription};
use nostr::Event;

/// An open subscription.
#[derive(Debug)]
pub struct Ear {
    subscription: Subscription,
    is_live: bool,
}

/// An event, and whether it is new.
#[derive(Debug)]
pub struct Heard {
    /// The event.
    pub event: Event,
    /// Whether it was published a moment ago, whatever its author's clock says.
    /// What relays had stored is heard at the start and after every reconnect.
    pub is_live: bool,
}

impl Ear {
    /// Listens to a subscription that has just been opened.
    pub const fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            is_live: false,
        }
    }

    /// The next event; none when the link is shut down. Safe to cancel.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            match self.subscription.next().await? {
                Delivery::Event(event) => {
                    return Some(Heard {
                        event: *event,
                        is_live: self.is_live,
                    });
                }
                Delivery::EndOfStored => self.is_live = true,
                // Stored events come again by themselves, and a buyer whose wish
                // was lost wishes again.
                Delivery::Gap => self.is_live = false,
            }
        }
    }
}
