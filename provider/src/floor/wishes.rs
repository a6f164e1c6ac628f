//! What buyers wish while their attempts run.

use infernet_protocol::event::{Cancel, Private, Signed};
use infernet_protocol::payload::{Control, Payload, Wish};
use infernet_protocol::seal;
use nostr::{Event, EventId, PublicKey};

use super::{Entry, Floor};
use crate::attempt::Order;

/// How often one attempt repeats itself: a wish of 200 bytes may cost the whole
/// answer again. A buyer waits three times this long before it asks.
const WISH_EVERY_MS: u64 = 100;

impl Floor {
    /// A private message of a buyer's. Only those of known attempts are opened:
    /// a stranger's costs a look into a table.
    pub(super) fn wished(&mut self, event: &Event) {
        let Ok(envelope) = Private::parse(event) else {
            return;
        };
        let ours = |entry: &&Entry| entry.job == envelope.job && entry.buyer == event.pubkey;
        let Some(known) = self.attempts.values().find(ours) else {
            return tracing::debug!(job = %envelope.job, "a wish for nothing that runs here");
        };
        let opened = seal::overhear(&known.conversation, &envelope.content);
        match opened.and_then(|bytes| Control::from_bytes(&bytes)) {
            Ok(control) => self.wish(&control, &event.pubkey),
            Err(error) => tracing::debug!(job = %envelope.job, %error, "a wish that says nothing"),
        }
    }

    fn wish(&mut self, control: &Control, buyer: &PublicKey) {
        let at = self.clock.now();
        let entry = self.attempts.get_mut(&control.award);
        let Some(entry) = entry.filter(|entry| entry.buyer == *buyer) else {
            return;
        };
        match control.wish {
            Wish::Stop => entry.order(Order::Stop),
            Wish::Resend { from } => {
                if at.since(entry.wished_at) >= WISH_EVERY_MS {
                    entry.wished_at = at;
                    entry.order(Order::Resend(from));
                }
            }
            Wish::Invoice => {
                tracing::info!(award = %control.award, "no invoice: this provider takes no payments yet");
            }
        }
    }

    /// A buyer has ended an attempt, or a whole job. It may come before the award
    /// does, over another relay.
    pub(super) fn cancelled(&mut self, event: Event) {
        let buyer = event.pubkey;
        let Ok(cancel) = Signed::<Cancel>::from_verified(event) else {
            return;
        };
        let ends = |award: &EventId, entry: &Entry| match cancel.award {
            Some(ended) => *award == ended,
            None => entry.job == cancel.job,
        };
        let attempts = self.attempts.iter();
        for (award, entry) in attempts.filter(|(_, entry)| entry.buyer == buyer) {
            if ends(award, entry) {
                tracing::info!(job = %entry.job, %award, reason = ?cancel.reason, "stopped by its buyer");
                entry.order(Order::Stop);
            }
        }
        self.cancelled
            .insert((cancel.award.unwrap_or(cancel.job), buyer));
    }
}
