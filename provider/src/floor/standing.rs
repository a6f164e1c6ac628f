//! How the provider stands, for its owner.

use infernet_node::link::RelayStatus;
use infernet_protocol::event::Status as Announced;
use nostr::{EventId, Timestamp, ToBech32};

use super::{Entry, Floor, Phase};
use crate::catalogue::Item;
use crate::status::{Attempt, Model, Relay, Status};
use crate::till::Till;

impl Floor {
    /// Everything there is to tell at this moment.
    pub(super) fn status(&self) -> Status {
        let shop = &self.shop;
        let hardware = shop.engine.hardware();
        let bulletin = self.bulletin();
        Status {
            // Encoding 32 bytes as bech32 cannot fail.
            npub: shop.public_key().to_bech32().unwrap_or_default(),
            name: shop.options.name.clone(),
            pid: std::process::id(),
            started_at: Timestamp::from_secs(self.started_at.0 / 1_000),
            status: match self.announced.borrow().is_empty() {
                true => Announced::Offline,
                false => bulletin.status,
            },
            closing: self.is_closing,
            engine: shop.engine_version.clone(),
            hardware: format!("{}, {} MiB", hardware.name, hardware.memory_mib),
            slots: shop.options.slots,
            queue: shop.options.queue,
            load: bulletin.load,
            relays: self.relay_list(),
            models: self.model_list(),
            wallet: shop.till.as_ref().map(Till::wallet),
            tally: self.tally,
            attempts: self.attempt_list(),
        }
    }

    fn relay_list(&self) -> Vec<Relay> {
        let relays = self.shop.link.relays().into_iter();
        let relay = |r: RelayStatus| Relay {
            url: r.url,
            connected: r.connected,
            trouble: r.trouble,
        };
        relays.map(relay).collect()
    }

    fn model_list(&self) -> Vec<Model> {
        let shop = &self.shop;
        let model = |item: &Item| {
            let announced = item.announced(shop.promises.of(&item.model.id));
            Model::new(announced, shop.engine.capacity(&item.model.id))
        };
        shop.catalogue.items().iter().map(model).collect()
    }

    fn attempt_list(&self) -> Vec<Attempt> {
        let attempts = self.attempts.iter().filter(|(_, e)| e.phase != Phase::Over);
        let attempt = |(award, entry): (&EventId, &Entry)| Attempt {
            job: entry.job,
            award: *award,
            buyer: entry.buyer,
            number: entry.number,
            running: entry.phase == Phase::Running,
            unpaid: entry.phase == Phase::Unpaid,
        };
        attempts.map(attempt).collect()
    }
}
