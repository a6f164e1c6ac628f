//! The announcement: what it says, and when it is said again.

use infernet_engine::Device;
use infernet_protocol::event::{
    AnnouncedModel, Announcement, Capacity, DeviceKind, Hardware, Load, Status, V1,
};
use infernet_protocol::job::Millis;
use nostr::Timestamp;

use crate::shop::{Shop, plain_name};

/// The announcement's name among its author's; one key runs one provider.
pub const IDENTIFIER: &str = "infernet";

/// How long an announcement stands: a provider that died is gone after that.
const STANDS_S: u64 = 90;

/// How often it is renewed: two renewals may be lost.
const RENEW_EVERY_MS: u64 = 30_000;

/// How soon it may be said again when load has changed: its time is in seconds,
/// and relays keep one of a second.
const CHANGE_EVERY_MS: u64 = 1_000;

/// How long to wait after relays refused it or could not be reached.
const RETRY_MS: u64 = 3_000;

/// How long a goodbye stands: long enough for relays to take and pass it on.
const GOODBYE_S: u64 = 60;

/// What changes from one announcement to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bulletin {
    /// Whether it takes work.
    pub status: Status,
    /// How much it is doing.
    pub load: Load,
}

/// When to announce.
#[derive(Debug)]
pub struct Schedule {
    said: Option<Bulletin>,
    said_at: Millis,
    due: Millis,
    is_under_way: bool,
}

impl Schedule {
    /// Nothing was said; it is time.
    pub const fn new(now: Millis) -> Self {
        Self {
            said: None,
            said_at: Millis(0),
            due: now,
            is_under_way: false,
        }
    }

    /// When to announce next; `None` while an announcement is under way.
    pub const fn due(&self) -> Option<Millis> {
        match self.is_under_way {
            true => None,
            false => Some(self.due),
        }
    }

    /// Something is different: says so soon.
    pub fn changed(&mut self, bulletin: Bulletin) {
        if self.said != Some(bulletin) {
            self.due = self.due.min(self.said_at.plus(CHANGE_EVERY_MS));
        }
    }

    /// A relay has come (back) that may not know us: says it now.
    pub fn reconnected(&mut self, now: Millis) {
        self.said = None;
        self.due = now;
    }

    /// This is being said.
    pub const fn says(&mut self, now: Millis, bulletin: Bulletin) {
        self.said = Some(bulletin);
        self.said_at = now;
        self.due = now.plus(RENEW_EVERY_MS);
        self.is_under_way = true;
    }

    /// What was being said was heard by a relay, or by none.
    pub fn was_heard(&mut self, now: Millis, heard: bool) {
        self.is_under_way = false;
        if !heard {
            self.said = None;
            self.due = self.due.min(now.plus(RETRY_MS));
        }
    }
}

/// The announcement of a shop that takes work, or is full.
pub fn announcement(shop: &Shop, bulletin: Bulletin, now: Timestamp) -> Announcement {
    let models = shop.catalogue.items().iter();
    let models: Vec<AnnouncedModel> = models
        .map(|item| item.announced(shop.promises.of(&item.model.id)))
        .collect();
    Announcement {
        v: V1,
        id: IDENTIFIER.into(),
        name: shop.options.name.clone(),
        status: bulletin.status,
        models,
        hardware: hardware(shop),
        capacity: Capacity {
            slots: shop.options.slots,
            queue: shop.options.queue,
        },
        load: bulletin.load,
        terms: shop.catalogue.terms(shop.ways()),
        direct: shop.options.direct,
        engine: shop.engine_version.clone(),
        relays: shop.options.relays.clone(),
        expires_at: Timestamp::from_secs(now.as_secs() + STANDS_S),
    }
}

/// The announcement that there will be no more.
pub fn goodbye(shop: &Shop, now: Timestamp) -> Announcement {
    let bulletin = Bulletin {
        status: Status::Offline,
        load: Load::default(),
    };
    Announcement {
        models: vec![],
        expires_at: Timestamp::from_secs(now.as_secs() + GOODBYE_S),
        ..announcement(shop, bulletin, now)
    }
}

fn hardware(shop: &Shop) -> Hardware {
    let hardware = shop.engine.hardware();
    Hardware {
        device: match hardware.device {
            Device::Cpu => DeviceKind::Cpu,
            Device::Cuda => DeviceKind::Cuda,
        },
        name: plain_name(&hardware.name),
        memory_mib: hardware.memory_mib,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000_000);

    fn bulletin(running: u32) -> Bulletin {
        Bulletin {
            status: Status::Online,
            load: Load { running, queued: 0 },
        }
    }

    #[test]
    fn it_is_renewed_well_before_it_runs_out() {
        let mut schedule = Schedule::new(NOW);
        assert_eq!(schedule.due(), Some(NOW));
        schedule.says(NOW, bulletin(0));
        assert_eq!(schedule.due(), None, "one at a time");
        schedule.was_heard(NOW.plus(50), true);
        assert_eq!(schedule.due(), Some(NOW.plus(RENEW_EVERY_MS)));
        const { assert!(2 * RENEW_EVERY_MS < STANDS_S * 1_000) }
    }

    #[test]
    fn a_change_of_load_is_said_soon_but_not_at_once() {
        let mut schedule = Schedule::new(NOW);
        schedule.says(NOW, bulletin(0));
        schedule.was_heard(NOW, true);
        schedule.changed(bulletin(0));
        assert_eq!(schedule.due(), Some(NOW.plus(RENEW_EVERY_MS)), "no change");
        schedule.changed(bulletin(1));
        assert_eq!(schedule.due(), Some(NOW.plus(CHANGE_EVERY_MS)));
    }

    #[test]
    fn a_change_while_one_is_under_way_is_not_lost() {
        let mut schedule = Schedule::new(NOW);
        schedule.says(NOW, bulletin(0));
        schedule.changed(bulletin(1));
        schedule.was_heard(NOW.plus(400), true);
        assert_eq!(schedule.due(), Some(NOW.plus(CHANGE_EVERY_MS)));
    }

    #[test]
    fn what_nobody_heard_is_said_again() {
        let mut schedule = Schedule::new(NOW);
        schedule.says(NOW, bulletin(0));
        schedule.was_heard(NOW, false);
        assert_eq!(schedule.due(), Some(NOW.plus(RETRY_MS)));
        schedule.reconnected(NOW.plus(10));
        assert_eq!(schedule.due(), Some(NOW.plus(10)));
    }
}
